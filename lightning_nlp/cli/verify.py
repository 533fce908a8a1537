"""`lightning-nlp verify resume`: kill a run of one's own configuration at random, resume it, and compare."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_nlp.cli.listing import Arguments
from lightning_nlp.errors import ConfigError, DataError, nearest
from lightning_nlp.verification.history import (
    DATA,
    EXACT,
    Recomputed,
    difference,
    history,
    last_step,
    steps_back,
    weights_difference,
)
from lightning_nlp.verification.kills import moment, start, stop_after

SIGNALS = ("KILL", "TERM", "INT", "USR1")


@dataclass
class Tally:
    """What happened to the runs that were stopped."""

    stops: int = 0
    values: int = 0
    repeated: list[int] = field(default_factory=list)
    problem: str | None = None


def main(argv: list[str]) -> int:
    """Prove, or disprove, that runs of a configuration can be stopped anywhere."""
    parser = Arguments(
        prog="lightning-nlp verify",
        description="Proofs on a configuration of your own. What is not listed here goes to fit as it is.",
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, parser_class=Arguments)
    about = "Kill a run at random moments, resume it, and compare it bit for bit with one that was left alone."
    resume = verbs.add_parser("resume", help=about, description=about, allow_abbrev=False)
    resume.add_argument("-c", "--config", action="append", required=True, help="as for fit; may be repeated")
    resume.add_argument("--kills", type=int, default=5, help="stops in all (default: 5)")
    resume.add_argument("--steps", type=int, default=30, help="optimizer steps of a run (default: 30)")
    resume.add_argument("--checkpoint_every", type=int, default=4, help="steps between checkpoints (default: 4)")
    resume.add_argument("--signal", choices=SIGNALS, default="KILL", help="how to stop it (default: KILL)")
    resume.add_argument(
        "--devices",
        type=int,
        nargs="+",
        default=[1],
        help="ranks of the first start, of the next and so on, in turn; several compare examples, not rounding",
    )
    resume.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    resume.add_argument("--work", type=Path, help="folder for the runs, kept (default: a temporary one)")
    options, rest = parser.parse_known_args(argv)
    flags = [flag for action in resume._actions for flag in action.option_strings]
    for arg in rest:
        if "." not in arg and (hint := nearest(arg.partition("=")[0], flags)):
            raise ConfigError(f"unknown option '{arg}'{hint}")
    for name in ("kills", "steps", "checkpoint_every"):
        if getattr(options, name) < 1:
            raise ConfigError(f"--{name} must be at least 1, not {getattr(options, name)}")
    if min(options.devices) < 1:
        raise ConfigError(f"--devices must be at least 1, not {min(options.devices)}")
    work = options.work or Path(tempfile.mkdtemp(prefix="verify-"))
    work.mkdir(parents=True, exist_ok=True)
    if any(work.iterdir()):
        raise ConfigError(f"--work '{work}' is not empty")
    try:
        tally = verify(options, rest, work)
    except (ConfigError, DataError):
        if options.work is None:
            shutil.rmtree(work)
        raise
    if tally.problem is not None:
        print(f"NOT exact after {tally.stops} stops: {tally.problem}")
        print(f"the runs are kept in {work}")
        return 1
    if options.work is None:
        shutil.rmtree(work)
    back = f", {max(tally.repeated)} steps done again at most" if tally.repeated else ""
    if len(set(options.devices)) > 1:
        what = (
            f"the same examples and tokens at every step with {' and '.join(map(str, options.devices))} ranks in turn"
        )
    else:
        what = "losses, gradient norms, metrics and weights bit-equal"
    print(f"{tally.stops} stops, 0 steps lost, 0 samples lost or repeated, {what} ({tally.values} values{back})")
    return 0


def verify(options: Any, rest: list[str], work: Path) -> Tally:
    """A clean run, then runs that are stopped, until there were enough stops or one of them differs."""
    config = [part for file in options.config for part in ("-c", file)]
    every, steps, devices = options.checkpoint_every, options.steps, options.devices
    fixed: list[object] = [*config, *rest, "--trainer.max_steps", steps, "--trainer.max_epochs", "null"]
    fixed += ["--trainer.max_tokens", "null", "--trainer.log_every_n_steps", 1, "--trainer.checkpoint_every", every]
    number = getattr(signal, f"SIG{options.signal}")
    tally, draw, elastic = Tally(), random.Random(options.seed), len(set(devices)) > 1
    started = time.perf_counter()
    clean = work / "clean"
    finish(["fit", *fixed, *on(devices[0]), "--run", clean])
    say(f"clean run: {last_step(clean)} steps in {time.perf_counter() - started:.0f} s")
    expected = history(clean)
    for number_of_run in range(options.kills):
        run, stops, starts = work / f"stopped-{number_of_run}", 0, 0
        while tally.stops < options.kills:
            process = start(["fit", *fixed, *on(devices[starts % len(devices)]), "--run", run])
            starts += 1
            step, delay = moment(draw, run, max(steps // 4, 1))
            if not stop_after(process, run, step, delay, number):
                check_end(process)
                break
            stops, tally.stops = stops + 1, tally.stops + 1
        if last_step(run) < steps:
            finish(["fit", *fixed, *on(devices[starts % len(devices)]), "--run", run])
        tally.repeated += steps_back(run)
        try:
            found = history(run, DATA if elastic else EXACT)
            tally.problem = difference(expected, found, DATA if elastic else EXACT)
            tally.values += len(found)
        except Recomputed as other:
            tally.problem = str(other)
        if tally.problem is None and not elastic:
            tally.problem = weights_difference(clean, run)
        if tally.problem is None and max(tally.repeated, default=0) > every:
            tally.problem = f"went back {max(tally.repeated)} steps, checkpoints are {every} apart"
        if tally.problem is not None:
            tally.problem = f"{run.name}: {tally.problem}"
            break
        say(f"{run.name}: {stops} stops, equal")
        if tally.stops >= options.kills:
            break
    return tally


def on(devices: int) -> list[object]:
    """Options of fit for so many ranks."""
    return ["--trainer.devices", devices, *(["--trainer.strategy", "ddp"] if devices > 1 else [])]


def finish(args: list[object]) -> None:
    """Run a command to its end."""
    process = start(args)
    process.wait()
    check_end(process)


def check_end(process: subprocess.Popen[str]) -> None:
    """Pass on what a run complained about.

    Raises:
        ConfigError: it refused its configuration.
        DataError: it failed.
    """
    code, stream = process.returncode, process.stderr
    if code == 0:
        return
    text = [line for line in stream.read().splitlines() if line.strip()] if stream is not None else []
    last = text[-1].removeprefix("lightning-nlp: error: ").removeprefix("lightning-nlp: ") if text else "no message"
    if code == 2:
        raise ConfigError(last)
    raise DataError(f"a run ended with exit code {code}: {last}")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
