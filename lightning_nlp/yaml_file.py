"""Reading YAML as people write it: no key twice, `1e-4` is a number, one line that says what is wrong and where."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from jsonargparse._loaders_dumpers import get_yaml_default_loader  # pinned and tested: there is no public way

from lightning_nlp.errors import ConfigError, nearest

DEEPEST = 64
"""Lists and mappings inside each other."""


class StrictLoader(get_yaml_default_loader()):  # type: ignore[misc]
    """jsonargparse's YAML loader that refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a list or a mapping is no key", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key '{key.value}'", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


# YAML 1.1, which PyYAML reads, wants a dot and a sign of the exponent; YAML 1.2 and everybody else do not.
StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def load(text: str) -> Any:
    """One YAML document.

    Raises:
        yaml.YAMLError: it is none.
    """
    try:
        found = yaml.load(text, Loader=StrictLoader)  # a subclass of SafeLoader: no tag can build an object
    except RecursionError as error:
        raise yaml.YAMLError("nested too deeply") from error
    except (ValueError, TypeError) as error:  # of PyYAML's own constructors: `0x_` looks like a number
        raise yaml.YAMLError(f"a value cannot be read: {error}") from error
    level = {id(found): found}
    for _ in range(DEEPEST):
        parts = [each.values() if isinstance(each, dict) else each for each in level.values() if holds(each)]
        level = {id(part): part for each in parts for part in each}  # what is shared (`&a`, `*a`) counts once
        if not level:
            return found
    raise yaml.YAMLError("nested too deeply")  # Python could not even show it, or it holds itself


def holds(value: Any) -> bool:
    """Whether it is made of other values."""
    return isinstance(value, (dict, list)) and bool(value)


def read(path: Path, kind: str) -> Any:
    """What a file holds.

    Args:
        kind: what messages call the file: ``config file``.

    Raises:
        ConfigError: missing, unreadable, or no YAML: the file and the line are named.
    """
    if not path.is_file():
        siblings = [file.name for file in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        raise ConfigError(f"{kind} '{path}' does not exist{nearest(path.name, siblings)}")
    try:
        return load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark is not None else ""
        raise ConfigError(f"{kind} '{path}'{where}: {getattr(error, 'problem', None) or error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{kind} '{path}' cannot be read: {error}") from error
