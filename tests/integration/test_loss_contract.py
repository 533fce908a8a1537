"""k micro-batches give the gradient of one big batch, also when their token counts differ; mean of means would not."""

from __future__ import annotations

import json

import pytest
import torch

import lightning_nlp
from lightning_nlp.optim.optimizers import OptimizerConfig

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """Classification and language-model texts whose lengths differ by a factor of sixty."""
    directory = tmp_path_factory.mktemp("uneven")
    with (directory / "train.jsonl").open("w") as stream:
        for number in range(64):
            text = "word " * (1 if number % 3 else 60) + str(number)
            stream.write(json.dumps({"text": text, "label": "odd" if number % 2 else "even"}) + "\n")
    (directory / "validation.jsonl").write_text((directory / "train.jsonl").read_text())
    return directory


def train(kind, directory, run, micro, clip, precision="32-true"):
    """Weights and logged values after three SGD steps of eight rows, ``micro`` rows at a time."""
    shape = {"n_layers": 1, "d_model": 32, "n_heads": 2, "max_length": 128}
    optimizer = OptimizerConfig(name="sgd", lr=0.5, weight_decay=0.0)
    schedule = lightning_nlp.ScheduleConfig(name="constant")
    tokenizer = lightning_nlp.TokenizerConfig(kind="byte")
    torch.manual_seed(0)
    if kind == "lm":
        module = lightning_nlp.CausalLM(
            lightning_nlp.TransformerConfig(**shape), optimizer, schedule, sample_prompts=[]
        )
        data = lightning_nlp.CausalLMData(
            str(directory), tokenizer=tokenizer, max_length=64, global_batch_size=8, micro_batch_size=micro, lanes=8
        )
    else:
        config = lightning_nlp.TransformerConfig(arrangement="encoder", **shape)
        module = lightning_nlp.TextClassification(config, head_dropout=0.0, optimizer=optimizer, schedule=schedule)
        data = lightning_nlp.TextClassificationData(
            str(directory), tokenizer=tokenizer, max_length=128, global_batch_size=8, micro_batch_size=micro, lanes=8
        )
    trainer = lightning_nlp.Trainer(
        max_steps=3,
        validate_every=0,
        log_every_n_steps=1,
        limit_val_batches=0,
        gradient_clip_val=clip,
        accelerator="cpu",
        precision=precision,
        enable_progress_bar=False,
        logger=False,
        default_root_dir=str(run),
    )
    trainer.fit(module, datamodule=data)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return module.state_dict(), lines


@pytest.mark.parametrize("clip", [None, 0.3])
@pytest.mark.parametrize("kind", ["lm", "classification"])
def test_accumulation_equals_one_big_batch(kind, clip, uneven, tmp_path):
    whole, expected = train(kind, uneven, tmp_path / "whole", 8, clip)
    for micro in (4, 2, 1):
        parts, found = train(kind, uneven, tmp_path / f"parts-{micro}", micro, clip)
        for name, value in whole.items():
            torch.testing.assert_close(parts[name], value, rtol=0, atol=2e-6, msg=f"{name}, micro-batch {micro}")
        for one, other in zip(expected, found, strict=True):
            assert one["ids"] == other["ids"] and one["tokens"] == other["tokens"]
            assert other["train/loss"] == pytest.approx(one["train/loss"], abs=1e-6)
            assert other["train/grad_norm"] == pytest.approx(one["train/grad_norm"], rel=1e-5)  # as the clip sees it


def test_masked_labels_weigh_by_count_not_by_micro_batch(uneven, tmp_path):
    """The control: with uneven counts the mean of micro-batch means is another number, so the test above can fail."""
    module, data = make_masked(uneven)
    batches = [next(iter(data)) for data in [data]]
    labels = batches[0]["labels"].clone()
    labels[:4, 4:] = -100
    head, backbone = module.head, module.backbone
    parts = [
        head(backbone, {**batches[0], **cut(batches[0], labels, rows)})["loss"] for rows in (slice(0, 4), slice(4, 8))
    ]
    whole = head(backbone, {**batches[0], "labels": labels})["loss"]
    torch.testing.assert_close(sum(total for total, _ in parts), whole[0])
    mean_of_means = sum(total / count for total, count in parts) / 2
    assert abs(float((mean_of_means - whole[0] / whole[1]).detach())) > 1e-3


def make_masked(directory):
    shape = {"n_layers": 1, "d_model": 32, "n_heads": 2, "max_length": 128, "vocab_size": 260}
    torch.manual_seed(1)
    module = lightning_nlp.CausalLM(lightning_nlp.TransformerConfig(**shape, init_std=0.5))
    module.configure_model()
    tokenizer = lightning_nlp.TokenizerConfig(kind="byte")
    data = lightning_nlp.CausalLMData(str(directory), tokenizer=tokenizer, max_length=64, global_batch_size=8, lanes=8)
    data.setup("fit")
    data.plan(1, 0)
    return module, data.train_dataloader()


def cut(batch, labels, rows):
    return {"labels": labels[rows], **{name: batch[name][rows] for name in ("tokens", "positions", "segments")}}
