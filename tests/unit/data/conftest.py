"""No test reads or fills the user's cache of the ``datasets`` library, or asks the Hub."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def datasets_cache(tmp_path_factory):
    """An empty cache for this session; the library read its variables when it was imported, hence both."""
    import datasets

    path = tmp_path_factory.mktemp("hf_datasets_cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_DATASETS_CACHE", str(path))
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", path)
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        yield path
