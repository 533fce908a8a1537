"""Models to measure beside ours: the same shape, from PyPI parts.

``nano`` is the model that nanoGPT trains, written anew: pre-norm blocks without biases, one matrix for queries, keys
and values, PyTorch's attention, exact GELU, the output matrix tied to the embedding, cross-entropy over all logits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.harness import missing


@dataclass(frozen=True)
class Shape:
    """Of a GPT-2 and its batch."""

    layers: int
    width: int
    heads: int
    length: int
    vocabulary: int
    batch: int


Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""``(model, tokens [B, T], labels [B, T]) -> mean loss``."""


class Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.project_in = nn.Linear(shape.width, 3 * shape.width, bias=False)
        self.project_out = nn.Linear(shape.width, shape.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.project_in(x).split(x.shape[-1], dim=2)
        query, key, value = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.project_out(mixed.transpose(1, 2).contiguous().flatten(2))


class Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.first_norm = nn.LayerNorm(shape.width, bias=False)
        self.attention = Attention(shape)
        self.second_norm = nn.LayerNorm(shape.width, bias=False)
        self.up = nn.Linear(shape.width, 4 * shape.width, bias=False)
        self.down = nn.Linear(4 * shape.width, shape.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.first_norm(x))
        return x + self.down(F.gelu(self.up(self.second_norm(x))))


class Nano(nn.Module):
    """See the module's text."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.positions = nn.Embedding(shape.length, shape.width)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width, bias=False)
        self.head = nn.Linear(shape.width, shape.vocabulary, bias=False)
        self.head.weight = self.tokens.weight
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens: Tensor, labels: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1]))
        for layer in self.layers:
            x = layer(x)
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-1)


def nano(shape: Shape) -> tuple[nn.Module, Loss]:
    return Nano(shape), lambda model, tokens, labels: model(tokens, labels)


def transformers(shape: Shape) -> tuple[nn.Module, Loss]:
    """GPT2LMHeadModel as it is published, dropout off."""
    try:
        from transformers import GPT2Config, GPT2LMHeadModel
    except ImportError as error:
        missing(f"transformers: {error}")
    config = GPT2Config(
        vocab_size=shape.vocabulary,
        n_positions=shape.length,
        n_embd=shape.width,
        n_layer=shape.layers,
        n_head=shape.heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
        attn_implementation="sdpa",
    )
    return GPT2LMHeadModel(config), lambda model, tokens, labels: model(input_ids=tokens, labels=labels).loss


def litgpt(shape: Shape) -> tuple[nn.Module, Loss]:
    """litgpt's GPT: rotary positions, LayerNorm, GELU, an output matrix of its own."""
    try:
        from litgpt.config import Config
        from litgpt.model import GPT
    except ImportError as error:
        missing(f"litgpt: {error} (pip install --no-deps litgpt)")
    config = Config(
        block_size=shape.length,
        vocab_size=shape.vocabulary,
        padded_vocab_size=shape.vocabulary,
        n_layer=shape.layers,
        n_head=shape.heads,
        n_embd=shape.width,
        bias=False,
        norm_class_name="LayerNorm",
        mlp_class_name="GptNeoxMLP",
        rotary_percentage=1.0,
    )

    def loss(model: nn.Module, tokens: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(model(tokens).flatten(0, 1), labels.flatten())

    return GPT(config), loss


def ours(shape: Shape) -> tuple[nn.Module, Loss]:
    """Our backbone in the shape of GPT-2, and our loss."""
    from lightning_nlp.backbone.config import TransformerConfig
    from lightning_nlp.backbone.init import init_weights
    from lightning_nlp.backbone.loss import linear_cross_entropy
    from lightning_nlp.backbone.transformer import Transformer

    config = TransformerConfig(
        n_layers=shape.layers,
        d_model=shape.width,
        n_heads=shape.heads,
        max_length=shape.length,
        vocab_size=shape.vocabulary,
        positions="learned",
    )
    model = Transformer(config)
    init_weights(model, config)

    def loss(model: nn.Module, tokens: Tensor, labels: Tensor) -> Tensor:
        hidden = model(tokens)
        total, count = linear_cross_entropy(hidden.flatten(0, 1), model.embedding_weight, labels.flatten())  # type: ignore[arg-type]
        return total / count

    return model, loss


MODELS: dict[str, Callable[[Shape], tuple[nn.Module, Loss]]] = {
    "ours": ours,
    "nano": nano,
    "transformers": transformers,
    "litgpt": litgpt,
}
