"""The argument parser: one line for a mistake, no abbreviations, YAML read strictly."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Iterator
from typing import Any

import jsonargparse
import yaml
from lightning.pytorch.cli import LightningArgumentParser

from lightning_nlp import registry, yaml_file
from lightning_nlp.errors import ConfigError, nearest


class Parser(LightningArgumentParser):
    """Raises :class:`ConfigError` with a single line instead of printing usage and exiting."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "allow_abbrev": False})

    def error(self, message: str, ex: Exception | None = None) -> None:  # type: ignore[override]
        if (mistake := find_mistake(ex)) is not None:
            raise mistake
        raise ConfigError(one_line(message, list(self.known_keys()))) from None

    def known_keys(self) -> Iterator[str]:
        """Flags of this parser and of its subcommands, without dashes."""
        for action in self._actions:
            for option in action.option_strings:
                yield option.lstrip("-")
            for parser in (getattr(action, "choices", None) or {}).values() if hasattr(action, "choices") else []:
                if isinstance(parser, Parser):
                    yield from parser.known_keys()


def find_mistake(error: BaseException | None) -> ConfigError | None:
    """The ConfigError that started a chain of exceptions, if one did."""
    while error is not None:
        if isinstance(error, ConfigError):
            return error
        error = error.__cause__ or error.__context__
    return None


@functools.cache
def class_keys() -> dict[str, list[str]]:
    """``{"model.backbone.n_layers": ["CausalLM", ...]}``: arguments of tasks and data modules, and who takes them."""
    keys: dict[str, list[str]] = {}
    for prefix, known in (("model", registry.TASKS), ("data", registry.DATA)):
        for name in known:
            probe = jsonargparse.ArgumentParser()
            probe.add_class_arguments(registry.load(known, name), prefix)
            for action in probe._actions:
                for option in action.option_strings:
                    keys.setdefault(option.lstrip("-"), []).append(name)
    return keys


UNKNOWN = (
    r"[Uu]nrecognized arguments?: --?(?P<key>[\w.\-]+)",
    r"Group '(?P<group>[\w.]+)' does not accept option '(?P<key>[\w.\-]+)'",
    r"does not accept option '(?P<key>[\w.\-]+)'",
    r"Option '(?P<key>[\w.\-]+)' is not accepted",
    r"[Kk]ey ['\"](?P<key>[\w.\-]+)['\"] is not expected",
    r"[Nn]o action for key ['\"](?P<key>[\w.\-]+)['\"]",
)
CLASS_NAME = r"(?:dot import path string: |class (?:with name|path) ['\"]?|[Ii]mport path ['\"]?)(?P<name>[\w.]+)"


def one_line(message: str, flags: list[str]) -> str:
    """Reduce jsonargparse's nested report to its innermost reason, with the nearest right name.

    Args:
        message: the report.
        flags: known flags, for hints.
    """
    text = " ".join(line.strip() for line in message.splitlines() if line.strip())
    prefix = prefix_of(flags)
    flags = [f"{prefix}{flag}" for flag in flags]
    for pattern in UNKNOWN:
        if match := re.search(pattern, text):
            group = match.groupdict().get("group")
            key = match["key"].lstrip("-").removeprefix("init_args.")
            return unknown_key(prefix + (f"{group}.{key}" if group else key), flags)
    keys = re.findall(r"[Pp]arser key ['\"]?([\w.\-]+)['\"]?", text)
    key = full_key(prefix + keys[-1].removeprefix("init_args."), flags) if keys else ""
    if (match := re.search(CLASS_NAME, text)) and key in ("model", "data"):
        classes = registry.TASKS if key == "model" else registry.DATA
        hint = nearest(match["name"].rpartition(".")[2], classes)
        return f"{key}: there is no class '{match['name']}'{hint} (known: {', '.join(classes)})"
    if (match := re.search(CLASS_NAME, text)) and key == "trainer.callbacks":
        hint = nearest(match["name"].rpartition(".")[2], registry.CALLBACKS)
        known = f"{', '.join(registry.CALLBACKS)} and those of Lightning"
        return f"{key}: there is no class '{match['name']}'{hint} (known: {known})"
    if match := re.search(r"Key ['\"]?([\w.\-]+)['\"]? is required", text):
        return f"{full_key(match[1], flags)} is required"
    expected = [part for part in re.findall(r"Expected an? (.+?)(?= - |\.? Got value| Given value|$)", text)]
    given = re.search(r"(?:Got value|Given value): (.+?)(?= - |$)", text)
    if key and expected:
        return wrong_value(key, expected, given[1].strip() if given else "")
    return f"{key}: {text}" if key and key not in text else text


def prefix_of(flags: list[str]) -> str:
    """``data.`` or ``model.`` where all flags are those of the parser inside, which leaves it out of its messages."""
    own = [flag for flag in flags if flag not in ("h", "help", "print_shtab")]
    for prefix in ("model.", "data."):
        if own and all(prefix + flag in class_keys() for flag in own):
            return prefix
    return ""


def wrong_value(key: str, expected: list[str], given: str) -> str:
    """``trainer.precision must be one of ..., got '17'``."""
    options = [option for part in expected for option in re.findall(r"'([^']*)'|\b(\d+)\b", part) if "Literal" in part]
    choices = list(dict.fromkeys(first or second for first, second in options))
    if choices:
        return f"{key} must be one of {', '.join(choices)}, got '{given}'{nearest(given, choices)}"
    kinds = [re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", part) for part in expected]
    # A list could also be given as a file that holds it; who misspelt one did not mean that.
    kinds = [kind for kind in dict.fromkeys(kinds) if kind != "NoneType" and not kind.startswith("path but ")]
    return f"{key} must be {' or '.join(kinds)}, got '{given}'"


def full_key(key: str, flags: list[str]) -> str:
    """Put ``model.`` or ``data.`` before a key that an inner parser named without it."""
    key = key.replace(".init_args", "").removeprefix("init_args.")
    outer = key.partition(".")[0] in ("model", "data", "trainer")
    if outer or (key in flags and "." not in key):
        return key
    return next((known for known in class_keys() if known.endswith(f".{key}")), key)


def unknown_key(key: str, flags: list[str]) -> str:
    """One line about a key nobody knows: its nearest sibling, or the class it belongs to."""
    key = key.lstrip("-").partition("=")[0].replace(".init_args", "").removeprefix("init_args.")
    owners = class_keys()
    parent, _, name = key.rpartition(".")
    for known, classes in owners.items():
        if known == key or known == f"model.{key}" or known == f"data.{key}":
            return f"unknown key '{key}': it belongs to {' and '.join(classes)}"
    siblings = {
        known for known in [*flags, *owners] if (known.rpartition(".")[0] + ".").endswith(f".{parent}.".lstrip("."))
    }
    if not parent:
        siblings = {known for known in [*flags, *owners] if known.count(".") <= 1}
    names = {known.rpartition(".")[2]: known for known in sorted(siblings)}
    match = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if parent and names:
        parent = next(iter(names.values())).rpartition(".")[0]
    full = f"{parent}.{name}" if parent else name
    if match:
        return f"unknown key '{full}'; did you mean '{names[match[0]]}'?"
    return f"unknown key '{full}'" + (f" (known: {', '.join(sorted(names))})" if parent and names else "")


jsonargparse.set_loader("yaml", yaml_file.load, exceptions=(yaml.YAMLError,))
