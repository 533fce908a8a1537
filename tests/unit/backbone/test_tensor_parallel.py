"""A model dealt out to processes has the losses, states and gradients of the same model whole, in float64."""

from __future__ import annotations

import copy
import os
import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import nn
from torch.distributed.device_mesh import init_device_mesh

from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.init import init_weights
from lightning_nlp.backbone.output import TokenOutput
from lightning_nlp.backbone.parallel.layout import dealt, to_whole
from lightning_nlp.backbone.parallel.plan import TensorParallel, check
from lightning_nlp.backbone.recompute import recompute
from lightning_nlp.backbone.transformer import Transformer
from lightning_nlp.errors import ConfigError

SHAPE = {"vocab_size": 53, "n_layers": 2, "d_model": 32, "n_heads": 4, "max_length": 32}
CASES = {
    "decoder": {},
    "grouped heads, gates": {
        **{"n_kv_heads": 2, "norm": "rmsnorm", "feedforward": "swiglu"},
        **{"qk_norm": True, "tie_embeddings": False},
    },
    "alibi, side by side": {
        **{"positions": "alibi", "parallel_residual": True},
        **{"attention_softcap": 5.0, "output_softcap": 10.0},
    },
    "encoder, T5 biases": {
        **{"arrangement": "encoder", "positions": "relative", "norm_placement": "post"},
        **{"output_transform": True, "output_bias": True, "token_types": 2},
    },
    "encoder-decoder": {"arrangement": "encoder_decoder", "positions": "learned", "norm_placement": "sandwich"},
    "additive": {"attention": "additive", "positions": "sinusoidal"},
    "longformer": {"arrangement": "encoder", "window": 4, "global_tokens": 1},
}


class Model(nn.Module):
    """A backbone and its output layer; the loss of both, and the hidden states."""

    def __init__(self, config):
        super().__init__()
        self.backbone, self.output = Transformer(config), TokenOutput(config)

    def forward(self, batch):
        source = {"source_tokens": batch["source"]} if self.backbone.config.arrangement == "encoder_decoder" else {}
        hidden = self.backbone(batch["tokens"], segments=batch["segments"], **source)
        weight = self.backbone.embedding_weight
        loss, count = self.output.loss(
            hidden.flatten(0, 1), weight, batch["labels"].flatten(), label_smoothing=0.1, z_loss=0.01
        )
        return loss, hidden, self.output(hidden[:, -1], weight)


def batch_of():
    draw = torch.Generator().manual_seed(5)
    batch = {name: torch.randint(1, 53, (3, 13), generator=draw) for name in ("tokens", "labels", "source")}
    batch["segments"] = torch.ones(3, 13, dtype=torch.long)
    batch["segments"][1, 9:], batch["labels"][1, 8:] = 0, -100
    return batch


def compare(name, mesh, sequence, again):
    torch.manual_seed(0)
    config = TransformerConfig(**{**SHAPE, **CASES[name]})
    whole = Model(config)
    init_weights(whole, config)
    for parameter in whole.parameters():
        if parameter.ndim == 1:  # gains of 1 and biases of 0 would hide a mistake
            nn.init.normal_(parameter, mean=float(parameter.detach().mean()), std=0.1)
    whole.double()
    parts = copy.deepcopy(whole)
    plan = TensorParallel(parts, parts.backbone, mesh, sequence)
    if again:
        for block in parts.backbone.blocks():
            recompute(block, again)
    ours, theirs = parts(batch_of()), whole(batch_of())
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
    ours[0].backward(), theirs[0].backward()
    expected = dict(whole.named_parameters())
    for key, parameter in parts.named_parameters():
        pieces = plan.pieces.get(key)
        assert torch.equal(to_whole(parameter.detach(), pieces, mesh.size()), expected[key])
        torch.testing.assert_close(
            to_whole(parameter.grad, pieces, mesh.size()), expected[key].grad, rtol=0, atol=1e-10, msg=f"{name}: {key}"
        )


def work(rank, world, port):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=world)
    torch.set_num_threads(1)
    mesh = init_device_mesh("cpu", (world,))
    for number, name in enumerate(CASES):
        for sequence in (False, True):
            compare(name, mesh, sequence, ("", "full", "selective")[number % 3])
    dist.destroy_process_group()


def test_two_processes_do_what_one_does():
    """53 tokens and 13 positions do not divide by two."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.start_processes(work, (2, port), nprocs=2, start_method="fork")


def test_rows_of_fused_matrices_are_dealt_out_piece_by_piece():
    assert dealt([4, 2, 2], 2).tolist() == [0, 1, 4, 6, 2, 3, 5, 7]
    assert dealt([3, 3], 3).tolist() == [0, 3, 1, 4, 2, 5]


@pytest.mark.parametrize(
    ("field", "options", "ranks"),
    [
        ("n_heads 4", {}, 3),
        ("n_kv_heads 2", {"n_kv_heads": 2}, 4),
        ("d_ff 50", {"d_ff": 50}, 4),
    ],
)
def test_what_does_not_divide_is_named(field, options, ranks):
    with pytest.raises(ConfigError, match=f"backbone.{field} cannot be dealt out to {ranks} tensor-parallel processes"):
        check(TransformerConfig(**{**SHAPE, **options}), ranks, False)


def test_a_carried_memory_is_not_cut():
    with pytest.raises(ConfigError, match=r"sequence_parallel does not go with backbone\.memory_length"):
        check(TransformerConfig(**SHAPE, memory_length=8), 2, True)
