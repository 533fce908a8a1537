"""What `lightning-nlp test` says of a language model beside what EleutherAI's lm-evaluation-harness says of its export.

python -m benchmarks.harness_agreement --run RUN --file TEXTS.jsonl [--checkpoint CHOICE] [--json FILE]

Needs `pip install lm-eval accelerate`. Every document is scored by itself, in windows of the run's `data.max_length`
(`data.eval_stride`), on one CPU, in float32.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import yaml

NAMES = ("word_perplexity", "byte_perplexity", "bits_per_byte")
TASK = "local_text"


def ours(run: Path, file: Path, length: int, checkpoint: str, work: Path) -> dict[str, float]:
    """What the command line says of the texts of a JSON lines file (column ``text``)."""
    from lightning_nlp.cli.app import main as command

    folder = work / "data"
    folder.mkdir()
    for split in ("train", "test"):  # only the latter is scored
        shutil.copy(file, folder / f"{split}.jsonl")
    settings = {"data.path": folder, "data.format": "jsonl", "data.prepared": "none", "data.eval_stride": length}
    settings |= {"ckpt_path": checkpoint, "trainer.accelerator": "cpu", "trainer.devices": 1}
    flags = [str(part) for name, value in settings.items() for part in (f"--{name}", value)]
    copy = work / "run"  # its reports are about its own texts, and stay so
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("reports", "predictions", "events*"))
    if command(["test", "--run", str(copy), *flags]) != 0:
        raise SystemExit(1)
    found = json.loads((copy / "reports" / "test.test.json").read_text())["metrics"]
    return {name: found[f"test/{name}"] for name in NAMES}


def theirs(run: Path, file: Path, length: int, checkpoint: str, work: Path) -> dict[str, float]:
    """What the harness says of the exported model, through its Hugging Face backend and a task of local files."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from lightning_nlp.interop.convert import export_model
    from lightning_nlp.loading import load

    export_model(load(run, checkpoint), work / "export")
    task = {
        "task": TASK,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(file.resolve())}, "cache_dir": str(work / "cache")},
        "test_split": "test",
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": name} for name in NAMES],
    }
    (work / "tasks").mkdir()
    (work / "tasks" / f"{TASK}.yaml").write_text(yaml.safe_dump(task))
    settings: dict[str, Any] = {"pretrained": str(work / "export"), "max_length": length, "dtype": "float32"}
    settings["add_bos_token"] = False  # the harness puts the start token before a text by itself
    found = simple_evaluate(
        model="hf",
        model_args=settings,
        tasks=[TASK],
        task_manager=TaskManager(include_path=str(work / "tasks"), include_defaults=False),
        batch_size=4,
        device="cpu",
        bootstrap_iters=0,
    )
    return {name: float(found["results"][TASK][f"{name},none"]) for name in NAMES}


def compare(run: Path, file: Path, checkpoint: str = "best") -> list[dict[str, Any]]:
    """A row for each number."""
    config = yaml.safe_load((run / "config.fit.yaml").read_text())
    length = int(config["data"]["init_args"]["max_length"])
    with tempfile.TemporaryDirectory() as folder:
        both = [side(run, file, length, checkpoint, Path(folder)) for side in (ours, theirs)]
    return [
        {"row": name, "ours": both[0][name], "theirs": both[1][name], "relative": both[0][name] / both[1][name] - 1}
        for name in NAMES
    ]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--checkpoint", default="best")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    rows = compare(options.run, options.file, options.checkpoint)
    print(f"{'':<18}{'lightning_nlp':>20}{'lm-eval':>20}{'relative difference':>22}")
    for row in rows:
        print(f"{row['row']:<18}{row['ours']:>20.12g}{row['theirs']:>20.12g}{row['relative']:>22.1e}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
