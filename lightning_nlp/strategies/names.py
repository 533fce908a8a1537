"""Names of ``trainer.strategy``."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.strategies import StrategyRegistry

from lightning_nlp import registry
from lightning_nlp.errors import ConfigError, nearest


def check_strategy(strategy: Any) -> None:
    """Raises:
    ConfigError: no such name, or one whose devices are not here; names the nearest that would do.
    """
    if not isinstance(strategy, str):
        return
    ours, all_known = ["auto", *registry.STRATEGIES], StrategyRegistry.available_strategies()
    if strategy not in (*ours, *all_known):
        hint = nearest(strategy, ours) or nearest(strategy, all_known)
        raise ConfigError(f"unknown trainer.strategy '{strategy}'{hint} (known: {', '.join(ours)})")
    if strategy.startswith("fsdp") and strategy not in registry.STRATEGIES and not torch.cuda.is_available():
        raise ConfigError(f"trainer.strategy {strategy} needs a GPU, and there is none: fsdp2 does the same anywhere")
