"""What a training step costs beyond its arithmetic: our Trainer, Lightning's with its defaults, and a loop by hand.

python -m benchmarks.overhead [--json FILE] [--quick]

All three train the same small model with the same optimizer on the same batches, clip, set the learning rate and log
every tenth step. Ours has its line of progress, its checkpoints, ``metrics.jsonl``, TensorBoard and instruments;
Lightning's its bar, ``ModelCheckpoint``, TensorBoard and one ``self.log`` a step. No checkpoint falls due meanwhile.
Reported are CPU-microseconds a step beyond those of the loop by hand.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import harness
from benchmarks.fit import LOG_EVERY, our_fit, task_and_data, turns
from benchmarks.harness import Row, alternate, interval, report
from benchmarks.peers import Shape

SHAPE = Shape(layers=1, width=64, heads=2, length=32, vocabulary=256, batch=2)
"""Forward, backward and update take about a millisecond on one core."""
WARM_UP = 50
CONTESTANTS = ("raw loop", "ours", "lightning")
ROWS = (
    # contestant, row, floor, aim
    ("ours", "overhead of fit a step, 1 ms model", 650.0, 450.0),
    ("lightning", "overhead of Lightning's defaults a step, 1 ms model", None, None),
)


def alone(directory: Path) -> tuple[Any, Iterator[Any]]:
    """The task, built, and its batches, without a Trainer."""
    task, data = task_and_data(SHAPE, directory)
    data.prepare_data()
    data.setup("fit")
    data.plan(1, 0)
    task.resolve(data.facts())
    task.configure_model()
    return task, iter(data.train_dataloader())


def raw_loop(directory: Path) -> None:
    """What has to be done, by hand."""
    import torch

    from lightning_nlp.optim.schedules import factor

    torch.manual_seed(0)
    task, batches = alone(directory)
    optimizer, head = task.configure_optimizers(), task.head
    stopwatch, count = harness.Stopwatch(WARM_UP), 0
    while True:
        stopwatch()
        batch = next(batches)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor(task.schedule_config, count, 10**6)
        total, number = head(task.backbone, batch)["loss"]
        loss = total / number
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(task.parameters(), 1.0)
        optimizer.step()
        count += 1
        if count % LOG_EVERY == 0:
            print(f"step {count}: loss {loss.item():.4f}", file=sys.stderr)


def lightning_defaults(directory: Path) -> None:
    """The same model as one would write it for Lightning, and a Trainer with what it has by default."""
    import lightning.pytorch as L
    import torch
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.loggers import TensorBoardLogger

    torch.manual_seed(0)
    task, batches = alone(directory)

    class Usual(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.head = task.backbone, task.head

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            total, number = self.head(self.backbone, batch)["loss"]
            self.log("train/loss", total / number, prog_bar=True, batch_size=SHAPE.batch)
            return total / number

        def configure_optimizers(self) -> Any:
            optimizer = task.configure_optimizers()
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10**6)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    class Endless:
        def __iter__(self) -> Iterator[Any]:
            return batches

        def __len__(self) -> int:
            return sys.maxsize

    trainer = L.Trainer(
        max_steps=10**6,
        log_every_n_steps=LOG_EVERY,
        gradient_clip_val=1.0,
        accelerator="cpu",
        devices=1,
        logger=TensorBoardLogger(str(directory / "logs")),
        callbacks=[turns(WARM_UP), ModelCheckpoint(directory / "checkpoints", every_n_train_steps=10**6)],
        default_root_dir=str(directory),
    )
    trainer.fit(Usual(), Endless())


def contestant(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        if name == "ours":
            our_fit(SHAPE, directory, precision=None, warm_up=WARM_UP)
        else:
            {"raw loop": raw_loop, "lightning": lightning_defaults}[name](directory)


def main(arguments: list[str] | None = None) -> list[Row]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--rounds", type=int, default=harness.ROUNDS)
    parser.add_argument("--steps", type=int, default=400, help="steps of a round")
    parser.add_argument("--quick", action="store_true", help="three short rounds: does it run?")
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.contestant:
        contestant(options.contestant)
    rounds, steps = (3, 40) if options.quick else (options.rounds, options.steps)
    commands = {name: ["-m", "benchmarks.overhead", "--contestant", name] for name in CONTESTANTS}
    seconds = alternate(commands, rounds, steps)
    rows = []
    for name, row, floor, aim in ROWS:
        more = [1e6 * (own - base) for own, base in zip(seconds[name], seconds["raw loop"], strict=True)]
        # Other work on the machine makes all of them slower, and their difference with them: fastest rounds the least.
        least = 1e6 * (min(seconds[name]) - min(seconds["raw loop"]))
        note = f"{1e3 * median(seconds[name]):.2f} and {1e3 * median(seconds['raw loop']):.2f} CPU-ms a step; "
        note += f"{least:.0f} µs between the fastest rounds of each"
        wanted = {"floor": floor, "aim": aim, "unit": "µs", "smaller": True, "note": note}
        rows.append(Row(row, "loop by hand", *interval(more), **wanted))  # type: ignore[arg-type]
    report(rows, options.json)
    return rows


if __name__ == "__main__":
    main()
