"""Computing in bfloat16 from float32 masters: gradients near float64, sums in float32, nothing of the module changed."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from lightning_nlp.optim.master_weights import MasterWeights


class Network(nn.Module):
    """An embedding tied to the output, norms, linear layers with biases."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(50, 16, padding_idx=0)
        self.block = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16), nn.RMSNorm(16))
        self.output = nn.Linear(16, 50)
        self.output.weight = self.embedding.weight
        self.recompute = False
        self.seen = []

    def forward(self, tokens):
        x = self.embedding(tokens)
        x = checkpoint(self.block, x, use_reentrant=False) if self.recompute else self.block(x)
        self.seen.append((x.dtype, self.block[1].weight.dtype))
        return nn.functional.cross_entropy(self.output(x).flatten(0, -2).float(), tokens.flatten())


TOKENS = torch.arange(0, 4 * 64).remainder(50).view(4, 64)


def gradients(network, weights=None, tokens=TOKENS):
    network.zero_grad()
    if weights is None:
        network(tokens).backward()
    else:
        with weights.computing():
            loss = network(tokens)
        with weights.recomputing():
            loss.backward()
    return {name: parameter.grad.clone() for name, parameter in network.named_parameters()}


def distance(found, expected):
    return float((found.double() - expected).norm() / expected.norm())


def test_gradients_are_near_float64_and_float32_themselves():
    network = Network()
    expected = gradients(copy.deepcopy(network).double())
    found = gradients(network, MasterWeights(network))
    assert network.seen[-1] == (torch.bfloat16, torch.bfloat16)
    for name, value in found.items():
        assert value.dtype == torch.float32
        assert distance(value, expected[name]) < 0.02, name  # bfloat16 has steps of 0.8 %


def test_the_module_is_itself_again_also_after_an_error():
    network = Network()
    before = {name: (value.data_ptr(), value.dtype) for name, value in network.state_dict().items()}
    weights = MasterWeights(network)
    with pytest.raises(IndexError), weights.computing():
        network(torch.tensor([[99]]))
    assert {name: (value.data_ptr(), value.dtype) for name, value in network.state_dict().items()} == before
    assert all(isinstance(value, nn.Parameter) for value in network.parameters())
    assert "forward" not in vars(network.embedding) and "forward" not in vars(network.block[0])
    assert network.output.weight is network.embedding.weight


def test_frequent_tokens_are_summed_in_float32():
    """1024 equal gradients: a bfloat16 sum of ones stops at 256."""
    network = nn.Embedding(3, 4)
    weights = MasterWeights(network)
    tokens = torch.ones(1024, dtype=torch.long)
    with weights.computing():
        network(tokens).sum().backward()
    assert network.weight.grad.tolist() == [[0.0] * 4, [1024.0] * 4, [0.0] * 4]
    narrow = copy.deepcopy(network).bfloat16()
    narrow.zero_grad()
    narrow(tokens).sum().backward()
    assert narrow.weight.grad[1].tolist() == [256.0] * 4  # what is avoided


def test_padding_gets_no_gradient():
    network = Network()
    network.output = nn.Linear(16, 50)  # else the tied output gives it one
    found = gradients(network, MasterWeights(network))
    assert not found["embedding.weight"][0].any() and found["embedding.weight"][1].any()


def test_gains_of_layer_norms_are_summed_in_float32():
    torch.manual_seed(0)
    network, x = nn.LayerNorm(32), torch.randn(4096, 32).bfloat16()
    slope = (torch.randn(4096, 32) + 0.02).bfloat16()
    wide = copy.deepcopy(network).double()
    wide(x.double()).backward(slope.double())
    narrow = copy.deepcopy(network).bfloat16()
    narrow(x).backward(slope)
    with MasterWeights(network).computing():
        network(x).backward(slope)
    for name in ("weight", "bias"):
        expected = getattr(wide, name).grad
        assert distance(getattr(network, name).grad, expected) < 1e-5
        assert distance(getattr(narrow, name).grad, expected) > 0.02  # what is avoided


def test_micro_batches_are_summed_in_float32():
    network = Network()
    weights = MasterWeights(network)
    parts = [gradients(network, weights, tokens[None]) for tokens in TOKENS]
    network.zero_grad()
    for tokens in TOKENS:
        with weights.computing():
            network(tokens[None]).backward()
    for name, parameter in network.named_parameters():
        expected = sum(part[name].double() for part in parts)
        assert distance(parameter.grad, expected) < 1e-6, name


@pytest.mark.parametrize("fused", [True, False])
def test_steps_too_small_for_bfloat16_are_kept(fused):
    network = nn.Linear(4, 1, bias=False)
    nn.init.ones_(network.weight)
    weights = MasterWeights(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=0.0, fused=fused)
    outputs = []
    for _ in range(100):
        optimizer.zero_grad()
        with weights.computing():
            loss = network(torch.ones(4, dtype=torch.bfloat16)).sum()
        loss.backward()
        optimizer.step()
        weights.changed()
        outputs.append(loss.item())
    torch.testing.assert_close(network.weight, torch.full((1, 4), 0.99), rtol=0, atol=1e-5)  # Adam: lr a step
    assert outputs[0] == 4.0 and outputs[-1] == 4 * float(torch.tensor(0.99).bfloat16())


def test_other_changes_are_noticed():
    network = nn.Linear(2, 2, bias=False)
    weights = MasterWeights(network)
    x = torch.ones(2, dtype=torch.bfloat16)

    def output():
        with weights.computing():
            return network(x).tolist()

    output()
    network.load_state_dict({"weight": torch.full((2, 2), 3.0)})
    assert output() == [6.0, 6.0]
    network.load_state_dict({"weight": torch.full((2, 2), 4.0)}, assign=True)  # other tensors altogether
    assert output() == [8.0, 8.0]
    network.weight = nn.Parameter(torch.full((2, 2), 5.0))
    assert output() == [10.0, 10.0]


def test_validation_first_then_training():
    network = Network()
    weights = MasterWeights(network)
    with torch.inference_mode(), weights.computing():
        network(TOKENS)
    assert network.seen[-1][0] == torch.bfloat16
    found = gradients(network, weights)
    again = gradients(network, MasterWeights(network))
    torch.testing.assert_close(found, again, rtol=0, atol=0)


def test_frozen_parameters_compute_too():
    network = Network()
    network.block[1].requires_grad_(False)
    with MasterWeights(network).computing():
        network(TOKENS).backward()
    assert network.block[1].weight.grad is None and network.block[3].weight.grad is not None
    assert network.seen[-1] == (torch.bfloat16, torch.bfloat16)


def test_recomputed_blocks_give_the_same_gradients():
    network = Network()
    weights = MasterWeights(network)
    expected = gradients(network, weights)
    network.recompute = True
    torch.testing.assert_close(gradients(network, weights), expected, rtol=0, atol=0)
    with weights.computing():
        loss = network(TOKENS)
    with pytest.raises((RuntimeError, torch.utils.checkpoint.CheckpointError)):
        loss.backward()  # outside, the block would meet float32 weights
