"""Recurrent memory in whole runs: exact on resume and on two ranks, exact in evaluation, apart from training."""

from __future__ import annotations

import json
import random
import signal
import subprocess

import pytest
import torch

import lightning_nlp
from lightning_nlp.data.causal_lm import CausalLMData
from lightning_nlp.data.evaluation import EvalRows
from tests.integration import runs

MEMORY = ("--model.backbone.memory_length", 24, "--data.lanes", 8)


@pytest.fixture(scope="module")
def remembering(tmp_path_factory):
    """A run with long documents and a memory, its corpus and its configuration."""
    root = tmp_path_factory.mktemp("memory")
    draw = random.Random(0)
    (root / "corpus").mkdir()
    for split, size in (("train", 60), ("validation", 9), ("test", 5)):
        with (root / "corpus" / f"{split}.jsonl").open("w") as stream:
            for number in range(size):
                text = " ".join(draw.choices(runs.WORDS, k=draw.choice([2, 10, 40])))
                stream.write(json.dumps({"id": f"{split}-{number}", "text": text}) + "\n")
    config = runs.write_config(root / "memory.yaml", root / "corpus", max_steps=12, validate_every=4)
    runs.run("fit", "-c", config, "--root", root / "runs", *MEMORY)
    return config, root / "runs" / "memory"


def test_a_resumed_run_remembers(remembering, tmp_path):
    config, clean = remembering
    run = tmp_path / "again"
    arguments = ("fit", "-c", config, "--run", run, *MEMORY)
    process = subprocess.Popen(
        runs.command(*arguments), env=runs.environment(), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    runs.stop_after(process, run, 6, 0.0, signal.SIGTERM)
    runs.run(*arguments)
    assert runs.history(run) == runs.history(clean)
    saved = torch.load(run / "checkpoints" / "step-12.ckpt", weights_only=True)["recurrence"]
    assert sorted(map(int, saved)) == list(range(8))
    assert all(kept["states"].shape == (1, 24, 32) for kept in saved.values())


def test_two_ranks_remember_the_same(remembering, tmp_path):
    config, _ = remembering
    same = (*MEMORY, "--model.backbone.dropout", 0, "--trainer.max_steps", 6, "--trainer.validate_every", 3)
    runs.run("fit", "-c", config, "--root", tmp_path, "--name", "one", *same)
    runs.run(
        "fit", "-c", config, "--root", tmp_path, "--name", "two", *same,
        "--trainer.devices", 2, "--trainer.strategy", "ddp",
    )  # fmt: skip
    one, two = runs.history(tmp_path / "one"), runs.history(tmp_path / "two")
    assert one.keys() == two.keys()
    for key, value in one.items():
        assert two[key] == (value if key[1] in ("ids", "tokens") else pytest.approx(value, rel=2e-5))
    states = [
        torch.load(tmp_path / name / "checkpoints" / "step-6.ckpt", weights_only=True)["recurrence"]
        for name in ("one", "two")
    ]
    assert states[0].keys() == states[1].keys()
    for lane, kept in states[0].items():
        assert torch.equal(kept["real"], states[1][lane]["real"])
        torch.testing.assert_close(states[1][lane]["states"], kept["states"], rtol=1e-4, atol=1e-5)


def test_evaluation_with_all_of_the_past_is_reading_at_once(remembering):
    """Rows of 16 with a memory longer than any document give the loss of rows that hold whole documents."""
    _, run = remembering
    module = lightning_nlp.load(run)
    data = CausalLMData(str(run.parent.parent / "corpus"), max_length=16)
    data.tokenizer = module.head.tokenizer
    data.prepare_data = lambda: None
    rows = [json.loads(line) for line in (run.parent.parent / "corpus" / "validation.jsonl").open()]

    class Source:
        name = "validation"

        def scan(self, start):
            return iter(rows)

    def loss(length, micro, lanes, memory):
        module.backbone.config = module.config = module.config.replace(memory_length=memory, max_length=512)
        module.memory.forget("evaluation")
        module.heads["lm"].reset()
        found = EvalRows(
            Source(),
            data.prepare,
            mode="packed",
            max_length=length,
            micro_batch=micro,
            data_ranks=1,
            rank=0,
            lanes=lanes,
        )
        with torch.no_grad():
            for group in found:
                module._evaluate(data.collate(group))
        return module.heads["lm"].compute()["loss"]

    longest = max(len(row["text"]) for row in rows) + 2
    # One document a row: every one is read at once.
    alone = sum_of_singles(module, data, rows, longest)
    assert loss(16, 4, 8, longest) == pytest.approx(alone, rel=1e-6)
    assert loss(16, 2, 4, longest) == pytest.approx(alone, rel=1e-6)
    assert abs(loss(16, 4, 8, 0) - alone) > 1e-4


def sum_of_singles(module, data, rows, longest):
    """Loss a token when every document is one row."""
    total, count = 0.0, 0
    module.backbone.config = module.config = module.config.replace(memory_length=0, max_length=512)
    with torch.no_grad():
        for example in data.prepare(rows):
            tokens, labels = (torch.from_numpy(x).long()[None] for x in (example.tokens, example.labels))
            loss, number = module.head.loss(module.backbone, module.backbone(tokens), labels)
            total, count = total + float(loss), count + int(number)
    return total / count


def test_a_global_batch_wider_than_the_lanes_is_refused(remembering, tmp_path):
    config, _ = remembering
    done = runs.run(
        "fit", "-c", config, "--root", tmp_path, "--model.backbone.memory_length", 8, "--data.lanes", 4, check=2
    )
    assert "memory_length needs data.lanes 4 to be at least the global batch 8" in done.stderr.splitlines()[-1]
