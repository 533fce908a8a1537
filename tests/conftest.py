"""One corpus for all tests, sample corpora built once, no terminal noise."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.integration import runs

# The same cases everywhere; `HYPOTHESIS_PROFILE=explore` draws new ones.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("LIGHTNING_NLP_RUN", None)


def forget_seeds() -> None:
    """The next test, and fixtures that outlive a test, start without the seed of another."""
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        os.environ.pop(name, None)


forget_seeds()


@pytest.fixture(autouse=True)
def _forget_seeds() -> Iterator[None]:
    """``seed_everything``, which a command run in this process calls, leaves its seed in the environment."""
    yield
    forget_seeds()


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of sample corpora; commands in this session build them there."""
    directory = tmp_path_factory.mktemp("samples")
    os.environ["LIGHTNING_NLP_DATA"] = str(directory)
    return directory


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random sentences with train, validation and test splits."""
    return runs.write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def tiny(tmp_path: Path, corpus: Path) -> Path:
    """A configuration of a tiny language model on ``corpus``."""
    return runs.write_config(tmp_path / "tiny.yaml", corpus)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """A finished tiny run; tests must not write into it (copy it)."""
    root = tmp_path_factory.mktemp("trained")
    config = runs.write_config(root / "tiny.yaml", corpus, max_steps=10, validate_every=5)
    runs.run("fit", "-c", config, "--root", root, "--name", "run")
    return root / "run"
