"""Checking a sweep's keys and values against the parser of `fit`, in one process of its own, before the first trial."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from lightning_nlp.errors import ConfigError, DataError
from lightning_nlp.sweeps import space
from lightning_nlp.sweeps.grammar import Sweep
from lightning_nlp.sweeps.space import Settings

PROBE = [sys.executable, "-m", "lightning_nlp.cli.sweep_probe"]
"""Reads command lines of fit as JSON, one a line; answers each with ``{"code", "output", "error"}``."""


def check(sweep: Sweep, base: list[Path], cwd: Path) -> None:
    """Have the parser read the base alone, then every key with every value (or the ends of its range).

    Raises:
        ConfigError: the base is refused, or a key or value is; names which. The sweep's own program does not exist.
        DataError: the parser did not answer.
    """
    if sweep.program:  # somebody else's parser
        if shutil.which(sweep.program[0]) is None:
            raise ConfigError(f"program: there is no '{sweep.program[0]}' that can be run")
        return
    asked: list[tuple[str, Settings]] = [("base", {})]
    for parameter in sweep.parameters:
        asked += [(f"parameters.{parameter.key}", {parameter.key: value}) for value in parameter.probes()]
    for number, trial in enumerate(sweep.trials):
        asked += [(f"trials[{number}].{key}", {key: value}) for key, value in trial.items()]
    computed = [parameter.key for parameter in sweep.of_kind("expr")]
    if computed:
        first = example(sweep)
        asked += [(f"parameters.{key}", {key: first[key]}) for key in computed]
    answers = ask([command(base, settings) for _, settings in asked], cwd)
    for (where, settings), answer in zip(asked, answers, strict=True):
        if answer["code"] != 0:
            value = "".join(f" = {space.canonical(each)}" for each in settings.values())
            raise ConfigError(f"{where}{value}: {answer['error'].removeprefix('lightning-nlp: error: ')}")


def example(sweep: Sweep) -> Settings:
    """One configuration, for its computed values."""
    if sweep.method != "bayes":
        return space.plan(sweep)[0]
    return space.complete(sweep, {each.key: each.probes()[0] for each in sweep.of_kind("values", "range")})


def completed(base: list[Path], settings: Settings, cwd: Path) -> str:
    """The complete configuration of one trial, as YAML.

    Raises:
        ConfigError: the parser refuses it.
    """
    (answer,) = ask([command(base, settings)], cwd)
    if answer["code"] != 0:
        raise ConfigError(answer["error"].removeprefix("lightning-nlp: error: "))
    return str(answer["output"])


def command(base: list[Path], settings: Settings) -> list[str]:
    files = [part for file in base for part in ("-c", str(file.absolute()))]
    return ["fit", *files, *space.flags(settings), "--print_config"]


def ask(commands: list[list[str]], cwd: Path) -> list[dict[str, Any]]:
    """Answers of the parser, in the order of the commands."""
    lines = "".join(json.dumps(each) + "\n" for each in commands)
    done = subprocess.run(PROBE, input=lines, capture_output=True, text=True, cwd=cwd)
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0 or len(answers) != len(commands):
        last = ([line for line in done.stderr.splitlines() if line.strip()] or ["no message"])[-1]
        raise DataError(f"the parser of fit did not answer (exit code {done.returncode}): {last}")
    return answers
