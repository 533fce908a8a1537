"""Pictures of a sweep as SVG text: learning curves, the metric by parameter, importance, quality against cost."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

from lightning_nlp.sweeps import space
from lightning_nlp.sweeps.results import Configuration, Results, short_names

MOST_CURVES = 60
GREY, BLUE, RED = "#9aa3ad", "#1f6fb2", "#c8452e"
COLOURS = {"done": BLUE, "pruned": GREY, "failed": RED, "running": "#2a9d6f", "waiting": GREY}


def pictures(results: Results) -> dict[str, str]:
    """``{title: SVG}``; empty where matplotlib is not installed, and without those that there is nothing for."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        return {}
    matplotlib.use("Agg")
    from matplotlib import pyplot

    style: dict[Any, Any] = {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "svg.hashsalt": "sweep",
    }
    with pyplot.rc_context({**style, "axes.grid": True, "grid.color": "#e6e9ec", "axes.axisbelow": True}):
        made = {
            "Learning curves": drawn(pyplot, learning_curves, results),
            "What each parameter does": drawn(pyplot, by_parameter, results),
            "Importance of parameters": drawn(pyplot, importances, results),
            "Quality against cost": drawn(pyplot, quality_and_cost, results),
        }
    return {title: text for title, text in made.items() if text}


def drawn(pyplot: Any, draw: Callable[[Any, Results], Any], results: Results) -> str:
    """The SVG of one figure, without what would change from one time to the next."""
    figure = draw(pyplot, results)
    if figure is None:
        return ""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    text = stream.getvalue()
    return re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)


def learning_curves(pyplot: Any, results: Results) -> Any:
    """Mean over replicates by optimizer steps; those stopped early end where they were stopped."""
    shown = [each for each in results.configurations if len(each.curve) > 0]
    if not shown:
        return None
    figure, axes = pyplot.subplots(figsize=(6.4, 3.6))
    best = next(iter(results.ranked()), None)
    for each in shown[:MOST_CURVES]:
        if each is not best:
            end = "x" if each.state == "pruned" else None
            colour = RED if each.state == "failed" else GREY
            steps, values = list(each.curve), list(each.curve.values())
            axes.plot(steps, values, color=colour, linewidth=1, marker="." if len(steps) == 1 else None)
            axes.plot(steps[-1:], values[-1:], color=colour, marker=end, markersize=4)
    if best is not None and best.curve:
        label = f"best: configuration {best.number}"
        axes.plot(list(best.curve), list(best.curve.values()), color=BLUE, linewidth=2, label=label)
        axes.legend(frameon=False)
    robust_limits(axes, [value for each in shown for value in each.curve.values()], results)
    axes.set_xlabel("optimizer steps")
    axes.set_ylabel(results.opened.sweep.metric.name)
    return figure


def robust_limits(axes: Any, values: list[float], results: Results) -> None:
    """Let the few worst points leave the picture: what is compared lies close together at the other end."""
    ordered = sorted(values, reverse=not results.opened.sweep.metric.minimize)
    if len(ordered) < 8:
        return
    best, far = ordered[0], ordered[int(0.92 * (len(ordered) - 1))]
    pad = 0.05 * (far - best)
    if pad and abs(ordered[-1] - best) > 2 * abs(far - best):
        axes.set_ylim(*sorted((best - pad, far + pad)))


def by_parameter(pyplot: Any, results: Results) -> Any:
    """The metric over every parameter, one panel each, with intervals where there are replicates."""
    sweep = results.opened.sweep
    done = [each for each in results.configurations if each.value is not None and each.state in ("done", "pruned")]
    keys = [key for key in space.varied(sweep) if len({str(each.settings.get(key)) for each in done}) > 1][:6]
    if not keys:
        return None
    columns = min(len(keys), 3)
    height = (len(keys) + columns - 1) // columns
    size = (3.2 * columns + (1.6 if columns == 1 else 0), 2.6 * height)
    figure, grid = pyplot.subplots(height, columns, figsize=size, squeeze=False, sharey=True, layout="constrained")
    names = short_names(space.varied(sweep))
    for axes in grid.flat[len(keys) :]:
        axes.axis("off")
    for key, axes in zip(keys, grid.flat, strict=False):
        panel(axes, key, done)
        axes.set_xlabel(names[key])
    for row in grid:
        row[0].set_ylabel(sweep.metric.name)
    return figure


