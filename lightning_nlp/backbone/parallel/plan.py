"""The one parallel plan of the shared backbone: which part of every layer a tensor-parallel rank holds.

Attention by heads and feed-forward by hidden units, so that a block needs one sum over ranks after each; embedding and
output matrix by vocabulary, so that no rank ever holds all scores (Shoeybi et al. 2019). With ``sequence``, what lies
between (norms, residuals, dropout) is cut along the sequence (Korthikanti et al. 2022): the sums become a scatter and
a gather of the same size, and the memory of those parts is divided too.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from lightning_nlp.backbone.adapters import adapted_layers
from lightning_nlp.backbone.block import Attention, Block, CrossAttention, SelfAttention
from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.output import TokenOutput
from lightning_nlp.backbone.parallel.collectives import Sequence
from lightning_nlp.backbone.parallel.layers import (
    ColumnLinear,
    LocalEmbedding,
    RowLinear,
    VocabularyEmbedding,
    WholeLayerNorm,
    WholeLinear,
    WholeRMSNorm,
)
from lightning_nlp.backbone.parallel.layout import Pieces, Replicate, Shard, deal_out
from lightning_nlp.backbone.parallel.vocabulary import Vocabulary
from lightning_nlp.backbone.positions import ALiBiPositions, RelativePositions
from lightning_nlp.backbone.transformer import Stack, Transformer
from lightning_nlp.errors import ConfigError

CACHE = 5
"""Where the cache is among the arguments of a block."""
WHOLE = {
    nn.Linear: WholeLinear,
    nn.Embedding: LocalEmbedding,
    nn.LayerNorm: WholeLayerNorm,
    nn.RMSNorm: WholeRMSNorm,
}


def check(config: TransformerConfig, ranks: int, sequence: bool) -> None:
    """Raises:
    ConfigError: the architecture cannot be dealt out to ``ranks``; names the field.
    """
    for field in ("n_heads", "n_kv_heads", "d_ff"):
        if getattr(config, field) % ranks:
            value = getattr(config, field)
            raise ConfigError(f"backbone.{field} {value} cannot be dealt out to {ranks} tensor-parallel processes")
    if sequence and config.memory_length:
        raise ConfigError("sequence_parallel does not go with backbone.memory_length: states would be cut")


class TensorParallel:
    """Deals the parameters of a module out, and remembers how.

    Args:
        module: holds the backbone and everything that is used with it; may be on the meta device.
        backbone: the Transformer within.
        mesh: of one dimension.
        sequence: cut the sequence between the parallel parts.

    Raises:
        ConfigError: see :func:`check`; adapters.
    """

    def __init__(self, module: nn.Module, backbone: Transformer, mesh: Any, sequence: bool = False) -> None:
        check(backbone.config, mesh.size(), sequence)
        if adapted_layers(module):
            raise ConfigError("model.adapter does not go with tensor parallelism: take ddp or fsdp2")
        self.mesh, self.group, self.ranks, self.cut = mesh, mesh.get_group(), mesh.size(), sequence
        self.pieces: dict[str, Pieces] = {}
        """Of every fused parameter, by its name in ``module``."""
        self._names = {id(child): name for name, child in module.named_modules()}
        # The whole parameter is kept beside the dealt one: the number of an object that is gone may be given again.
        self._dealt: dict[int, tuple[Tensor, nn.Parameter]] = {}
        assert backbone.config.vocab_size is not None
        self.vocabulary = Vocabulary(backbone.config.vocab_size, self.group)
        for stack in (backbone.encoder, backbone.decoder):
            if stack is not None:
                self._stack(stack)
        backbone.kv_heads //= self.ranks
        self._embedding(backbone.token_embedding)
        for child in module.modules():
            if isinstance(child, TokenOutput):
                self._output(child)
        self._rest(module)
        self._dealt.clear()

    # Parts --------------------------------------------------------------------------------------------------------

    def _stack(self, stack: Stack) -> None:
        sequence = Sequence(self.group) if self.cut else None
        if isinstance(stack.positions, ALiBiPositions):
            each, rank = len(stack.positions.slopes) // self.ranks, self.mesh.get_local_rank()
            stack.positions.slopes = stack.positions.slopes[rank * each : (rank + 1) * each]
        if isinstance(stack.positions, RelativePositions):
            self._become(stack.positions.embedding, LocalEmbedding)
            self._deal(stack.positions.embedding, "weight", Shard(1))
        for layer in stack.layers:
            assert isinstance(layer, Block)
            self._block(layer, sequence)
        if sequence is not None:
            first, last = stack.layers[0], stack.layers[-1]
            first.register_forward_pre_hook(
                lambda _, inputs: (sequence.cut(inputs[0], on=inputs[CACHE] is None), *inputs[1:])
            )
            last.register_forward_hook(lambda *call: sequence.joined(call[2]))

    def _block(self, block: Block, sequence: Sequence | None) -> None:
        self._attention(block.attention, sequence)
        parts: list[nn.Module] = [block.attention, block.feedforward]
        if block.cross_attention is not None:
            self._attention(block.cross_attention, sequence)
            parts.append(block.cross_attention)
        for name, child in block.feedforward.named_children():
            if name == "down":
                self._row(child, sequence)
            elif isinstance(child, nn.Linear):
                self._column(child, None, sequence is None)
        if sequence is not None:
            for part in parts:
                part.register_forward_pre_hook(lambda _, inputs: (sequence.gathered(inputs[0]), *inputs[1:]))
            for child in block.children():  # norms around the parts see this rank's rows
                self._norm(child, partial=True)

    def _attention(self, attention: Attention, sequence: Sequence | None) -> None:
        inner, inner_kv = attention.heads * attention.d_head, attention.kv_heads * attention.d_head
        attention.heads //= self.ranks
        attention.kv_heads //= self.ranks
        whole = sequence is None
        if isinstance(attention, SelfAttention):
            attention.sizes = [size // self.ranks for size in attention.sizes]
            self._column(attention.query_key_value, [inner, inner_kv, inner_kv], whole)
            if (other := getattr(attention, "global_query_key_value", None)) is not None:
                self._column(other, [inner, inner_kv, inner_kv], whole)
        if isinstance(attention, CrossAttention):
            self._column(attention.query, None, whole)
            self._column(attention.key_value, [inner_kv, inner_kv], True)  # the encoder's states are never cut
        self._row(attention.output, sequence)
        for child in (attention.query_norm, attention.key_norm):  # their heads differ from rank to rank
            self._norm(child, partial=True)
        if attention.score_vector is not None:
            self._deal(attention, "score_vector", Shard(0))

    def _embedding(self, embedding: nn.Embedding) -> None:
        self._become(embedding, VocabularyEmbedding)
        embedding.vocabulary = self.vocabulary  # type: ignore[assignment]
        self._deal(embedding, "weight", Shard(0))

    def _output(self, output: TokenOutput) -> None:
        output.vocabulary = self.vocabulary
        if output.matrix is not None:
            self._become(output.matrix, WholeLinear)
            self._deal(output.matrix, "weight", Shard(0))
        if output.bias is not None:
            self._deal(output, "bias", Shard(0))

    def _rest(self, module: nn.Module) -> None:
        """Everything else is whole on every rank, and a DTensor too: optimizers and norms want one kind."""
        for child in module.modules():
            for name, parameter in list(child.named_parameters(recurse=False)):
                if not hasattr(parameter, "to_local"):
                    if type(child) in WHOLE:
                        self._become(child, WHOLE[type(child)])
                        child.group = None  # type: ignore[assignment]
                    self._deal(child, name, Replicate())

    # One module ---------------------------------------------------------------------------------------------------

    def _column(self, linear: Any, pieces: Pieces | None, copied: bool) -> None:
        self._become(linear, ColumnLinear)
        linear.group = self.group if copied else None
        for name in ("weight", "bias"):
            self._deal(linear, name, Shard(0), pieces)

    def _row(self, linear: Any, sequence: Sequence | None) -> None:
        self._become(linear, RowLinear)
        linear.group, linear.sequence = self.group, sequence
        self._deal(linear, "weight", Shard(1))

    def _norm(self, norm: nn.Module | None, partial: bool) -> None:
        if norm is not None and type(norm) in WHOLE and not isinstance(norm, nn.Linear | nn.Embedding):
            self._become(norm, WHOLE[type(norm)])
            norm.group = self.group if partial else None  # type: ignore[assignment]

    def _become(self, module: nn.Module, kind: type[nn.Module]) -> None:
        module.__class__ = kind

    def _deal(self, owner: nn.Module, name: str, placement: Any, pieces: Pieces | None = None) -> None:
        parameter = owner._parameters[name]
        if parameter is None:
            return
        if id(parameter) not in self._dealt:  # shared parameters stay shared
            dealt = deal_out(parameter, self.mesh, placement, pieces)
            self._dealt[id(parameter)] = parameter, nn.Parameter(dealt, parameter.requires_grad)
        owner._parameters[name] = self._dealt[id(parameter)][1]
        if pieces is not None:
            self.pieces[f"{self._names[id(owner)]}.{name}"] = pieces
