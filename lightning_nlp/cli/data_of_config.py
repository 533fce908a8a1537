"""The data of a configuration by itself: parsed and checked as by `fit`, without model, trainer or run directory."""

from __future__ import annotations

from typing import Any

from jsonargparse import Namespace

from lightning_nlp.cli.app import CommandLine
from lightning_nlp.cli.parser import find_mistake
from lightning_nlp.data.module import TextDataModule


class DataOnly(CommandLine):
    """Reads the command line of `fit` and makes its DataModule alone."""

    def instantiate_classes(self) -> None:
        data = Namespace({self.verb: Namespace(data=self.settings["data"])})
        self.datamodule = self._get(self.parser.instantiate_classes(data), "data")

    def after_instantiate_classes(self) -> None:
        """Nothing else is there."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing is run."""


def data_of(args: list[str]) -> TextDataModule:
    """The DataModule of ``-c CONFIG`` and the flags of `fit`.

    Raises:
        ConfigError: a wrong setting; one line.
    """
    try:
        found: Any = DataOnly("fit", args).datamodule
    except Exception as error:  # the parser wraps what a class refuses
        raise find_mistake(error) or error from None
    assert isinstance(found, TextDataModule)
    return found
