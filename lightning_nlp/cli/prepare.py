"""`lightning-nlp prepare -c CONFIG`: tokenise once, in parallel, into shards that runs of the configuration use."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from lightning_nlp.cli.listing import Arguments
from lightning_nlp.errors import ConfigError
from lightning_nlp.run.exit_codes import TERMINATED

if TYPE_CHECKING:
    from lightning_nlp.data.module import TextDataModule


def main(argv: list[str]) -> int:
    """Prepare every source of a configuration."""
    about = "Tokenise the data of a configuration once, into memory-mapped shards. Runs of it use them by themselves."
    parser = Arguments(
        prog="lightning-nlp prepare", description=f"{about} What is not listed here is as for fit.", allow_abbrev=False
    )
    parser.add_argument("-c", "--config", action="append", required=True, help="as for fit; may be repeated")
    parser.add_argument("--workers", type=int, help="processes that tokenise (default: one a core)")
    parser.add_argument("--output", help="folder of prepared data (default: prepared/ in the data directory)")
    options, rest = parser.parse_known_args(argv)
    workers = usable_cores() if options.workers is None else options.workers
    if workers < 1:
        raise ConfigError(f"--workers must be at least 1, not {workers}")
    signal.signal(signal.SIGTERM, terminated)
    from lightning_nlp.cli.data_of_config import data_of
    from lightning_nlp.cli.quiet import quieten

    quieten()
    data = data_of([part for file in options.config for part in ("-c", file)] + rest)
    if options.output is not None:
        data.prepared = options.output
    try:
        prepare(data, workers)
    except (KeyboardInterrupt, SystemExit):
        print("\nlightning-nlp: stopped; the same command goes on from the finished shards", file=sys.stderr)
        raise
    return 0


def terminated(number: int, frame: Any) -> None:
    """Leave through every ``finally``."""
    raise SystemExit(TERMINATED)


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare(data: TextDataModule, workers: int) -> None:
    """Open the sources, settle the tokenizer, write the shards, say what there is."""
    from lightning_nlp.data.prepared.lookup import identities, parts, root_of
    from lightning_nlp.data.prepared.preparing import Job, prepare_set, same_files
    from lightning_nlp.data.prepared.sets import TOKENIZER, describe_files, records_of
    from lightning_nlp.data.tokenizers.of_run import settle_tokenizer

    if not data.tokenised:
        raise ConfigError(f"prepare: {type(data).__name__} makes its examples from texts, not from their tokens")
    if data.prepared == "none":
        raise ConfigError("prepare: with data.prepared none, no run would use the shards")
    started = time.perf_counter()
    data.open()
    found = parts(data)
    described = {name: describe_files(part.files()) for name, part in found.items()}
    begun = [root_of(data) / identity.key for part in found.values() for identity in identities(data, part, None)]
    same = all(map(same_files, begun, described.values()))
    tokenizer = settle_tokenizer(
        data.tokenizer_config,
        data.texts,
        kept=None,
        initial=None,
        save=False,
        prepared=lambda: begun[0] / TOKENIZER if same and (begun[0] / TOKENIZER).is_file() else None,
    )
    for name, part in found.items():
        identity = list(identities(data, part, tokenizer))[-1]
        folder = root_of(data) / identity.key
        progress = Progress(name)
        manifest = prepare_set(
            Job(folder, identity, part.splits, tokenizer),
            described[name],
            {"path": part.shown, "settings": part.settings},
            workers=workers,
            progress=progress,
        )
        progress.end()
        size = sum(file["bytes"] for record in records_of(manifest) for file in record["files"].values())
        seconds = time.perf_counter() - started
        print(f"{folder}: {part.shown} ({size / 1e6:.2f} MB, {seconds:.1f} s, workers: {workers})")
        for split, about in manifest["splits"].items():
            tokens = sum(sum(record["tokens"].values()) for record in about["shards"])
            bad = sum(record["bad"] for record in about["shards"])
            line = f"  {split:<11} {about['rows']:>9} documents  {tokens:>12} tokens  shards: {len(about['shards'])}"
            print(line + (f"  bad rows: {bad}" if bad else ""))


class Progress:
    """One line: rewritten on a terminal, printed now and then elsewhere."""

    def __init__(self, source: str) -> None:
        self.source = f"{source}: " if source else ""
        self.started, self.shown, self.open = time.monotonic(), 0.0, False

    def __call__(self, split: str, rows: int, of: int | None, tokens: int) -> None:
        now, terminal = time.monotonic(), sys.stderr.isatty()
        if now - self.shown < (0.1 if terminal else 5.0) and rows != of:
            return
        self.shown = now
        from lightning_nlp.run.units import clock, compact

        seconds = max(now - self.started, 1e-6)
        left = "" if of is None else f"  {clock(seconds / rows * (of - rows))} left of this split"
        count = f"{rows}" if of is None else f"{rows}/{of}"
        line = f"{self.source}{split}  {count} documents  {compact(tokens / seconds)} tokens/s{left}"
        print(f"\r\x1b[2K{line}" if terminal else line, end="" if terminal else "\n", file=sys.stderr, flush=True)
        self.open = terminal

    def end(self) -> None:
        if self.open:
            print(file=sys.stderr)
            self.open = False
