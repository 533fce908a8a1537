"""Whole training through our Trainer beside a training loop in the manner of nanoGPT, on one CPU core.

python -m benchmarks.fit [--json FILE] [--quick]

Ours reads text, tokenises and packs it, logs, clips and could be resumed; the peer reads random windows of tokens that
were prepared before, sets the learning rate, clips, and reads its loss every tenth step. Both log every tenth step. The
first steps, where ours opens its data, are warm-up.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.harness import Row, alternate, compare, report
from benchmarks.peers import Nano, Shape

SHAPE = Shape(layers=4, width=256, heads=4, length=256, vocabulary=8192, batch=8)
QUICK = Shape(layers=1, width=32, heads=2, length=16, vocabulary=97, batch=2)
LOG_EVERY = 10
COMPARISONS = (
    # ours, peer, row, peer as shown, floor, aim
    ("ours fp32", "nano fp32", "fp32", "nanoGPT loop", 1.03, 1.12),
    ("ours master", "nano fp32", "bf16-master", "nanoGPT loop, fp32", 1.6, 2.0),
    ("ours master", "nano autocast", "bf16-master", "nanoGPT loop, autocast", None, None),
)


def write_text(directory: Path, shape: Shape, documents: int = 20) -> None:
    """Long documents of random words, one token each, and the tokenizer that knows them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    special = ["<pad>", "<bos>", "<eos>", "<unk>"]
    words = [f"w{number}" for number in range(shape.vocabulary - len(special))]
    vocabulary = {word: number for number, word in enumerate([*special, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece(prefix="")
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(directory / "tokenizer.json"))
    draw = random.Random(0)
    for split, number in (("train", documents), ("validation", 1)):
        with (directory / f"{split}.jsonl").open("w") as stream:
            for _ in range(number):
                stream.write(json.dumps({"text": " ".join(draw.choices(words, k=40 * shape.length))}) + "\n")


def task_and_data(shape: Shape, directory: Path) -> tuple[Any, Any]:
    """A language model, and the text written for it."""
    import lightning_nlp

    write_text(directory, shape)
    backbone = lightning_nlp.TransformerConfig(
        n_layers=shape.layers,
        d_model=shape.width,
        n_heads=shape.heads,
        max_length=shape.length,
        positions="learned",
    )
    data = lightning_nlp.CausalLMData(
        str(directory),
        tokenizer=lightning_nlp.TokenizerConfig(path=str(directory / "tokenizer.json")),
        max_length=shape.length,
        global_batch_size=shape.batch,
    )
    return lightning_nlp.CausalLM(backbone, sample_prompts=[]), data


def turns(warm_up: int) -> Any:
    """A callback that waits for its turn between two steps."""
    import lightning.pytorch as L

    stopwatch = harness.Stopwatch(warm_up)

    class Turns(L.Callback):
        def on_train_batch_start(self, *args: Any) -> None:
            stopwatch()

    return Turns()


def our_fit(shape: Shape, directory: Path, precision: str | None, warm_up: int = 2) -> None:
    """Our Trainer, with everything that ``fit`` attaches."""
    import lightning_nlp

    task, data = task_and_data(shape, directory)
    trainer = lightning_nlp.Trainer(
        max_steps=10**6,
        validate_every=0,
        log_every_n_steps=LOG_EVERY,
        gradient_clip_val=1.0,
        accelerator="cpu",
        precision=precision,  # type: ignore[arg-type]
        callbacks=[turns(warm_up)],
        default_root_dir=str(directory / "run"),
    )
    trainer.fit(task, datamodule=data)


def nano_loop(shape: Shape, directory: Path, autocast: bool) -> None:
    """Random windows of a memory-mapped file, a cosine, clipping, AdamW, the loss read every tenth step."""
    import math

    import numpy as np
    import torch

    np.random.default_rng(0).integers(shape.vocabulary, size=800 * shape.length, dtype=np.uint16).tofile(
        directory / "train.bin"
    )
    torch.manual_seed(0)
    model = Nano(shape)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    stopwatch, count = harness.Stopwatch(warm_up=2), 0
    numerics = (lambda: torch.autocast("cpu", torch.bfloat16)) if autocast else contextlib.nullcontext
    while True:
        stopwatch()
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * (0.55 + 0.45 * math.cos(math.pi * count / 1e6))
        tokens = np.memmap(directory / "train.bin", dtype=np.uint16, mode="r")
        starts = torch.randint(len(tokens) - shape.length - 1, (shape.batch,)).tolist()
        windows = [torch.from_numpy(tokens[at : at + shape.length + 1].astype(np.int64)) for at in starts]
        batch = torch.stack(windows)
        with numerics():
            loss = model(batch[:, :-1], batch[:, 1:].contiguous())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        count += 1
        if count % LOG_EVERY == 0:
            print(f"iter {count}: loss {loss.item():.4f}", file=sys.stderr)


def contestant(spec: dict[str, Any]) -> None:
    shape = Shape(**spec["shape"])
    with tempfile.TemporaryDirectory() as directory:
        if spec["kind"] == "ours":
            our_fit(shape, Path(directory), spec["precision"])
        else:
            nano_loop(shape, Path(directory), spec["precision"] == "bf16")


CONTESTANTS = {
    "ours fp32": {"kind": "ours", "precision": None},
    "nano fp32": {"kind": "nano", "precision": None},
    "ours master": {"kind": "ours", "precision": "bf16-master"},
    "nano autocast": {"kind": "nano", "precision": "bf16"},
}


def main(arguments: list[str] | None = None) -> list[Row]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--rounds", type=int, default=harness.ROUNDS)
    parser.add_argument("--steps", type=int, default=2, help="steps of a round")
    parser.add_argument("--quick", action="store_true", help="a tiny model, three rounds: does it run?")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.contestant:
        contestant(json.loads(options.contestant))
    shape, rounds = (QUICK, 3) if options.quick else (SHAPE, options.rounds)
    chosen = ("ours master", "nano fp32") if options.quick else tuple(CONTESTANTS)
    specs = {name: json.dumps({**CONTESTANTS[name], "shape": asdict(shape)}) for name in chosen}
    seconds = alternate(
        {name: ["-m", "benchmarks.fit", "--contestant", spec] for name, spec in specs.items()}, rounds, options.steps
    )
    rows: list[Row] = []
    for ours, peer, row, shown, floor, aim in COMPARISONS:
        label = f"fit {shape.layers}L/{shape.width}d/V{shape.vocabulary} B{shape.batch} {row}"
        rows += compare(seconds, ours, peer, label, shown, floor=floor, aim=aim)
    report(rows, options.json)
    return rows


if __name__ == "__main__":
    main()
