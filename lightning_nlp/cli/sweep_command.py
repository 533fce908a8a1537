"""`lightning-nlp sweep run | status | resume | report | worker | slurm`: many runs from one YAML file."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from lightning_nlp.cli.listing import Arguments
from lightning_nlp.errors import ConfigError
from lightning_nlp.run import exit_codes

VERBS = {
    "run": "start a sweep: every trial is a run of `fit` in a process of its own",
    "status": "how its trials stand",
    "resume": "go on with one that was stopped or killed",
    "report": "write tables, plots and the best configuration",
    "worker": "help with a sweep, from here or from another machine",
    "slurm": "print an array script whose tasks are workers",
}
EXAMPLE = "example: lightning-nlp sweep run configs/sweeps/quickstart.yaml --dry_run"


def main(argv: list[str]) -> int:
    """Run one verb; returns its exit code."""
    options = parser().parse_args(argv)
    return int(globals()[f"{options.verb}_sweep"](options))


def parser() -> Arguments:
    """The options of all verbs."""
    found = Arguments(
        prog="lightning-nlp sweep",
        description="Many runs from one YAML file (docs/sweeps.md): resumable, stopped early, on one machine or many.",
        epilog=EXAMPLE,
        allow_abbrev=False,
    )
    verbs = found.add_subparsers(dest="verb", required=True, parser_class=Arguments)
    made: dict[str, argparse.ArgumentParser] = {}
    for verb, about in VERBS.items():
        made[verb] = verbs.add_parser(verb, help=about, description=about, allow_abbrev=False)
        what = "its YAML file" if verb == "run" else "its directory, or its YAML file"
        made[verb].add_argument("sweep", type=Path, help=what)
        made[verb].add_argument(
            "--root", type=Path, default=Path("runs/sweeps"), help="where sweeps are kept (default: runs/sweeps)"
        )
    made["run"].add_argument("--dry_run", action="store_true", help="check everything, print the trials, run none")
    made["run"].add_argument("--overwrite", action="store_true", help="delete a sweep of the same name and start anew")
    for verb in ("run", "resume", "worker"):
        made[verb].add_argument("--parallel", type=int, help="trials at once, in place of launcher.parallel")
    made["resume"].add_argument("--retry_failed", action="store_true", help="try failed configurations again")
    made["status"].add_argument("--json", action="store_true", help="the whole ledger as JSON")
    made["slurm"].add_argument("--workers", type=int, default=4, help="tasks of the array (default: 4)")
    made["slurm"].add_argument("--time", default="24:00:00", help="limit of a task (default: 24:00:00)")
    made["slurm"].add_argument("--partition", help="of the cluster")
    return found


def run_sweep(options: Any) -> int:
    """Start a sweep, or show what it would be."""
    from lightning_nlp.sweeps import directory, keys
    from lightning_nlp.sweeps.grammar import read_sweep

    sweep = read_sweep(options.sweep)
    base = directory.base_of(sweep)
    target = directory.SweepDirectory(options.root / sweep.name)
    if not options.overwrite and not options.dry_run:
        directory.refuse_started(target)
    keys.check(sweep, base, Path.cwd())
    if options.dry_run:
        print("\n".join(planned(sweep)))
        return 0
    from lightning_nlp.sweeps import overwrite, running

    launcher = running.local(sweep, options.parallel)
    if options.overwrite:
        overwrite.remove(target, sweep, base, print)  # last: what is refused has deleted nothing
    return at_work(directory.create(options.sweep, options.root), launcher, controller=True)


def planned(sweep: Any) -> list[str]:
    """Lines of a dry run: every configuration, or what bayes may choose from."""
    from lightning_nlp.sweeps import space
    from lightning_nlp.sweeps.parameters import plain
    from lightning_nlp.sweeps.results import aligned, short_names

    replicates = 1 if sweep.replicate is None else len(sweep.replicate.values)
    each = f" x {replicates} replicates ({sweep.replicate.key})" if sweep.replicate is not None else ""
    constants = [f"{part.key} = {plain(part.values[0])}" for part in sweep.of_kind("value")]
    everywhere = [f"  in all of them: {', '.join(constants)}"] if constants else []
    if sweep.method == "bayes":
        rows = [
            [part.key, f"{plain(part.low)} to {plain(part.high)}" if part.kind == "range" else plain(list(part.values))]
            for part in sweep.of_kind("values", "range")
        ]
        lines = [f"sweep {sweep.name} (bayes): up to {sweep.run_cap} configurations{each}, chosen as it goes from"]
        return [*lines, aligned(["parameter", "values"], rows), *everywhere]
    found = space.plan(sweep)
    columns = space.varied(sweep)
    names = short_names(columns)
    table = [
        [str(number), *(plain(settings[key]) if key in settings else "" for key in columns)]
        for number, settings in enumerate(found)
    ]
    lines = [
        f"sweep {sweep.name} ({sweep.method}): {len(found)} configurations{each} = {len(found) * replicates} trials"
    ]
    return [*lines, aligned(["#", *(names[key] for key in columns)], table), *everywhere]


def resume_sweep(options: Any) -> int:
    """Go on."""
    from lightning_nlp.sweeps import directory, running

    opened = directory.find(options.sweep, options.root)
    launcher = running.local(opened.sweep, options.parallel)
    return at_work(opened, launcher, controller=True, retry_failed=options.retry_failed)


def worker_sweep(options: Any) -> int:
    """Help."""
    from lightning_nlp.sweeps import directory, running

    opened = directory.find(options.sweep, options.root, create_missing=True)
    return at_work(opened, running.local(opened.sweep, options.parallel), controller=False)


def at_work(opened: Any, launcher: Any, *, controller: bool, retry_failed: bool = False) -> int:
    """Run trials, with a table; the controller ends with a report."""
    from rich.console import Console

    from lightning_nlp.sweeps import running
    from lightning_nlp.sweeps.report import write_report
    from lightning_nlp.sweeps.results import as_text, collect, summary
    from lightning_nlp.sweeps.table import Display

    study = running.open_study(opened)
    console = Console()
    with Display(opened, console, lambda: summary(collect(opened, study))) as display:
        reporting = running.Reporting(display.say, display.show)
        code = running.work(opened, launcher, reporting, controller=controller, retry_failed=retry_failed)
    results = collect(opened, study, importances=controller)
    print(as_text(results))
    if code in (exit_codes.INTERRUPTED, exit_codes.TERMINATED):
        print(f"stopped: go on with `lightning-nlp sweep resume {opened.directory.path}`")
    elif controller:
        for line in write_report(results):
            print(line)
    return code


def status_sweep(options: Any) -> int:
    """Print the ledger."""
    from lightning_nlp.sweeps import directory, running
    from lightning_nlp.sweeps.results import as_json, as_text, collect

    opened = directory.find(options.sweep, options.root)
    results = collect(opened, running.open_study(opened))
    print(json.dumps(as_json(results), indent=2) if options.json else as_text(results))
    return 0


def report_sweep(options: Any) -> int:
    """Write reports."""
    from lightning_nlp.sweeps import directory, running
    from lightning_nlp.sweeps.report import write_report
    from lightning_nlp.sweeps.results import collect

    opened = directory.find(options.sweep, options.root)
    for line in write_report(collect(opened, running.open_study(opened), importances=True)):
        print(line)
    return 0


def slurm_sweep(options: Any) -> int:
    """Print a script."""
    from lightning_nlp.sweeps import directory
    from lightning_nlp.sweeps.grammar import read_sweep
    from lightning_nlp.sweeps.slurm import refuse_one_machine, script

    if options.workers < 1:
        raise ConfigError(f"--workers must be at least 1, not {options.workers}")
    if options.sweep.is_file():
        refuse_one_machine(read_sweep(options.sweep))  # before its directory is made
    opened = directory.find(options.sweep, options.root, create_missing=True)
    print(script(opened, options.workers, options.time, options.partition), end="")
    return 0