def panel(axes: Any, key: str, done: list[Configuration]) -> None:
    """One parameter: numbers on a scale of their own kind, anything else by name."""
    shown = [each for each in done if key in each.settings]
    values = [each.settings[key] for each in shown]
    numeric = all(type(value) in (int, float) for value in values)
    if numeric:
        places = [float(value) for value in values]
        if min(places) > 0 and max(places) / min(places) >= 8:
            axes.set_xscale("log")
        if len(set(places)) <= 6:
            axes.set_xticks(sorted(set(places)), [f"{place:g}" for place in sorted(set(places))])
            axes.minorticks_off()
    else:
        names = list(dict.fromkeys(str(value) for value in values))
        places = [float(names.index(str(value))) for value in values]
        axes.set_xticks(range(len(names)), names, rotation=20 if len(names) > 3 else 0)
        axes.set_xlim(-0.5, len(names) - 0.5)
    for state in ("pruned", "done"):
        chosen = [(place, each) for place, each in zip(places, shown, strict=True) if each.state == state]
        for place, each in chosen:
            mark = "o" if state == "done" else "x"
            axes.errorbar(
                [place], [each.value], [each.interval or 0.0], fmt=mark, color=COLOURS[state], markersize=4, capsize=2
            )


def importances(pyplot: Any, results: Results) -> Any:
    """Shares as bars."""
    if not results.importances:
        return None
    names = short_names(list(results.importances))
    rows = list(results.importances.items())[::-1]
    figure, axes = pyplot.subplots(figsize=(6.4, 0.6 + 0.35 * len(rows)))
    axes.barh([names[key] for key, _ in rows], [share for _, share in rows], color=BLUE, height=0.6)
    axes.set_xlim(0, 1)
    axes.set_xlabel("share (PED-ANOVA)")
    return figure


def quality_and_cost(pyplot: Any, results: Results) -> Any:
    """The metric over processor hours (device hours where trials had GPUs)."""
    points = [each for each in results.configurations if each.value is not None and cost(each) > 0]
    if len(points) < 2:
        return None
    figure, axes = pyplot.subplots(figsize=(6.4, 3.4))
    unit, hours = time_unit(max(cost(each) for each in points))
    for state in ("pruned", "failed", "done"):
        chosen = [each for each in points if each.state == state]
        if chosen:
            mark = "x" if state == "pruned" else "o"
            places = [cost(each) / hours for each in chosen]
            axes.scatter(places, [each.value for each in chosen], s=22, marker=mark, color=COLOURS[state], label=state)
    costs = [cost(each) / hours for each in points]
    if max(costs) / min(costs) > 20:
        axes.set_xscale("log")
    else:
        axes.set_xlim(0, 1.06 * max(costs))
    axes.legend(frameon=False)
    axes.set_xlabel(f"{cost_unit(results)} {unit} of a configuration (all its trials and attempts)")
    axes.set_ylabel(results.opened.sweep.metric.name)
    return figure


def time_unit(most: float) -> tuple[str, float]:
    """A unit in which so many hours read well, and how many hours it has."""
    if most >= 1:
        return "hours", 1.0
    return ("minutes", 1 / 60) if most >= 1 / 60 else ("seconds", 1 / 3600)


def cost(each: Configuration) -> float:
    """Hours of GPUs, or of processors where there are none."""
    return sum((trial.seconds * trial.gpus if trial.gpus else trial.cpu_seconds) / 3600 for trial in each.trials)


def cost_unit(results: Results) -> str:
    return "GPU" if any(trial.gpus for trial in results.trials) else "CPU"
