"""Reading YAML as people write it: no key twice, `1e-4` is a number, one line that says what is wrong and where."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from jsonargparse._loaders_dumpers import get_yaml_default_loader  # pinned and tested: there is no public way

from lightning_nlp.errors import ConfigError, nearest


class StrictLoader(get_yaml_default_loader()):  # type: ignore[misc]
    """jsonargparse's YAML loader that refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
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
    return yaml.load(text, Loader=StrictLoader)  # a subclass of SafeLoader: no tag can build an object


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
