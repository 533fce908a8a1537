"""Small trainings under any strategy, many in one go: ``python parallel_job.py PLAN.json``.

A plan: ``{"corpus", "jobs": [{"world", "cases"}]}``; a case: ``{"run", "arrangement", "strategy", "steps", ["precision",
"micro", "from", "clip", ...]}``. Each leaves a run directory whose ``metrics.jsonl`` and checkpoints tests compare.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import sys
import time
from pathlib import Path

import torch

import lightning_nlp
from lightning_nlp.cli.quiet import quieten
from lightning_nlp.strategies.model_parallel import ModelParallel

SHAPE = {"n_layers": 2, "d_model": 32, "n_heads": 4, "n_kv_heads": 2, "max_length": 64, "qk_norm": True}
SHAPES = {
    "decoder": {**SHAPE, "feedforward": "swiglu", "norm": "rmsnorm"},
    "encoder": {**SHAPE, "norm_placement": "post", "positions": "learned"},
    "encoder_decoder": {**SHAPE, "positions": "relative", "tie_embeddings": False},
}


def task_and_data(case: dict, corpus: Path):
    """The module and the data of a case, made from the same random numbers everywhere."""
    arrangement = case["arrangement"]
    config = lightning_nlp.TransformerConfig(
        arrangement=arrangement, dropout=case.get("dropout", 0.0), **{**SHAPES[arrangement], **case.get("backbone", {})}
    )
    optimizer = lightning_nlp.OptimizerConfig(**{"lr": 3e-3, **case.get("optimizer", {})})
    schedule = lightning_nlp.ScheduleConfig(name="cosine", warmup=2)
    common = {
        "tokenizer": lightning_nlp.TokenizerConfig(kind="byte"),
        "max_length": 64,
        "lanes": 8,
        "global_batch_size": 8,
        "micro_batch_size": case.get("micro", 2),
    }
    torch.manual_seed(3)
    if arrangement == "decoder":
        task = lightning_nlp.CausalLM(config, optimizer, schedule, sample_prompts=["the"])
        return task, lightning_nlp.CausalLMData(str(corpus / "texts"), **common)
    if arrangement == "encoder":
        task = lightning_nlp.TextClassification(config, head_dropout=0.0, optimizer=optimizer, schedule=schedule)
        return task, lightning_nlp.TextClassificationData(str(corpus / "labelled"), **common)
    task = lightning_nlp.Translation(config, optimizer=optimizer, schedule=schedule, language="en")
    common["max_source_length"] = common["max_target_length"] = common.pop("max_length")
    return task, lightning_nlp.SequenceToSequenceData(
        str(corpus / "pairs"), source_column="source", target_column="target", **common
    )


def strategy_of(case: dict):
    """What the Trainer takes."""
    strategy = case["strategy"]
    return ModelParallel(**strategy) if isinstance(strategy, dict) else strategy


def train(case: dict, corpus: Path, world: int) -> None:
    """One case."""
    task, data = task_and_data(case, corpus)
    run = Path(case["run"])
    trainer = lightning_nlp.Trainer(
        max_steps=case["steps"],
        validate_every=case.get("validate_every", 10),
        checkpoint_every=case.get("checkpoint_every", case["steps"]),
        keep_last=9,
        log_every_n_steps=1,
        gradient_clip_val=case.get("clip", 0.5),
        precision=case.get("precision"),
        accelerator="cpu",
        devices=world,
        strategy=strategy_of(case) if world > 1 else "auto",
        enable_progress_bar=False,
        logger=False,
        default_root_dir=str(run),
        **case.get("trainer", {}),
    )
    trainer.fit(task, datamodule=data, ckpt_path=case.get("from"))


def member(job: dict, corpus: Path, rank: int, port: int) -> None:
    """One process of a job, as ``torchrun`` would start it."""
    world = job["world"]
    os.environ |= {
        **{"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "job"},
        **{"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
    }
    for case in job["cases"]:
        train(case, corpus, world)


def main(path: str) -> int:
    """All jobs, one after the other; the processes of each are forked, so that libraries are imported once."""
    quieten()
    plan = json.loads(Path(path).read_text())
    context = multiprocessing.get_context("fork")
    for job in plan["jobs"]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        ranks = range(job["world"])
        members = [context.Process(target=member, args=(job, Path(plan["corpus"]), rank, port)) for rank in ranks]
        for process in members:
            process.start()
        while any(process.is_alive() for process in members):
            if any(process.exitcode for process in members):  # the others would wait for the one that failed
                for process in members:
                    process.kill()
            time.sleep(0.05)
        if any(process.exitcode for process in members):
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
