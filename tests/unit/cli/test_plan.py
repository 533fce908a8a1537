"""`plan`: what it reads out of a configuration, its arithmetic, its search, and that it leaves nothing behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lightning_nlp.__main__ import main
from lightning_nlp.cli import plan_trial
from lightning_nlp.cli.plan import bytes_of
from lightning_nlp.cli.plan_config import Layout, asked_of, layout_of
from lightning_nlp.cli.plan_numbers import accumulations, batch_of, checkpoint_bytes, memory, optimizer_bytes
from lightning_nlp.cli.plan_trial import Trial, configuration, trial
from lightning_nlp.errors import ConfigError, DataError
from tests.integration import runs

# A block: 4 D^2 of attention, 8 D^2 of the feed-forward; bytes and 4 special tokens make a vocabulary of 260.
EMBEDDING, BLOCK, NORMS = 260 * 32, 12 * 32 * 32, 3 * 32
PARAMETERS = EMBEDDING + BLOCK + NORMS


def plan(capsys, *args: object) -> dict:
    assert main(["plan", *map(str, args), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_what_a_plan_says(tiny, capsys):
    found = plan(capsys, "-c", tiny, "--tokens_per_second", "1000")
    assert found["parameters"] == {
        "embedding": EMBEDDING,
        "attention": 4 * 32 * 32,
        "feed-forward": 8 * 32 * 32,
        "norms and biases": NORMS,
    }
    assert found["vocabulary"] == {"size": 260, "known": "bytes and special tokens"}
    assert (found["data_ranks"], found["micro_batches"], found["micro_batch_rows"]) == (1, 4, 2)
    assert (found["rows_per_step"], found["tokens_per_step"], found["steps"]) == (8, 256, 40)
    assert found["flops_per_token"]["palm"] == 6 * (BLOCK + EMBEDDING) + 12 * 32 * 32
    assert found["flops"] == 40 * 256 * found["flops_per_token"]["palm"]
    assert found["seconds"] == 40 * 256 / 1000
    held = found["memory"]
    assert (held["weights"], held["gradients"], held["optimizer"]) == (
        4 * PARAMETERS,
        4 * PARAMETERS,
        8 * PARAMETERS + 32,
    )
    assert held["process"] > 100e6 and held["activations"] > 0
    assert held["scores of tokens"] == 12 * 2 * 32 * 260


def test_it_reads_as_text_and_leaves_nothing_behind(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIGHTNING_NLP_DATA", str(tmp_path / "data"))
    before = sorted(tmp_path.rglob("*"))
    assert main(["plan", "-c", str(tiny), "--memory", "16GiB", "--fit_micro_batch"]) == 0
    lines = capsys.readouterr().out.splitlines()
    heads = [line.split()[0] for line in lines if not line.startswith(" ")]
    assert heads == [
        "model",
        "vocabulary",
        "parameters",
        "FLOPs",
        "batch",
        "run",
        "time",
        "memory",
        "checkpoint",
        "micro-batch",
    ]
    assert "--data.micro_batch_size 8 is the largest that fits 16 GiB" in lines[-1]
    assert sorted(tmp_path.rglob("*")) == before


def test_epochs_are_counted_without_a_trace(tiny, corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LIGHTNING_NLP_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    rows = sum(1 for _ in (corpus / "train.jsonl").open())
    data = "label_column: id, max_length: 32, lanes: 4"
    config = runs.write_classification_config(tmp_path / "classes.yaml", corpus, data, "max_epochs: 3")
    found = plan(capsys, "-c", config)
    assert found["steps"] == -(-3 * rows // 8) and not found["row_tokens"]["full"]
    assert any("2 classes are assumed" in note for note in found["notes"])
    assert list((tmp_path / "data").iterdir()) == []


def test_a_sample_that_is_not_built_is_not_built(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LIGHTNING_NLP_DATA", str(tmp_path))
    config = Path(__file__).parents[3] / "configs" / "classification.yaml"
    found = plan(capsys, "-c", config)
    assert found["steps"] is None and found["seconds"] is None
    assert any("data build stdlib_modules" in note for note in found["notes"])
    assert list(tmp_path.iterdir()) == []


def test_a_run_brings_its_tokenizer(trained, capsys):
    found = plan(capsys, "--run", trained)
    assert found["vocabulary"]["size"] == 260 and found["steps"] == 10


def test_the_checkpoint_is_as_large_as_said(trained):
    asked = asked_of(["--run", str(trained)])
    (file, *_) = sorted((trained / "checkpoints").glob("*.ckpt"))
    assert checkpoint_bytes(asked) == pytest.approx(file.stat().st_size, rel=0.05)  # small: what is around counts


@pytest.mark.parametrize(
    ("flags", "each"),
    [
        ([], 8),
        (["--model.optimizer.name", "sgd", "--model.optimizer.betas", "[0.9,0.95]"], 0),
        (["--model.optimizer.name", "sgd", "--model.optimizer.momentum", "0.9"], 4),
        (["--trainer.precision", "bf16-true"], 4),
        (["--model.optimizer.name", "lion"], 4),
        (["--model.freeze", "[token_embedding]"], None),
    ],
)
def test_the_state_is_what_the_optimizer_makes(flags, each, tiny):
    asked = asked_of(["-c", str(tiny), *flags])
    expected = 8 * (BLOCK + NORMS) if each is None else each * PARAMETERS
    assert optimizer_bytes(asked) == pytest.approx(expected, abs=8 * 20)


def test_muon_keeps_one_number_of_a_matrix_in_a_block(tiny):
    """12 d^2 numbers of matrices in the block; all else has AdamW's two."""
    asked = asked_of(["-c", str(tiny), "--model.optimizer.name", "muon"])
    assert optimizer_bytes(asked) == pytest.approx(8 * PARAMETERS - 4 * 12 * 32**2, abs=8 * 20)


