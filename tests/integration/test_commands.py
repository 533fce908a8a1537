"""Every recipe runs; flags beat files; predictions and generations come out as promised."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from lightning_nlp.__main__ import main

pytestmark = pytest.mark.slow
CONFIGS = Path(__file__).parents[2] / "configs"
RECIPES = sorted(CONFIGS.glob("*.yaml"))
OVERLAYS = {"trainer/cpu.yaml": "quickstart.yaml", "model/small.yaml": "quickstart.yaml"}
ARCHITECTURES = {
    "bert": "masked_lm",
    "gpt2": "quickstart",
    "llama": "quickstart",
    "longformer": "masked_lm",
    "t5": "translation",
    "transformer_xl": "quickstart",
}
"""Overlays of ``configs/model`` that change parts, and a recipe each is for."""


def test_every_recipe_is_tested():
    assert {recipe.name for recipe in RECIPES} >= {"quickstart.yaml", "classification.yaml"}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_recipe_runs_two_real_steps(recipe, samples, tmp_path):
    quick = ["-c", str(CONFIGS / "debug" / "quick.yaml"), "-c", str(CONFIGS / "trainer" / "cpu.yaml")]
    assert main(["fit", "-c", str(recipe), *quick, "--root", str(tmp_path)]) == 0
    run = tmp_path / recipe.stem
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "train/loss" in line] == [1, 2]
    assert any("val/loss" in line for line in lines)
    assert (run / "checkpoints" / "step-2.json").is_file() and list(run.glob("events.out.tfevents.*"))
    assert json.loads((run / "status.json").read_text())["state"] == "done"


def test_every_architecture_has_a_recipe():
    found = {path.stem for path in (CONFIGS / "model").glob("*.yaml")}
    assert found == {*ARCHITECTURES, "small"}
    for name, recipe in ARCHITECTURES.items():
        assert f"for {recipe}.yaml" in (CONFIGS / "model" / f"{name}.yaml").read_text().splitlines()[0]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architecture_runs_two_real_steps(name, samples, tmp_path):
    recipe, overlay = CONFIGS / f"{ARCHITECTURES[name]}.yaml", CONFIGS / "model" / f"{name}.yaml"
    quick = ["-c", str(CONFIGS / "debug" / "quick.yaml"), "-c", str(CONFIGS / "trainer" / "cpu.yaml")]
    assert main(["fit", "-c", str(recipe), "-c", str(overlay), *quick, "--root", str(tmp_path)]) == 0
    lines = [json.loads(line) for line in (tmp_path / recipe.stem / "metrics.jsonl").read_text().splitlines()]
    assert any("val/loss" in line for line in lines)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlay_parses_over_its_recipe(overlay, samples, capsys):
    assert main(["fit", "-c", str(CONFIGS / OVERLAYS[overlay]), "-c", str(CONFIGS / overlay), "--print_config"]) == 0
    printed, given = yaml.safe_load(capsys.readouterr().out), yaml.safe_load((CONFIGS / overlay).read_text())

    def check(part, whole):
        for key, value in part.items():
            check(value, whole[key]) if isinstance(value, dict) else (value == whole[key] or pytest.fail(key))

    check(given, printed)


def test_precedence_defaults_run_files_flags(tiny, tmp_path):
    later = tmp_path / "later.yaml"
    later.write_text("trainer: {max_steps: 3, validate_every: 3, log_every_n_steps: 1}\n")
    base = ["fit", "-c", str(tiny), "-c", str(later), "--root", str(tmp_path), "--name", "run"]
    assert main([*base, "--trainer.max_steps", "2"]) == 0
    saved = yaml.safe_load((tmp_path / "run" / "config.fit.yaml").read_text())
    assert saved["trainer"]["max_steps"] == 2 and saved["trainer"]["validate_every"] == 3
    assert saved["model"]["init_args"]["backbone"]["vocab_size"] == 260  # what the data decided
    assert not {"run", "name", "root", "init_from", "ckpt_path", "overwrite"} & saved.keys()
    assert main(["fit", "--run", str(tmp_path / "run"), "-c", str(later)]) == 0  # a file beats the run's config
    assert yaml.safe_load((tmp_path / "run" / "config.fit.yaml").read_text())["trainer"]["max_steps"] == 3


def test_names_and_existing_runs(tiny, tmp_path, capsys):
    args = ["fit", "-c", str(tiny), "--root", str(tmp_path), "--trainer.max_steps", "1"]
    assert main(args) == 0 and (tmp_path / "tiny").is_dir()  # named by the file's stem
    assert main(args) == 2
    assert f"--run {tmp_path / 'tiny'}" in capsys.readouterr().err
    assert main([*args, "--overwrite"]) == 0


def test_predict_keeps_order_and_ids_and_generate_prints(trained, tmp_path, capsys):
    texts = ["the cat sat on a mat while one dog ran", "a", "seas"]
    source, output = tmp_path / "my.jsonl", tmp_path / "out" / "answers.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    assert main(["predict", "--run", str(trained), "--input", str(source), "--output", str(output)]) == 0
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert [record["text"] for record in records] == texts
    assert [record["id"] for record in records] == ["input:0", "input:1", "input:2"]
    assert all(record["log_likelihood"] < 0 and isinstance(record["prediction"], str) for record in records)
    args = ["predict", "--run", str(trained), "--input", str(source), "--output", str(output)]
    source.write_text('{"id": "twice", "text": "one"}\n{"id": "twice", "text": "two"}\n{"id": "none", "text": ""}\n')
    capsys.readouterr()
    assert main(args) == 2 and "holds other predictions: input is my.jsonl" in capsys.readouterr().err
    assert main([*args, "--overwrite"]) == 0
    assert "3 predictions in" in (said := capsys.readouterr().err) and "1 of them rows that could not be" in said
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert [record.get("text") for record in records] == ["one", "two", None]
    assert records[2] == {"id": "none", "error": "the text is empty"}
    args = ["generate", "--run", str(trained), "--prompt", "the cat", "--max_new_tokens", "5", "--temperature", "0"]
    assert main(args) == 0
    first = capsys.readouterr().out
    assert first.startswith("the cat")
    assert main(args) == 0 and capsys.readouterr().out == first


def test_validate_and_test_report(trained, capsys):
    assert main(["validate", "--run", str(trained)]) == 0
    assert "val/bits_per_byte" in capsys.readouterr().out
    assert main(["test", "--run", str(trained)]) == 0
    report = json.loads((trained / "reports" / "test.test.json").read_text())
    assert report["metrics"]["test/loss"] > 0 and report["step"] == 10
