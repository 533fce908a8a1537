"""Memory carried from row to row: a long text read in pieces gives what reading it at once gives."""

from __future__ import annotations

import pytest
import torch

from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.recurrence import Recurrence
from lightning_nlp.backbone.transformer import Transformer
from lightning_nlp.errors import ConfigError

KINDS = [
    {},
    {"positions": "alibi"},
    {"positions": "relative"},
    {"positions": "none"},
    {"norm_placement": "post"},
    {"norm_placement": "sandwich"},
    {"parallel_residual": True},
    {"n_kv_heads": 1, "qk_norm": True, "rotary_share": 0.5},
    {"window": 5},
    {"attention": "additive", "positions": "none"},
]


def model(**given) -> Transformer:
    torch.manual_seed(0)
    shape = {"n_layers": 3, "d_model": 16, "n_heads": 2, "vocab_size": 30, "pad_id": 0}
    return Transformer(TransformerConfig(**{**shape, **given})).double().eval()


def read(network: Transformer, rows: list[torch.Tensor], segments: list[torch.Tensor], continues: list[list[bool]]):
    """Rows ``[B, T]`` one after the other; batch row b is lane b."""
    recurrence, outputs = network.new_recurrence(), []
    lanes = list(range(len(rows[0])))
    for tokens, numbers, goes_on in zip(rows, segments, continues, strict=True):
        carried = recurrence.enter(lanes, torch.tensor(goes_on), numbers, torch.float64)
        outputs.append(network(tokens, segments=numbers, carried=carried))
        recurrence.leave(lanes, carried, numbers)
    return outputs


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_pieces_with_all_of_the_past_equal_the_whole(kind):
    network = model(memory_length=24, **kind)
    tokens = torch.randint(1, 30, (2, 24))
    whole = network(tokens)
    pieces = list(tokens.split(6, dim=1))
    ones = [torch.ones_like(piece) for piece in pieces]
    found = read(network, pieces, ones, [[False] * 2, *[[True] * 2] * 3])
    torch.testing.assert_close(torch.cat(found, dim=1), whole, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("memory", [1, 4, 9])
def test_one_layer_sees_just_as_far_as_its_memory(memory):
    network = model(memory_length=memory, n_layers=1)
    tokens = torch.randint(1, 30, (1, 18))
    pieces = list(tokens.split(6, dim=1))
    found = read(network, pieces, [torch.ones_like(p) for p in pieces], [[False], [True], [True]])
    for place in range(18):
        row_start = place // 6 * 6
        first = max(0, row_start - memory)
        alone = network(tokens[:, first : place + 1])[:, -1]
        torch.testing.assert_close(found[place // 6][:, place % 6], alone, atol=1e-10, rtol=1e-10)


def test_what_is_remembered_ends_with_its_document():
    """Row 1: end of document a, all of b, start of c. Row 2: the rest of c, then d; elsewhere a new document starts."""
    network = model(memory_length=8)
    a, b, c, d = (torch.randint(1, 30, (1, n)) for n in (9, 3, 7, 4))
    rows = [a[:, :6], torch.cat([a[:, 6:], b], 1), torch.cat([c[:, :6]], 1), torch.cat([c[:, 6:], d, d[:, :1]], 1)]
    segments = [[1] * 6, [1] * 3 + [2] * 3, [1] * 6, [1] + [2] * 4 + [3]]
    found = read(network, rows, [torch.tensor([s]) for s in segments], [[False], [True], [False], [True]])
    whole_a, whole_c = network(a), network(c)
    torch.testing.assert_close(found[0], whole_a[:, :6])
    torch.testing.assert_close(found[1][:, :3], whole_a[:, 6:], atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(found[1][:, 3:], network(b), atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(found[2], whole_c[:, :6], atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(found[3][:, :1], whole_c[:, 6:], atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(found[3][:, 1:5], network(d), atol=1e-10, rtol=1e-10)


def test_lanes_do_not_mix_and_padding_rows_leave_nothing():
    network = model(memory_length=6)
    tokens = torch.randint(1, 30, (2, 12))
    whole = network(tokens)
    recurrence, ones = network.new_recurrence(), torch.ones(2, 6, dtype=torch.long)
    for lanes, columns in (([7, 3], slice(0, 6)), ([3, 7], slice(6, 12))):
        rows = tokens[:, columns] if lanes[0] == 7 else tokens[:, columns].flip(0)
        carried = recurrence.enter(lanes, torch.tensor([True, True]), ones, torch.float64)
        output = network(rows, segments=ones, carried=carried)
        recurrence.leave(lanes, carried, ones)
    torch.testing.assert_close(output.flip(0), whole[:, 6:], atol=1e-10, rtol=1e-10)
    carried = recurrence.enter([-1], torch.tensor([True]), ones[:1], torch.float64)
    assert not carried.segments.any()
    network(tokens[:1, :6], segments=ones[:1], carried=carried)
    recurrence.leave([-1], carried, ones[:1])
    assert sorted(recurrence.lanes) == [3, 7]


def test_no_gradient_goes_into_the_past_but_keys_of_the_past_are_trained():
    network = model(memory_length=6, n_layers=2)
    tokens, ones = torch.randint(1, 30, (1, 12)), torch.ones(1, 6, dtype=torch.long)
    recurrence = network.new_recurrence()
    first = recurrence.enter([0], torch.tensor([False]), ones, torch.float64)
    network(tokens[:, :6], segments=ones, carried=first)
    recurrence.leave([0], first, ones)
    second = recurrence.enter([0], torch.tensor([True]), ones, torch.float64)
    assert not any(state.requires_grad for state in second.states)
    network.zero_grad()
    network(tokens[:, 6:], segments=ones, carried=second)[:, :1].sum().backward()
    rows = network.token_embedding.weight.grad.abs().sum(1) > 0
    assert set(rows.nonzero().flatten().tolist()) <= set(tokens[0, 6:].tolist())
    assert network.decoder.layers[0].attention.query_key_value.weight.grad[16:].abs().sum() > 0


def test_states_come_back_from_a_checkpoint():
    network = model(memory_length=6)
    tokens, ones = torch.randint(1, 30, (2, 6)), torch.ones(2, 6, dtype=torch.long)
    recurrence = network.new_recurrence()
    carried = recurrence.enter([0, 1], torch.tensor([False, False]), ones, torch.float64)
    network(tokens, segments=ones, carried=carried)
    recurrence.leave([0, 1], carried, ones)
    again = Recurrence(3, 6, 16)
    again.load_state_dict(recurrence.state_dict())
    for lane in (0, 1):
        for ours, theirs in zip(again.lanes[lane], recurrence.lanes[lane], strict=True):
            assert torch.equal(ours, theirs)


def test_refusals():
    with pytest.raises(ConfigError, match="memory_length is 0"):
        model().new_recurrence()
    network = model(memory_length=4)
    carried = network.new_recurrence().enter([0], torch.tensor([False]), torch.ones(1, 3), torch.float64)
    with pytest.raises(ConfigError, match="give one"):
        network(torch.ones(1, 3, dtype=torch.long), cache=network.new_cache(1, 4), carried=carried)
