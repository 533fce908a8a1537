"""What simple rules score on summarisation and dialogue, with the metrics our models are scored with.

python -m experiments.text_baselines summaries FOLDER | dialogue FOLDER

summaries: the first seven words of a text (lead), and the synopsis of the training text nearest by TF-IDF.
dialogue: the last response of every conversation, answered with the most frequent turn, with a copy of what was said
last, and with the turn that followed the training turn nearest by TF-IDF.
"""

from __future__ import annotations

import argparse
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from sklearn.feature_extraction.text import TfidfVectorizer

from lightning_nlp.metrics.texts import TextMetrics

WORDS = 7


def rows(folder: Path, split: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(folder / f"{split}.parquet").to_pylist()
    return found


def nearest(known: list[str], asked: list[str]) -> list[int]:
    """Places in ``known`` of the texts most like ``asked``, by words and pairs of words."""
    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    table = vectors.fit_transform(known).T.tocsc()
    queries = vectors.transform(asked)
    return [int((queries[start : start + 1] @ table).argmax()) for start in range(queries.shape[0])]


def show(name: str, metrics: list[str], said: list[str], wanted: list[str]) -> None:
    scores = TextMetrics(metrics, "en")
    scores.update(said, wanted, [str(number) for number in range(len(said))])
    print(f"{name:<24}" + "  ".join(f"{metric} {value:.4f}" for metric, value in scores.compute().items()))


def summaries(folder: Path) -> None:
    train, test = rows(folder, "train"), rows(folder, "test")
    wanted = [row["summary"] for row in test]
    show("first seven words", ["rouge"], [" ".join(row["document"].split()[:WORDS]) for row in test], wanted)
    places = nearest([row["document"] for row in train], [row["document"] for row in test])
    show("nearest training text", ["rouge"], [train[place]["summary"] for place in places], wanted)


def dialogue(folder: Path) -> None:
    talks = [[turn["text"] for turn in row["turns"]] for row in rows(folder, "train")]
    known = [pair for talk in talks for pair in pairwise(talk)]
    asked = [[turn["text"] for turn in row["turns"][-2:]] for row in rows(folder, "test") if len(row["turns"]) > 1]
    said, wanted = [pair[0] for pair in asked], [pair[1] for pair in asked]
    metrics = ["token_f1", "bleu", "distinct"]
    frequent = Counter(answer for _, answer in known).most_common(1)[0][0]
    show(f"most frequent: {frequent[:8]}", metrics, [frequent] * len(said), wanted)
    show("what was said last", metrics, said, wanted)
    show("after the nearest turn", metrics, [known[place][1] for place in nearest([k for k, _ in known], said)], wanted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["summaries", "dialogue"])
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    {"summaries": summaries, "dialogue": dialogue}[options.what](options.folder)


if __name__ == "__main__":
    main()
