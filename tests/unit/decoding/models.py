"""A small random backbone with an output matrix, for decoding tests."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.init import init_weights
from lightning_nlp.backbone.transformer import Transformer
from lightning_nlp.decoding.config import GenerationConfig
from lightning_nlp.decoding.generate import Hypothesis, hypotheses

PROMPTS = [[3, 14, 15], [9], [2, 6, 5, 35, 8, 9, 7], [9, 3]]
VARIANTS = {
    **{kind: {"positions": kind} for kind in ("rotary", "learned", "sinusoidal", "alibi", "relative", "none")},
    "grouped heads": {"n_kv_heads": 2},
    "post-norm": {"norm_placement": "post"},
    "windowed": {"window": 4},
    "llama-like": {"norm": "rmsnorm", "feedforward": "swiglu", "n_kv_heads": 1},
}
SOURCES = [[7, 8, 9], [1, 2, 3, 4, 5], [6]]


def build(**given: object) -> Transformer:
    torch.manual_seed(0)
    config = TransformerConfig(
        **{"n_layers": 2, "d_model": 32, "n_heads": 4, "vocab_size": 50, "max_length": 32, "init_std": 0.3, **given}
    )
    model = Transformer(config)
    init_weights(model, config)
    return model


EOS = 7
MATRIX = torch.randn(50, 32, generator=torch.Generator().manual_seed(1))
MATRIX[EOS] *= 2.0  # texts end every now and then


def head(hidden: Tensor) -> Tensor:
    """Scores of 50 tokens."""
    return hidden @ MATRIX.to(hidden.dtype).T


def decode(model: Transformer, prompts: list[list[int]], **given: object) -> list[list[Hypothesis]]:
    """Hypotheses; settings and arguments in one."""
    settings = {name: given.pop(name) for name in list(given) if name in GenerationConfig.__dataclass_fields__}
    options = {"eos_id": None, "pad_id": 0, **given}
    return hypotheses(model, head, prompts, GenerationConfig(**settings), **options)


def encoded(model: Transformer, sources: list[list[int]], left: bool = False) -> dict[str, Tensor]:
    """Memory of padded sources, as arguments of generation."""
    width = max(map(len, sources))
    padding = [[0] * (width - len(row)) for row in sources]
    rows = [gap + row if left else row + gap for gap, row in zip(padding, sources, strict=True)]
    marks = [
        [0] * len(gap) + [1] * len(row) if left else [1] * len(row) + [0] * len(gap)
        for gap, row in zip(padding, sources, strict=True)
    ]
    segments = torch.tensor(marks)
    return {"memory": model.eval().encode(torch.tensor(rows), segments).detach(), "memory_segments": segments}
