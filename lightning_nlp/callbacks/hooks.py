"""Hooks that do nothing are not called: eight callbacks with six hooks a step cost as much as a small model."""

from __future__ import annotations

from collections.abc import Iterable

from lightning.pytorch.callbacks import Callback

EACH_BATCH = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
    "on_validation_batch_start",
    "on_validation_batch_end",
)
"""Called for every batch."""


def skip_empty_hooks(callbacks: Iterable[Callback]) -> None:
    """Let Lightning pass over hooks that a callback inherits as they are, which do nothing.

    Lightning calls what is callable; a hook that is None it leaves out, with everything it does around the call.
    """
    for callback in callbacks:
        for hook in EACH_BATCH:
            if hook not in vars(callback) and getattr(type(callback), hook) is getattr(Callback, hook):
                setattr(callback, hook, None)
