"""Tiny models of transformers, saved by it and imported by us, once for all tests of this directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

transformers = pytest.importorskip("transformers")

from benchmarks import tiny_models  # noqa: E402
from lightning_nlp.interop.convert import import_model  # noqa: E402

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


@dataclass
class Pair:
    """A peer, the folder it was saved in, and what we made of that."""

    name: str
    peer: Any
    folder: Path
    module: Any

    @property
    def family(self) -> str:
        return str(self.peer.config.model_type)

    @property
    def pad(self) -> int:
        return self.peer.config.pad_token_id or 0


made: dict[tuple[str, bool], Pair] = {}


@pytest.fixture(scope="session")
def pair_of(tmp_path_factory):
    """The pair of a name."""

    def get(name: str, lively: bool = False) -> Pair:
        if (name, lively) not in made:
            folder = tmp_path_factory.mktemp(name)
            peer = tiny_models.make(name, lively)
            peer.save_pretrained(folder)
            made[name, lively] = Pair(name, peer, folder, import_model(folder))
        return made[name, lively]

    return get


@pytest.fixture(params=tiny_models.PEERS)
def pair(request, pair_of) -> Pair:
    return pair_of(request.param)
