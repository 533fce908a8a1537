"""Reading a YAML file of a sweep: numbers as people write them, no key twice, one line for what is wrong."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from lightning_nlp.errors import ConfigError, nearest


class Loader(yaml.SafeLoader):
    """A SafeLoader (no tag can build an object) that knows `1e-4` for a number and refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key '{key.value}'", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


# YAML 1.1, which PyYAML reads, wants a dot in every float; YAML 1.2 and everybody else do not.
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read(path: Path) -> dict[str, Any]:
    """The mapping in a file.

    Raises:
        ConfigError: missing, unreadable, no YAML (the line is named), or no mapping.
    """
    if not path.is_file():
        siblings = [file.name for file in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        raise ConfigError(f"sweep file '{path}' does not exist{nearest(path.name, siblings)}")
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark is not None else ""
        raise ConfigError(f"sweep file '{path}'{where}: {getattr(error, 'problem', None) or error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"sweep file '{path}' cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"sweep file '{path}' must hold keys and values (method, metric, parameters ...)")
    return value