def test_a_batch_that_grows_has_fewer_tokens(tiny, capsys):
    """Half of the 40 steps with 4 rows, half with 16, of 32 tokens each."""
    ramp = ["--data.global_batch_size", "16", "--data.micro_batch_size", "4", "--data.batch_ramp", "{0: 4, 20: 16}"]
    found = plan(capsys, "-c", tiny, *ramp, "--tokens_per_second", "1000")
    assert found["steps"] == 40 and found["tokens"] == 20 * (4 + 16) * 32
    assert found["seconds"] == pytest.approx(found["tokens"] / 1000)
    assert found["flops"] == pytest.approx(found["tokens"] * found["flops_per_token"]["palm"])


RANKS = ["--trainer.devices", "2", "--data.micro_batch_size", "2"]


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        ([], {"weights": 1, "gradients": 1, "optimizer": 1}),
        (["--trainer.strategy", "ddp"], {"weights": 1, "gradients": 1, "optimizer": 1}),
        (["--trainer.strategy", "fsdp"], {"weights": 2, "gradients": 2, "optimizer": 2}),
    ],
)
def test_what_a_strategy_shares_out(flags, parts, tiny):
    asked, alone = asked_of(["-c", str(tiny), *RANKS, *flags]), asked_of(["-c", str(tiny)])
    assert asked.layout.data == 2 and batch_of(asked).micro_batches == 2
    found, whole = memory(asked), memory(alone)
    for part, divisor in parts.items():
        assert found[part] == pytest.approx(whole[part] / divisor), part
    assert ("buckets sent" in found) == (asked.layout.strategy == "ddp")


