"""What the end of a process means for its trial."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from lightning_nlp.errors import nearest
from lightning_nlp.run import exit_codes
from lightning_nlp.sweeps.grammar import Metric
from lightning_nlp.sweeps.launcher import Ended
from lightning_nlp.sweeps.metrics import Curve


@dataclass(frozen=True)
class Outcome:
    """``kind`` as in the ledger; ``saved`` when a checkpoint was made on leaving."""

    kind: str
    reason: str = ""
    value: float | None = None


def outcome(ended: Ended, curve: Curve, metric: Metric, directory: Path) -> Outcome:
    """Read exit code, metrics and the last words of a trial."""
    code = ended.code
    if code == exit_codes.DONE:
        return of_metric(curve, metric)
    if code in (-9, 137):
        kind = "host_oom" if ended.oom_kills else "killed"
        return Outcome(kind, "killed because the machine ran out of memory" if ended.oom_kills else "killed (SIGKILL)")
    if code == exit_codes.REQUEUE:
        return Outcome("preempted", "saved, to be started again")
    if code in (exit_codes.INTERRUPTED, exit_codes.TERMINATED, -15, -2):
        return Outcome("preempted", "terminated by a signal")
    words = last_words(directory)
    if code == exit_codes.STALLED:
        return Outcome("stalled", words or "no progress")
    if code == exit_codes.CONFIGURATION:
        return Outcome("configuration", words or "exit code 2")
    if any(sign in words for sign in exit_codes.OUT_OF_MEMORY):
        return Outcome("out_of_memory", words)
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return Outcome("crash", words or how)


def of_metric(curve: Curve, metric: Metric) -> Outcome:
    """The value of a trial that came to its end."""
    value = curve.value(metric.of, metric.minimize)
    if value is None:
        seen = ", ".join(sorted(curve.names)) or "none"
        hint = nearest(metric.name, curve.names)
        return Outcome("no_metric", f"metric.name: '{metric.name}' never appeared{hint} (seen: {seen})")
    if not math.isfinite(value):
        return Outcome("diverged", f"{metric.name} became {value}")
    return Outcome("done", value=value)


def last_words(directory: Path) -> str:
    """Why a run failed, in one line: from its status, else the last line it printed."""
    try:
        status = json.loads((directory / "status.json").read_text(encoding="utf-8"))
        if status.get("state") in ("failed", "stalled") and status.get("reason"):
            return " ".join(str(status["reason"]).split())
    except (OSError, ValueError, AttributeError):
        pass
    try:
        with (directory / "output.log").open("rb") as stream:
            stream.seek(max(stream.seek(0, 2) - 8192, 0))
            lines = stream.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return last.removeprefix("lightning-nlp: ").removeprefix("error: ")[:500]
