"""Plots cost two seconds a sweep: only the tests of reports draw them."""

from __future__ import annotations

import pytest

from lightning_nlp.sweeps import report


@pytest.fixture(autouse=True)
def plots(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(report, "pictures", lambda results: {})


@pytest.fixture
def drawn() -> None:
    """Ask for it to have plots."""
    pytest.importorskip("matplotlib")