@pytest.mark.parametrize(
    ("trainer", "expected"),
    [
        ({"devices": "auto"}, Layout("none", 1, 1, True)),
        ({"devices": 4}, Layout("ddp", 4, 1, True)),
        ({"devices": "2", "num_nodes": 3, "strategy": "ddp"}, Layout("ddp", 6, 1, True)),
        ({"devices": [0, 1]}, Layout("ddp", 2, 1, True)),
        ({"devices": "0,1,2"}, Layout("ddp", 3, 1, True)),
        ({"devices": 8, "accelerator": "gpu", "strategy": "fsdp"}, Layout("fsdp", 8, 1, False)),
        ({"devices": 8, "strategy": "fsdp2"}, Layout("fsdp2", 8, 1, True)),
        ({"devices": 8, "num_nodes": 2, "strategy": "tp"}, Layout("tp", 2, 8, True)),
        ({"devices": 8, "strategy": "tp_fsdp2"}, Layout("tp_fsdp2", 4, 2, True)),
        (
            {"devices": 4, "num_nodes": 2, "strategy": {"class_path": "x.ModelParallelStrategy", "init_args": {}}},
            Layout("fsdp", 8, 1, True),
        ),
        (
            {
                "devices": 4,
                "strategy": {
                    "class_path": "x.ModelParallelStrategy",
                    "init_args": {"data_parallel_size": 2, "tensor_parallel_size": 2},
                },
            },
            Layout("fsdp", 2, 2, True),
        ),
    ],
)
def test_ranks_of_a_trainer(trainer, expected):
    plain = {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto"}
    assert layout_of({**plain, **trainer}, []) == expected


def test_sizes_that_do_not_multiply():
    strategy = {"class_path": "x.ModelParallelStrategy", "init_args": {"data_parallel_size": 3}}
    with pytest.raises(ConfigError, match=r"data_parallel_size 3 x tensor_parallel_size 1 are 3 processes, .* give 4"):
        layout_of({"accelerator": "cpu", "devices": 4, "num_nodes": 1, "strategy": strategy}, [])


def test_an_unknown_class_is_noted():
    notes: list[str] = []
    strategy = {"class_path": "far.Horovod", "init_args": None}
    layout_of({"accelerator": "cpu", "devices": 2, "num_nodes": 1, "strategy": strategy}, notes)
    assert notes == ["trainer.strategy Horovod is not known: whole copies on every rank are assumed"]


@pytest.mark.parametrize(
    ("text", "number"),
    [("8GiB", 2**33), ("8 GB", 2**33), ("8g", 2**33), ("1.5GiB", 3 * 2**29), ("500MiB", 500 * 2**20), ("4096", 4096)],
)
def test_sizes_of_memory(text, number):
    assert bytes_of(text) == number


@pytest.mark.parametrize("text", ["", "lots", "8 apples", "-1GiB", "0GiB", "GiB"])
def test_no_sizes_of_memory(text):
    with pytest.raises(ConfigError, match="is no size: write 8GiB"):
        bytes_of(text)


MISTAKES = [
    ([], "plan needs -c CONFIG, or --run RUN"),
    (["-c", "TINY", "--mesure", "3"], "plan: unknown option '--mesure'; did you mean '--measure'?"),
    (["-c", "TINY", "--trainer.max_step", "3"], "unknown key 'trainer.max_step'; did you mean 'trainer.max_steps'?"),
    (["-c", "TINY", "--measure", "0"], "--measure must be above 0, not 0"),
    (["-c", "TINY", "--tokens_per_second=-1"], "--tokens_per_second must be above 0, not -1.0"),
    (["-c", "TINY", "--memory", "much"], "--memory 'much' is no size"),
    (["-c", "TINY", "--fit_micro_batch", "--memory", "1MiB"], "data.micro_batch_size 1 is the smallest, and it needs"),
    (["-c", "TINY", "--trainer.accelerator", "gpu", "--fit_micro_batch"], "--memory is needed: there is no GPU here"),
    (["-c", "TINY", "--trainer.strategy", "fsdpp"], "does not know trainer.strategy 'fsdpp'; did you mean 'fsdp'?"),
    (["-c", "TINY", "--trainer.devices", "3"], "data.lanes 4 is not divisible by 3 data ranks"),
    (["-c", "TINY", "--trainer.devices", "two"], "trainer.devices must be a number of devices from 1 on"),
    (["-c", "TINY", "--trainer.devices", "0"], "trainer.devices must be a number of devices from 1 on"),
    (["-c", "TINY", "--trainer.devices=-2"], "a list, or auto, not -2"),
    (["-c", "TINY", "--trainer.num_nodes", "0"], "trainer.num_nodes must be at least 1, not 0"),
    (["-c", "TINY", "--trainer.accelerator", "gpuu"], "unknown trainer.accelerator 'gpuu'; did you mean 'gpu'?"),
    (
        ["-c", "TINY", "--trainer.strategy", "tp", "--trainer.devices", "4"],
        "backbone.n_heads 2 cannot be dealt out to 4 tensor-parallel processes",
    ),
    (["-c", "TINY", "--trainer.max_tokens", "9"], "trainer.max_steps and trainer.max_tokens both say when to stop"),
    (["-c", "TINY", "--trainer.max_steps", "null"], "say when to stop"),
    (["-c", "TINY", "--model.backbone.d_model", "33"], "backbone.n_heads 2 does not divide backbone.d_model 33"),
    (["-c", "TINY", "--data.path", "nowhere"], "data.path 'nowhere' does not exist"),
    (["-c", "TINY", "--data.path", "sample:nothing"], "unknown sample 'nothing'"),
    (["-c", "missing.yaml"], "config file 'missing.yaml' does not exist"),
    (["--run", "runs/none"], "there is no run at 'runs/none'"),
]


@pytest.mark.parametrize(("args", "message"), MISTAKES, ids=lambda value: str(value)[:40])
def test_mistakes_are_one_line(args, message, tiny, capsys):
    assert main(["plan", *(str(tiny) if arg == "TINY" else arg for arg in args)]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("lightning-nlp: error: ") and message in line and captured.out == ""


# Trying -------------------------------------------------------------------------------------------------------


def test_accumulations_are_those_that_divide(tiny):
    assert accumulations(asked_of(["-c", str(tiny)])) == [1, 2, 4, 8]
    assert accumulations(asked_of(["-c", str(tiny), *RANKS])) == [1, 2, 4]


@pytest.mark.parametrize(("limit", "chosen"), [(9, 8), (8, 8), (7.9, 4), (3, 2), (1, 1)])
def test_the_search_finds_the_largest_that_fits(limit, chosen, tiny, capsys, monkeypatch):
    """A trial of a micro-batch of m rows takes m MiB."""
    seen: list[int] = []

    def take(args, steps, data__micro_batch_size):
        seen.append(data__micro_batch_size)
        return Trial(0.1, 256, data__micro_batch_size * 2**20)

    monkeypatch.setattr(plan_trial, "trial", take)
    monkeypatch.setattr("lightning_nlp.cli.plan_config.torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("lightning_nlp.cli.plan_config.torch.cuda.device_count", lambda: 1)
    found = plan(capsys, "-c", tiny, "--trainer.accelerator", "gpu", "--fit_micro_batch", "--memory", f"{limit}MiB")
    assert found["micro_batch"]["value"] == chosen and found["micro_batch"]["tried"]
    assert len(seen) == len(set(seen)) <= 3 and chosen in seen


def test_a_trial_that_runs_out_of_memory_is_no_error(monkeypatch, tiny):
    def run(command, **options):
        return SimpleNamespace(returncode=1, stderr="Traceback\ntorch.OutOfMemoryError: CUDA out of memory.\n")

    monkeypatch.setattr(plan_trial.subprocess, "run", run)
    assert trial(["-c", str(tiny)], 2) is None


@pytest.mark.parametrize(
    ("code", "said", "kind", "message"),
    [
        (2, "lightning-nlp: error: no such thing", ConfigError, "^no such thing$"),
        (1, "lightning-nlp: error: row 3 is bad", DataError, "exit code 1: row 3 is bad$"),
        (-11, "", DataError, "exit code -11: no message$"),
    ],
)
def test_a_trial_that_fails_says_why(code, said, kind, message, monkeypatch, tiny):
    monkeypatch.setattr(plan_trial.subprocess, "run", lambda *a, **b: SimpleNamespace(returncode=code, stderr=said))
    with pytest.raises(kind, match=message):
        trial(["-c", str(tiny)], 2)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["-c", "x.yaml", "--name", "n", "--data.path", "p"], ["-c", "x.yaml", "--data.path", "p"]),
        (["--run", "runs/a", "--trainer.devices=2"], ["-c", "runs/a/config.fit.yaml", "--trainer.devices=2"]),
        (["-c", "x.yaml", "--run=runs/a", "--overwrite", "--root=r"], ["-c", "runs/a/config.fit.yaml", "-c", "x.yaml"]),
        (["-c", "x.yaml", "--profile", "3", "--overwrite"], ["-c", "x.yaml"]),
    ],
)
def test_a_trial_has_a_run_of_its_own(args, expected):
    assert configuration(args) == expected


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from lightning_nlp.__main__ import main; code = main(['plan', '--help']); "
        "print(code, {'torch', 'lightning', 'numpy', 'jsonargparse'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "0 set()\n" and "--fit_micro_batch" in done.stdout
