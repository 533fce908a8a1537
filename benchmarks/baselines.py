"""Unigram and bigram models on the very tokens a run was validated on: what counting alone achieves.

python -m benchmarks.baselines --run runs/quickstart
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np

from lightning_nlp.cli.app import quieten
from lightning_nlp.cli.data_of_config import data_of
from lightning_nlp.data.causal_lm import CausalLMData
from lightning_nlp.data.tokenizers.tokenizer import Tokenizer

DISCOUNT = 0.75
"""Of absolute discounting (Ney et al. 1994), the usual value."""


def documents(data: CausalLMData, split: str) -> list[np.ndarray]:
    """Every document of a split with its start and end tokens, as the run sees it."""
    found = []
    rows = list(data.split(split).scan(0))
    for example in data.prepare(rows):
        if example is not None:
            found.append(np.concatenate([example.tokens[:1], example.labels]))
    return found


def unigram(train: list[np.ndarray], held: list[np.ndarray], vocabulary: int) -> float:
    """Mean nats a label under add-one unigram probabilities."""
    counts = np.bincount(np.concatenate([text[1:] for text in train]), minlength=vocabulary) + 1.0
    logs = np.log(counts / counts.sum())
    labels = np.concatenate([text[1:] for text in held])
    return float(-logs[labels].mean())


def bigram(train: list[np.ndarray], held: list[np.ndarray], vocabulary: int) -> float:
    """Mean nats a label under bigrams with absolute discounting, backed off to add-one unigrams."""
    counts = np.bincount(np.concatenate([text[1:] for text in train]), minlength=vocabulary) + 1.0
    back_off = counts / counts.sum()
    pairs: Counter[tuple[int, int]] = Counter()
    for text in train:
        pairs.update(zip(text[:-1].tolist(), text[1:].tolist(), strict=True))
    totals, kinds = Counter[int](), Counter[int]()
    for (first, _), number in pairs.items():
        totals[first] += number
        kinds[first] += 1
    nats, labels = 0.0, 0
    for text in held:
        for first, second in zip(text[:-1].tolist(), text[1:].tolist(), strict=True):
            total = totals[first]
            probability = back_off[second]
            if total:
                seen = max(pairs[first, second] - DISCOUNT, 0.0) / total
                probability = seen + DISCOUNT * kinds[first] / total * probability
            nats -= math.log(probability)
            labels += 1
    return nats / labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    options = parser.parse_args()
    quieten()
    data = data_of(["-c", str(options.run / "config.fit.yaml"), "--data.prepared", "none"])
    if not isinstance(data, CausalLMData):
        raise SystemExit(f"{options.run} is no run of CausalLMData")
    data.open()
    data.tokenizer = Tokenizer.load(options.run / "tokenizer.json")
    train, held = documents(data, "train"), documents(data, "validation")
    vocabulary = data.tokenizer.vocab_size
    print(f"{'uniform':<12} {math.log(vocabulary):.4f} nats a token")
    print(f"{'unigram':<12} {unigram(train, held, vocabulary):.4f}")
    print(f"{'bigram':<12} {bigram(train, held, vocabulary):.4f}")
    lines = [json.loads(line) for line in (options.run / "metrics.jsonl").read_text().splitlines()]
    best = min(line["val/loss"] for line in lines if "val/loss" in line)
    print(f"{'this run':<12} {best:.4f} (best validation)")


if __name__ == "__main__":
    main()
