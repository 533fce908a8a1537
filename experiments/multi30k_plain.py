"""The peer of multi30k.yaml: PyTorch's own nn.Transformer of the same shape, on the same batches.

python -m experiments.multi30k_plain CONFIG [--steps 2000] [--every 250] [--json FILE]

Batches, tokenizer, optimizer settings, schedule, smoothing and dropout are those of the configuration; the model is
``nn.Transformer`` as it comes (post-norm, a last norm on either stack, Glorot's weights), with one embedding for
source, target and output, as in the original. Prints unsmoothed loss a token of the validation split, and at the end
BLEU of the test split, decoded greedily by recomputing every prefix.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

from lightning_nlp import registry
from lightning_nlp.data.tokenizers.tokenizer import TokenizerConfig
from lightning_nlp.metrics.translation import BLEU
from lightning_nlp.optim.schedules import ScheduleConfig, factor


class Plain(nn.Module):
    """Scores of targets for sources; ids ``[B, S]`` and ``[B, T]``."""

    def __init__(self, vocab_size: int, shape: dict[str, Any], longest: int = 256) -> None:
        super().__init__()
        width, layers, self.scale = shape["d_model"], shape["n_layers"], shape["d_model"] ** 0.5
        self.embedding = nn.Embedding(vocab_size, width)
        self.dropout = nn.Dropout(shape["dropout"])
        self.body = nn.Transformer(
            width, shape["n_heads"], layers, layers, shape["d_ff"], shape["dropout"], batch_first=True
        )
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        rates = torch.exp(-math.log(10000.0) * torch.arange(0, width, 2) / width)
        angles = torch.arange(longest)[:, None] * rates
        self.register_buffer("waves", torch.stack([angles.sin(), angles.cos()], -1).flatten(1))

    def embed(self, tokens: Tensor) -> Tensor:
        found: Tensor = self.dropout(self.embedding(tokens) * self.scale + self.waves[: tokens.shape[1]])
        return found

    def forward(self, source: Tensor, source_pad: Tensor, target: Tensor) -> Tensor:
        causal = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        hidden = self.body(
            self.embed(source),
            self.embed(target),
            tgt_mask=causal,
            tgt_is_causal=True,
            src_key_padding_mask=source_pad,
            memory_key_padding_mask=source_pad,
        )
        return hidden @ self.embedding.weight.T


def scores(model: Plain, batch: Any) -> tuple[Tensor, Tensor]:
    """Scores and labels where there is a label."""
    real = batch["labels"] != -100
    found = model(batch["source_tokens"], batch["source_segments"] == 0, batch["tokens"])
    return found[real], batch["labels"][real]


@torch.no_grad()
def validate(model: Plain, batches: Any) -> float:
    model.eval()
    total = count = 0.0
    for batch in batches:
        found, labels = scores(model, batch)
        total, count = total + float(F.cross_entropy(found, labels, reduction="sum")), count + len(labels)
    model.train()
    return total / count


@torch.no_grad()
def greedy(model: Plain, batches: Any, tokenizer: Any, longest: int = 64) -> float:
    """BLEU of the likeliest token after the likeliest token."""
    model.eval()
    metric = BLEU("de", tokenize="none")
    for batch in batches:
        target = batch["tokens"][:, :1]
        done = torch.zeros(len(target), dtype=torch.bool)
        for _ in range(longest):
            new = model(batch["source_tokens"], batch["source_segments"] == 0, target)[:, -1].argmax(-1)
            target, done = torch.cat([target, new[:, None]], 1), done | (new == tokenizer.eos_id)
            if done.all():
                break
        texts = []
        for row in target[:, 1:].tolist():
            texts.append(tokenizer.decode(row[: row.index(tokenizer.eos_id)] if tokenizer.eos_id in row else row))
        keep = [number for number, ids in enumerate(batch["example_ids"]) if ids]
        metric.update(
            [texts[number] for number in keep],
            [batch["references"][number] for number in keep],
            [batch["example_ids"][number][0] for number in keep],
        )
    return metric.compute()["bleu"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--every", type=int, default=250)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    config = yaml.safe_load(options.config.read_text())
    model_settings, data_settings = config["model"]["init_args"], config["data"]["init_args"]
    data_settings["tokenizer"] = TokenizerConfig(**data_settings["tokenizer"])
    data_settings["global_batch_tokens"] = options.tokens
    seed = config["seed_everything"]
    data = registry.load(registry.DATA, config["data"]["class_path"])(seed=seed, **data_settings)
    data.prepare_data()
    data.setup("fit")
    data.plan(1, 0)
    torch.manual_seed(seed)
    model = Plain(data.tokenizer.vocab_size, model_settings["backbone"])
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    settings = model_settings["optimizer"]
    optimizer = torch.optim.Adam(model.parameters(), settings["lr"], tuple(settings["betas"]), settings["eps"])
    schedule, curve, begun = ScheduleConfig(**model_settings["schedule"]), [], time.perf_counter()
    smoothing = model_settings["loss"]["label_smoothing"]
    batches = iter(data.train_dataloader())
    for step in range(1, options.steps + 1):
        optimizer.param_groups[0]["lr"] = settings["lr"] * factor(schedule, step - 1, options.steps)
        loss = F.cross_entropy(*scores(model, next(batches)), label_smoothing=smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % options.every == 0:
            curve.append({"step": step, "val/loss": validate(model, data.val_dataloader())})
            print(f"{curve[-1]}  {time.perf_counter() - begun:.0f} s", flush=True)
    bleu = greedy(model, data.test_dataloader(), data.tokenizer)
    print(f"test BLEU {bleu:.2f}, greedy")
    if options.json:
        options.json.write_text(json.dumps({"curve": curve, "bleu": bleu}, indent=2) + "\n")


if __name__ == "__main__":
    main()
