"""Start, kill and compare real runs; also a script: ``python -m tests.integration.runs --kills 20 --work DIR``."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

import lightning_nlp
from lightning_nlp.__main__ import main as lightning_nlp_main
from lightning_nlp.verification.history import history, last_step, lines, steps_back
from lightning_nlp.verification.kills import command, moment, start, stop_after

__all__ = ["command", "history", "last_step", "lines", "start", "steps_back", "stop_after"]

WORDS = tuple(
    [
        "the",
        "cat",
        "sat",
        "on",
        "a",
        "mat",
        "while",
        "one",
        "dog",
        "ran",
        "over",
        "red",
        "hills",
        "and",
        "some",
        "birds",
        "flew",
        "to",
        "warm",
        "seas",
    ]
)


def write_corpus(directory: Path, documents: int = 300, seed: int = 0) -> Path:
    """JSON lines of random sentences of very different lengths, train and validation."""
    directory.mkdir(parents=True, exist_ok=True)
    draw = random.Random(seed)
    for split, size in (("train", documents), ("validation", max(documents // 10, 4)), ("test", 8)):
        with (directory / f"{split}.jsonl").open("w") as stream:
            for number in range(size):
                text = " ".join(draw.choices(WORDS, k=draw.choice([1, 3, 8, 20, 60])))
                stream.write(json.dumps({"id": f"{split}-{number}", "text": text}) + "\n")
    return directory


def write_config(path: Path, corpus: Path, **trainer: object) -> Path:
    """A tiny language model with dropout, that logs every step."""
    settings = {
        "max_steps": 40,
        "validate_every": 16,
        "checkpoint_every": 5,
        "log_every_n_steps": 1,
        "gradient_clip_val": 1.0,
        "accelerator": "cpu",
        "devices": 1,
        **trainer,
    }
    lines = "\n".join(f"  {name}: {json.dumps(value)}" for name, value in settings.items())
    path.write_text(
        f"""
seed_everything: 7
model:
  class_path: CausalLM
  init_args:
    backbone: {{n_layers: 1, d_model: 32, n_heads: 2, max_length: 64, dropout: 0.1}}
    optimizer: {{lr: 0.003}}
    schedule: {{name: cosine, warmup: 5}}
    sample_prompts: ["the "]
    generation: {{max_new_tokens: 5, temperature: 1.0}}
data:
  class_path: CausalLMData
  init_args:
    path: {corpus}
    tokenizer: {{kind: byte}}
    max_length: 32
    global_batch_size: 8
    micro_batch_size: 2
    lanes: 4
    block_rows: 16
trainer:
{lines}
"""
    )
    return path


def write_classification_config(path: Path, texts: Path, data: str, trainer: str) -> Path:
    """A tiny classifier on ``texts``; more of ``data`` and the ``trainer`` as flow mappings without braces."""
    path.write_text(
        f"""
model:
  class_path: TextClassification
  init_args:
    backbone: {{arrangement: encoder, n_layers: 1, d_model: 32, n_heads: 2, max_length: 64}}
data:
  class_path: TextClassificationData
  init_args: {{path: {texts}, tokenizer: {{kind: byte}}, global_batch_size: 8, {data}}}
trainer: {{{trainer}, accelerator: cpu, devices: 1}}
"""
    )
    return path


def fit_language_model(corpus: Path, directory: Path, dropout: float = 0.0, **trainer: Any) -> lightning_nlp.CausalLM:
    """A tiny language model trained in this process, four texts a step, all checkpoints kept."""
    torch.manual_seed(0)
    config = lightning_nlp.TransformerConfig(n_layers=1, d_model=32, n_heads=2, max_length=64, dropout=dropout)
    module = lightning_nlp.CausalLM(config, sample_prompts=[])
    tokenizer = lightning_nlp.TokenizerConfig(kind="byte")
    data = lightning_nlp.CausalLMData(str(corpus), tokenizer=tokenizer, max_length=64, global_batch_size=4, lanes=4)
    common = {
        "checkpoint_every": 4,
        "keep_last": 9,
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "logger": False,
    }
    lightning_nlp.Trainer(**{**common, "default_root_dir": str(directory), **trainer}).fit(module, datamodule=data)
    return module


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def run(*args: object, timeout: float = 300, check: int | None = 0) -> subprocess.CompletedProcess[str]:
    """One command to its end; ``check`` is the exit code it must have (None: any)."""
    done = subprocess.run(command(*args), env=environment(), capture_output=True, text=True, timeout=timeout)
    if check is not None and done.returncode != check:
        raise AssertionError(f"exit {done.returncode} instead of {check}: {' '.join(done.args)}\n{done.stderr[-3000:]}")
    return done


def inside(*args: object) -> tuple[str, str]:
    """One command in this process, which saves its imports; what it wrote to standard output and error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = lightning_nlp_main([str(part) for part in args])
    if code:
        raise AssertionError(f"exit {code}: {args}\n{err.getvalue()[-3000:]}")
    return out.getvalue(), err.getvalue()


def kill_and_resume(config: Path, root: Path, kills: int, seed: int, number: int = signal.SIGKILL) -> tuple[Path, int]:
    """Run ``config`` killing it up to ``kills`` times at random moments; returns the run and the kills that hit."""
    draw = random.Random(seed)
    directory = root / f"killed-{seed}"
    args: tuple[object, ...] = ("fit", "-c", config, "--run", directory)
    hits = 0
    for _ in range(kills):
        process = start(list(args), environment())
        hit = stop_after(process, directory, *moment(draw, directory, 6), number)
        hits += hit
        if not hit:
            break
    run(*args)
    return directory, hits


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Random kills of `fit`; every resumed run must equal the unkilled one."
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--signal", default="KILL", help="KILL, TERM, INT or USR1")
    parser.add_argument("--work", type=Path, required=True, help="empty directory for runs")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    corpus = write_corpus(options.work / "corpus")
    config = write_config(options.work / "tiny.yaml", corpus, max_steps=60)
    run("fit", "-c", config, "--root", options.work, "--name", "clean")
    clean, hits, seed = history(options.work / "clean"), 0, options.seed
    number = getattr(signal, f"SIG{options.signal}")
    while hits < options.kills:
        directory, hit = kill_and_resume(config, options.work, min(5, options.kills - hits), seed, number)
        hits, seed = hits + hit, seed + 1
        found = history(directory)
        if max(steps_back(directory), default=0) > 5:
            print(f"{directory.name}: went back {steps_back(directory)} steps, checkpoints are 5 apart")
            return 1
        different = [key for key in clean if found.get(key) != clean[key]] + [key for key in found if key not in clean]
        print(f"{directory.name}: {hit} kills, {len(found)} values compared, {len(different)} differ", flush=True)
        if different:
            print("first differences:", different[:5])
            return 1
    print(f"{hits} of {hits} kills resumed exactly: losses, gradient norms, metrics and ids bit for bit")
    return 0


if __name__ == "__main__":
    sys.exit(main())
