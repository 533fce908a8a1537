"""What libraries say that nobody who runs a command can act on."""

from __future__ import annotations

import logging
import warnings


def quieten() -> None:
    """Leave only lines a person can act on."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("torch.distributed.tensor", "torch.distributed.checkpoint"):  # how a layout is gathered
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"jsonargparse|lightning\.pytorch\.cli")
    warnings.filterwarnings("ignore", category=UserWarning, module=r"lightning\..*")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\..*|lightning\..*")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
