"""What ``benchmarks.gpu`` found, written after every row: ``results.json`` and tables in ``RESULTS.md``."""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

Row = dict[str, Any]
"""``part``, ``row``, ``try``, ``status`` (ok, wrong, failed, stopped, skipped), ``note``, and what was measured."""

FILES = ("results.json", "RESULTS.md")

PEAKS = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "A100": 312e12,
}
"""Dense bfloat16 FLOP/s of devices, by a part of their name, the longer names first."""

WANTED = {"124M": (0.413, 0.46), "350M": (0.463, 0.51), "1.3B": (0.50, 0.56)}
"""Floor and aim of mfu_palm."""
DECODE_AIM = 5.0
"""Times the tokens a second of transformers' ``generate``."""

COLUMNS: dict[str, list[tuple[str, str, str]]] = {
    "ceiling": [("what", "row", ""), ("", "value", ".4g"), ("", "unit", "")],
    "numerics": [
        ("what", "row", ""),
        ("dtype", "dtype", ""),
        ("kernel", "kernel", ""),
        ("error", "error", ".1e"),
        ("of gradients", "gradients", ".1e"),
        ("allowed", "allowed", ""),
        ("", "status", ""),
    ],
    "train": [
        ("model", "row", ""),
        ("how", "try", ""),
        ("micro-batch", "micro_batch", ""),
        ("tokens/s", "tokens_per_second", ",.0f"),
        ("ms/step", "ms_per_step", ".1f"),
        ("GiB", "gib", ".1f"),
        ("mfu_palm", "mfu_palm", ".1%"),
        ("mfu_causal", "mfu_causal", ".1%"),
        ("of the measured product", "of_ceiling", ".1%"),
        ("floor / aim", "wanted", ""),
        ("", "verdict", ""),
    ],
    "decode": [
        ("what", "row", ""),
        ("how", "try", ""),
        ("tokens/s", "tokens_per_second", ",.0f"),
        ("ms a token", "ms_per_token", ".2f"),
        ("times transformers", "ratio", ".2f"),
        ("aim", "aim", ".0f"),
    ],
}
TITLES = {
    "ceiling": "What the device gives",
    "numerics": "Numerics: relative error against float64",
    "train": "Training",
    "decode": "Greedy decoding",
}


def peak_of(device_name: str) -> float | None:
    """Dense bfloat16 FLOP/s of the device, or None where it is not known."""
    return next((flops for name, flops in PEAKS.items() if name in device_name), None)


