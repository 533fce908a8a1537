"""DataModules with and without prepared shards, and what their rows and batches hold."""

from __future__ import annotations

import json
import random

import torch

from lightning_nlp.cli.prepare import prepare
from lightning_nlp.data.prepared.lookup import parts

WORDS = ["der", "Hund", "läuft", "über", "猫", "the", "cat", "sat", "on", "a", "mat", "naïve", "🙂", "x"]


def sentence(draw, most=40):
    return " ".join(draw.choices(WORDS, k=draw.choice([0, 1, 2, 5, 12, most])))


def write_rows(folder, rows=60, *, splits=("train", "validation", "test"), seed=1, **columns):
    """JSON lines with text, source, target and label; some texts are empty."""
    draw = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for split in splits:
        with (folder / f"{split}.jsonl").open("w") as stream:
            for number in range(rows if split == "train" else max(rows // 4, 2)):
                row = {name: sentence(draw) for name in ("text", "source", "target")}
                row |= {"label": draw.choice(["b", "a", "c"]), "id": f"{split[0]}-{number}"}
                stream.write(json.dumps(row) + "\n")
    return folder


def ready(data, stage="fit"):
    """As a Trainer of one rank sets it up."""
    data.prepare_data()
    data.setup(stage)
    data.plan(1, 0)
    return data


def shards_of(data, workers=1):
    """Prepare the data of a module; its set's folder."""
    prepare(data, workers)
    (folder,) = [path for path in folder_of(data).iterdir() if path.is_dir()]
    return folder


def folder_of(data):
    from lightning_nlp.data.prepared.lookup import root_of

    assert parts(data)
    return root_of(data)


def plain(batch):
    """A batch as values that can be compared."""
    return {name: value.tolist() if isinstance(value, torch.Tensor) else value for name, value in batch.items()}


def taken(loader, count=None):
    """The first batches of a loader, or all of them."""
    found = []
    for batch in loader:
        found.append(plain(batch))
        if len(found) == count:
            break
    return found
