"""The argument parser: one line for a mistake, no abbreviations, no duplicate YAML keys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonargparse
import yaml
from jsonargparse._loaders_dumpers import get_yaml_default_loader  # pinned and tested: there is no public way
from lightning.pytorch.cli import LightningArgumentParser

from lightning_nlp import registry
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


def class_keys() -> list[str]:
    """Arguments of all tasks and data modules, as ``model.x.y`` and ``data.x``, for hints."""
    keys = []
    for prefix, known in (("model", registry.TASKS), ("data", registry.DATA)):
        for name in known:
            probe = jsonargparse.ArgumentParser()
            probe.add_class_arguments(registry.load(known, name), prefix)
            keys += [option.lstrip("-") for action in probe._actions for option in action.option_strings]
    return sorted(set(keys))


UNKNOWN = (
    r"[Uu]nrecognized arguments?: (?P<key>\S+)",
    r"[Kk]ey '(?P<key>[\w.\-]+)' is not expected",
    r"[Nn]o action for key ['\"](?P<key>[\w.\-]+)['\"]",
    r"(?:[Uu]nexpected|[Uu]nsupported|does not accept nested) (?:key|argument)s?:? ['\"]?(?P<key>[\w.\-]+)",
)


def one_line(message: str, flags: list[str]) -> str:
    """Reduce jsonargparse's nested report to its innermost reason, with the nearest right name.

    Args:
        message: the report.
        flags: known flags, for hints.
    """
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    text = " ".join(lines)
    if "duplicate key" in text:
        return text[text.index("duplicate key") :].split("\n")[0]
    for pattern in UNKNOWN:
        if match := list(re.finditer(pattern, text)):
            return unknown_key(match[-1]["key"], text, flags)
    if match := re.search(r"[Uu]nable to load config (?:file )?['\"]?(?P<file>[^'\":]+)", text):
        return f"cannot read config file '{match['file']}': {reason(lines)}"
    keys = re.findall(r"[Pp]arser key ['\"]?([\w.\-]+)['\"]?", text)
    innermost = ".".join(part for part in merge_keys(keys))
    if match := re.search(r"[Ii]mport path (?P<path>\S+)|class (?:with name|path) ['\"]?(?P<name>[\w.]+)", text):
        name = (match["path"] or match["name"]).strip("'\"")
        known = [*registry.TASKS, *registry.DATA]
        if "." not in name or name.startswith("lightning_nlp"):
            return f"{innermost}: there is no class '{name}'{nearest(name, known)} (known: {', '.join(known)})"
    return f"{innermost}: {reason(lines)}" if innermost else reason(lines)


def merge_keys(keys: list[str]) -> list[str]:
    """``model``, ``backbone.n_layers`` -> both; a key that repeats its parent is used once."""
    merged: list[str] = []
    for key in keys:
        if merged and (key == merged[-1] or key.startswith(f"{'.'.join(merged)}.")):
            merged = [key]
        else:
            merged.append(key)
    return merged


def reason(lines: list[str]) -> str:
    """The last informative lines of a report, as one sentence."""
    expected = [line.lstrip("- ") for line in lines if "xpected" in line and "NoneType" not in line]
    given = [line for line in lines if line.startswith("Given value:")]
    if expected:
        shown = re.sub(r"<class '([\w.]+)'>", r"\1", expected[-1])
        value = f", got {given[-1].partition(':')[2].strip()}" if given and "Got value" not in shown else ""
        return shown.replace(". Got value:", ", got") + value
    return lines[-1] if lines else "invalid value"


def unknown_key(key: str, text: str, flags: list[str]) -> str:
    """``unknown key 'model.backbone.widht'; did you mean ...``."""
    bare = key.lstrip("-").partition("=")[0]
    parents = [part for part in merge_keys(re.findall(r"[Pp]arser key ['\"]?([\w.\-]+)['\"]?", text)) if part]
    known = [*flags, *class_keys()]
    full = bare.replace(".init_args", "")
    if parents and not full.startswith(parents[0]):
        full = f"{'.'.join(parents)}.{full}"
    hint = nearest(full, known) or nearest(full.rpartition(".")[2], {name.rpartition(".")[2] for name in known})
    return f"unknown key '{full}'{hint}"


class StrictLoader(get_yaml_default_loader()):  # type: ignore[misc]
    """jsonargparse's YAML loader that refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = key_node.value
            if key in seen:
                line = key_node.start_mark.line + 1
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key '{key}' in line {line}", None)
            seen.add(key)
        return super().construct_mapping(node, deep)


def load_yaml(stream: str) -> Any:
    """Load one YAML document strictly."""
    return yaml.load(stream, Loader=StrictLoader)  # noqa: S506 - StrictLoader derives from SafeLoader


jsonargparse.set_loader("yaml", load_yaml, exceptions=(yaml.YAMLError,))


def config_error(path: Path, error: yaml.YAMLError) -> str:
    """One line about a YAML file that cannot be read."""
    mark = getattr(error, "problem_mark", None)
    where = f" line {mark.line + 1}" if mark is not None else ""
    return f"{path}{where}: {getattr(error, 'problem', None) or error}"