class Results:
    """All rows of a run and what they were measured on.

    Args:
        folder: gets the two files.
        device: cuda or cpu.
        command: what was typed.
    """

    def __init__(self, folder: Path, device: str, command: str) -> None:
        self.folder, self.rows = folder, list[Row]()
        self.name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
        self.peak = peak_of(self.name) if device == "cuda" else None
        self.about = {
            "device": self.name,
            "peak_flops": self.peak,
            "torch": torch.__version__,
            "cuda": torch.version.cuda if device == "cuda" else None,
            "python": platform.python_version(),
            "command": command,
            "started": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        }
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:  # of an earlier run
            if (folder / name).exists():
                os.replace(folder / name, folder / f"previous.{name}")

    def add(self, row: Row) -> None:
        """Note a row, say it, and write everything anew."""
        row = {"try": "", "status": "ok", "note": "", **{key: in_json(value) for key, value in row.items()}}
        self.rows.append(row)
        self._derive()
        print(self.line(row), flush=True)
        self.write()

    def _derive(self) -> None:
        """What follows from several rows, or from the device."""
        ceiling = max((row["value"] for row in self.of("ceiling") if row.get("unit") == "TFLOP/s"), default=None)
        peers = [row["tokens_per_second"] for row in self.of("decode") if row["row"] == "transformers"]
        for row in self.of("train"):
            speed = row["tokens_per_second"]
            row["of_ceiling"] = None if ceiling is None else speed * row["flops_palm"] / (ceiling * 1e12)
            if self.peak is None:
                continue
            for kind in ("palm", "causal"):
                row[f"mfu_{kind}"] = speed * row[f"flops_{kind}"] / self.peak
            if row["row"] in WANTED:
                floor, aim = WANTED[row["row"]]
                row["wanted"] = f"{floor:.1%} / {aim:.0%}"
                row["verdict"] = "aim" if row["mfu_palm"] >= aim else "floor" if row["mfu_palm"] >= floor else "below"
        for row in self.of("decode"):
            row["ratio"] = row["tokens_per_second"] / max(peers) if peers else None
            row["aim"] = DECODE_AIM if row["row"].startswith("124M") else None

    def of(self, part: str) -> list[Row]:
        """Rows of a part that have their numbers."""
        return [row for row in self.rows if row["part"] == part and row["status"] in ("ok", "wrong")]

    @staticmethod
    def line(row: Row) -> str:
        """One row as it is printed while the run goes on."""
        columns = [column for column in COLUMNS[row["part"]] if column[1] not in ("row", "try")]
        shown = [f"{title} {text}".strip() for title, key, form in columns if (text := cell(row, key, form))]
        told = ", ".join(shown) if row["status"] in ("ok", "wrong") else f"{row['status']}: {row['note']}"
        return f"{row['part']:<8}  {named(row):<44}  {told}".rstrip()

    @property
    def wrong(self) -> list[Row]:
        """Rows that should have been right, and are not."""
        bad = [row for row in self.rows if row["status"] in ("wrong", "failed", "stopped")]
        trained = {row["row"] for row in self.of("train")}
        of_trainings = [row for row in bad if row["part"] == "train" and row["row"] not in trained]
        return [row for row in bad if row["part"] == "numerics"] + of_trainings

    def write(self) -> None:
        """Both files, each replaced in one piece."""
        whole = {**self.about, "rows": self.rows}
        for name, text in zip(FILES, (json.dumps(whole, indent=2) + "\n", self.page()), strict=True):
            partial = self.folder / f".{name}.partial"
            partial.write_text(text)
            os.replace(partial, self.folder / name)

    def page(self) -> str:
        """The tables."""
        about = self.about
        cuda = f", CUDA {about['cuda']}" if about["cuda"] else ""
        lines = ["# Measured on a GPU" if about["cuda"] else "# Not measured on a GPU: the same code on a CPU", ""]
        lines += [f"{about['device']}, torch {about['torch']}{cuda}, Python {about['python']}, {about['started']}:", ""]
        lines += [f"    {about['command']}", ""]
        if self.peak is not None:
            lines += [f"Utilisation is of {self.peak / 1e12:.0f} TFLOP/s, dense bfloat16; see `docs/gpu.md`.", ""]
        for part, columns in COLUMNS.items():
            rows = self.of(part)
            if not rows:
                continue
            used = [column for column in columns if any(cell(row, column[1], column[2]) for row in rows)]
            lines += [f"## {TITLES[part]}", table_row(title for title, *_ in used), "|---" * len(used) + "|"]
            lines += [table_row(cell(row, key, form) for _, key, form in used) for row in rows]
            notes = [f"- {named(row)}: {row['note']}" for row in rows if row["note"]]
            lines += ["", *notes, ""] if notes else [""]
        left = [row for row in self.rows if row["status"] not in ("ok", "wrong")]
        if left:
            reasons = (f"- {row['part']}, {named(row)}: {row['status']}, {row['note']}" for row in left)
            lines += ["## Not measured", *reasons, ""]
        return "\n".join(lines)


def named(row: Row) -> str:
    """What was measured, and how."""
    return " ".join(text for text in (row["row"], row["try"]) if text)


def table_row(cells: Iterable[str]) -> str:
    """One line of a table."""
    return "| " + " | ".join(cells) + " |"


def cell(row: Row, key: str, form: str) -> str:
    """A value as text; nothing for what is not there."""
    value = row.get(key)
    return "" if value is None else value if isinstance(value, str) else format(value, form)


def in_json(value: Any) -> Any:
    """What JSON has no number for, as text."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
