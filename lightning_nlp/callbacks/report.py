"""What `validate` and `test` found, with examples to read: JSON in full, Markdown for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback

from lightning_nlp.run.files import write_json, write_text

SHORT = 400
"""Characters of a text in Markdown."""
SHOWN = ("source", "text", "text_pair", "prediction", "target")
"""Parts of an example in Markdown, in this order."""


class Report(Callback):
    """Asks every head for its worst examples, and for as many chosen by the hash of their ids.

    Args:
        number: of either.
    """

    def __init__(self, number: int = 20) -> None:
        self.number = number
        self.examples: dict[str, dict[str, Any]] = {}
        """Of each head: ``score``, ``worst``, ``random``."""
        self.details: dict[str, dict[str, dict[str, float]]] = {}
        """Of each head that has some: a table with a row a class."""

    def _begin(self, module: Any) -> None:
        for head in getattr(module, "heads", {}).values():
            head.watch(self.number)

    def _end(self, module: Any) -> None:
        for name, head in getattr(module, "heads", {}).items():
            if details := head.details():
                self.details[name] = details
            self.examples[name] = {"score": head.example_score, **head.chosen(module.backbone, module.device)}

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._begin(pl_module)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._begin(pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._end(pl_module)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._end(pl_module)

    def write(self, directory: Path, name: str, found: dict[str, Any]) -> Path:
        """Write ``name.json`` and ``name.md``.

        Args:
            directory: where to.
            name: verb and split.
            found: ``checkpoint``, ``step``, ``metrics`` and ``signatures``, and what else is known.

        Returns:
            The Markdown file.
        """
        write_json(directory / f"{name}.json", {**found, "details": self.details, "examples": self.examples})
        write_text(directory / f"{name}.md", markdown(name, found, self.details, self.examples))
        return directory / f"{name}.md"


def markdown(
    name: str, found: dict[str, Any], details: dict[str, dict[str, Any]], examples: dict[str, dict[str, Any]]
) -> str:
    """The report for people: a table of metrics, one of classes where there are some, then examples, shortened."""
    weights = f" ({found['said']})" if found.get("said") else ""
    lines = [f"# {name}", "", f"Checkpoint `{found['checkpoint']}`, step {found['step']}{weights}.", ""]
    lines += ["| metric | value | how |", "|---|---|---|"]
    for metric, value in found["metrics"].items():
        signature = found["signatures"].get(metric.rpartition("/")[2], "")
        lines.append(f"| {metric} | {value:.6g} | {cell(signature)} |")
    for rows in details.values():
        names = list(next(iter(rows.values())))
        lines += ["", f"| class | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
        lines += [
            f"| {escaped(row)} | {' | '.join(f'{value:.4g}' for value in values.values())} |"
            for row, values in rows.items()
        ]
    for head, chosen in examples.items():
        of = f" of {head}" if len(examples) > 1 else ""
        lines += ["", f"## Worst examples{of}", "", f"The highest {chosen['score']} first."]
        lines += [line for number, record in enumerate(chosen["worst"], 1) for line in shown(number, record, chosen)]
        lines += [
            "",
            f"## Examples{of} chosen by chance",
            "",
            "By the hash of their ids: the same at every evaluation.",
        ]
        lines += [line for number, record in enumerate(chosen["random"], 1) for line in shown(number, record, chosen)]
    return "\n".join([*lines, ""])


def shown(number: int, record: dict[str, Any], chosen: dict[str, Any]) -> list[str]:
    """One example as a heading and an indented block."""
    score = "not finite" if record["score"] is None else f"{record['score']:.4g}"
    lines = ["", f"### {number}. {record['id']}: {chosen['score']} {score}", ""]
    for part in SHOWN:
        if record.get(part) is not None:
            lines.append(f"    {part:<11}{short(record[part])}")
    for token in record.get("hardest", []):
        where = f"{token['target']} after ...{one_line(token['after'])[-40:]}"
        lines.append(f"    {'hardest':<11}{token['loss']:.2f}  {where}  (predicted: {token['prediction']})")
    return lines


def short(value: Any) -> str:
    """A text in one line, its beginning and end where it is long; lists with commas."""
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "(none)"
    if isinstance(value, float):
        return f"{value:.4g}"
    text = one_line(str(value))
    return text if len(text) <= SHORT else f"{text[: SHORT // 2]} [...] {text[-SHORT // 2 :]}"


def one_line(text: str) -> str:
    """Line breaks as spaces; what is not there is said."""
    return " ".join(text.split()) or "(empty)"


def cell(text: str) -> str:
    """A signature in a table, whose columns are also made by ``|``."""
    return f"`{escaped(text)}`" if text else ""


def escaped(text: str) -> str:
    """In a table, ``|`` would begin a column."""
    return one_line(text).replace("|", "\\|")
