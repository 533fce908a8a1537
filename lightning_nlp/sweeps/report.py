"""What one decides from: `report.md`, `report.html`, `trials.csv`, `best.yaml` and TensorBoard's HParams."""

from __future__ import annotations

import csv
import io
import shlex
from pathlib import Path

from lightning_nlp.errors import ConfigError, DataError
from lightning_nlp.run.files import write_text
from lightning_nlp.sweeps import keys, space
from lightning_nlp.sweeps.active import command_of
from lightning_nlp.sweeps.hparams import write_hparams
from lightning_nlp.sweeps.plots import cost, cost_unit, pictures, time_unit
from lightning_nlp.sweeps.report_html import page
from lightning_nlp.sweeps.results import Configuration, Results, failures, rows, summary, value_text

NEEDS_PICTURES = "no plots: pip install 'lightning_nlp[pictures]'"


def write_report(results: Results) -> list[str]:
    """Write everything; returns lines that say what was written and what the best is."""
    directory = results.opened.directory.path
    drawn = pictures(results)
    said = []
    best = next(iter(results.ranked()), None)
    if best is not None:
        said.append(f"best: {settings_text(results, best)}: {results.opened.sweep.metric.name} {value_text(best)}")
        said += write_best(results, best)
    for title, text in drawn.items():
        write_text(directory / "plots" / f"{file_name(title)}.svg", text)
    write_text(directory / "trials.csv", as_csv(results))
    write_text(directory / "report.md", as_markdown(results, list(drawn)))
    write_text(directory / "report.html", page(results, drawn, facts(results), commands(results)))
    write_hparams(results, directory / "tensorboard")
    said.append(f"report: {directory / 'report.md'}, {directory / 'report.html'}")
    if not drawn and any(each.curve for each in results.configurations):
        said.append(NEEDS_PICTURES)
    return said


def write_best(results: Results, best: Configuration) -> list[str]:
    """``best.yaml``, complete and ready for ``fit -c``; made once for each best configuration."""
    opened, path = results.opened, results.opened.directory.best
    score = f"{opened.sweep.metric.name} {value_text(best)}"
    head = f"# Configuration {best.number} of the sweep {opened.sweep.name}, trial {best.trials[0].trial}: {score}\n"
    settings = best.trials[0].settings
    if not path.is_file() or not path.read_text(encoding="utf-8").startswith(head):
        if opened.sweep.program:
            text = "".join(f"{key}: {space.canonical(value)}\n" for key, value in settings.items())
        else:
            try:
                text = keys.completed(opened.directory.base_files(), settings, opened.cwd)
            except (ConfigError, DataError) as error:
                return [f"best.yaml was not written: {error}"]
        write_text(path, head + text)
    use = "" if opened.sweep.program else f": lightning-nlp fit -c {path} --name {opened.sweep.name}-best"
    return [f"ready to train: {path}" if not use else f"ready to train{use}"]


def settings_text(results: Results, each: Configuration) -> str:
    """What was varied, and its values."""
    shown = {key: each.settings[key] for key in space.varied(results.opened.sweep) if key in each.settings}
    return ", ".join(
        f"{key} = {value if isinstance(value, str) else space.canonical(value)}" for key, value in shown.items()
    )


def facts(results: Results) -> list[tuple[str, str]]:
    """What a reader has to know to judge the numbers."""
    sweep, ranked = results.opened.sweep, results.ranked()
    total = sum(cost(each) for each in results.configurations)
    unit, hours = time_unit(total)
    of = (
        "its last value in a run" if sweep.metric.of == "last" else "its best value in a run, which flatters noisy ones"
    )
    found = [
        ("sweep", f"{sweep.name}{': ' + sweep.description if sweep.description else ''}"),
        ("method", f"{sweep.method}, seed {sweep.seed}"),
        ("metric", f"{sweep.metric.name}, {sweep.metric.goal}d; {of}"),
        ("trials", summary(results)),
        ("cost", f"{total / hours:.3g} {cost_unit(results)} {unit}"),
    ]
    if sweep.replicate is not None:
        found.append(("replicates", f"{sweep.replicate.key}: means, ± half of the 95 % t-interval"))
    stopping = sweep.early_terminate
    if stopping is not None:
        found.append(("early stopping", f"{stopping.type}, from {stopping.resource} {stopping.min_iter}"))
    if ranked:
        found.append(("best", f"{settings_text(results, ranked[0])}: {value_text(ranked[0])}"))
    if len(ranked) > 1 and (line := close_call(ranked)):
        found.append(("beside it", line))
    if sweep.replicate is None and len(ranked) > 2:
        found.append(
            (
                "note",
                f"the best of {len(ranked)} single runs is better than it will be again: repeat it with other seeds",
            )
        )
    return found


def close_call(ranked: list[Configuration]) -> str:
    """Whether the interval of the best reaches others."""
    best = ranked[0]
    if best.interval is None or best.value is None:
        return ""
    close = [
        each.number
        for each in ranked[1:]
        if each.value is not None and abs(each.value - best.value) <= best.interval + (each.interval or 0.0)
    ]
    if not close:
        return "no other interval reaches it"
    if len(close) == 1:
        return f"the interval of configuration {close[0]} overlaps with it: more replicates would tell"
    return f"intervals of configurations {', '.join(map(str, close))} overlap with it: more replicates would tell"


def commands(results: Results) -> list[tuple[str, str]]:
    """How each trial was run; with another --run it is run again."""
    return [(trial.trial, shlex.join(command_of(results.opened, trial))) for trial in results.trials]


def as_markdown(results: Results, plots: list[str]) -> str:
    """The report as Markdown."""
    columns, table = rows(results)
    lines = [f"# {results.opened.sweep.name}", ""]
    lines += [f"- {name}: {escape(text)}" for name, text in facts(results)]
    lines += ["", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(map(escape, row)) + " |" for row in table]
    failed = failures(results)
    if failed:
        lines += ["", "## Failed", "", *(f"- {escape(line)}" for line in failed)]
    for title in plots:
        lines += ["", f"## {title}", "", f"![{title}](plots/{file_name(title)}.svg)"]
    lines += ["", "Every trial with its command: `report.html`, `trials.csv`."]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Keep a cell a cell."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def file_name(title: str) -> str:
    return title.lower().replace(" ", "-")


def as_csv(results: Results) -> str:
    """One line for every trial."""
    names = list(dict.fromkeys(key for trial in results.trials for key in trial.settings))
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    more = [
        "state",
        "value",
        "step",
        "tokens",
        "code",
        "kind",
        "reason",
        "attempts",
        "seconds",
        "cpu_seconds",
        "directory",
    ]
    writer.writerow(["number", "cell", "trial", *names, *more])
    for trial in results.trials:
        fixed = [trial.state, trial.value, trial.step, trial.tokens, trial.code, trial.kind, trial.reason]
        spent = [len(trial.attempts), round(trial.seconds, 3), round(trial.cpu_seconds, 3)]
        values = [trial.settings.get(name) for name in names]
        place = Path("trials") / trial.trial
        writer.writerow([trial.number, trial.cell, trial.trial, *values, *fixed, *spent, place])
    return stream.getvalue()
