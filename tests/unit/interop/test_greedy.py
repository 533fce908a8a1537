"""Greedy continuations of imported models against ``generate`` of transformers."""

from __future__ import annotations

import pytest
import torch

from benchmarks import tiny_models
from lightning_nlp.decoding.generate import generate
from lightning_nlp.decoding.sampling import GenerationConfig
from lightning_nlp.interop.convert import export_model

CAUSAL = [name for name, (kind, _) in tiny_models.PEERS.items() if kind.endswith(("CausalLM", "LMHeadModel"))]
PAIRS = [name for name, (kind, _) in tiny_models.PEERS.items() if kind.endswith(("Generation", "MTModel"))]
NEW = 16


def ours(pair, prompts, eos=None, **memory):
    def scores(hidden):
        return pair.module.head.output(hidden, pair.module.backbone.embedding_weight)

    return generate(
        pair.module.backbone,
        scores,
        prompts,
        GenerationConfig(max_new_tokens=NEW),
        eos_id=eos,
        pad_id=pair.pad,
        **memory,
    )


def theirs(peer, tokens, mask, eos=None, pad=0):
    found = peer.generate(
        tokens, attention_mask=mask, max_new_tokens=NEW, do_sample=False, eos_token_id=eos, pad_token_id=pad
    )
    rows = found[:, 1:] if tiny_models.sources(peer) else found[:, tokens.shape[1] :]
    return [until(row, eos) for row in rows.tolist()]


def until(row, eos):
    return row[: row.index(eos)] if eos in row else row


def left_padded(prompts, pad):
    longest = max(map(len, prompts))
    tokens = torch.tensor([[pad] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return tokens, mask


@pytest.mark.parametrize("name", CAUSAL)
def test_continuations(pair_of, name):
    """Prompts of different lengths in one batch; then with an end token that one of the rows does write."""
    pair = pair_of(name, lively=True)
    prompts = [tiny_models.draw(1, length, seed=length)[0].tolist() for length in (9, 4, 6)]
    tokens, mask = left_padded(prompts, pair.pad)
    wanted = theirs(pair.peer, tokens, mask)
    assert max(len(set(row)) for row in wanted) > 2  # they do not just repeat themselves
    assert ours(pair, prompts) == wanted
    eos = wanted[1][NEW // 2]
    wanted = theirs(pair.peer, tokens, mask, eos)
    assert min(map(len, wanted)) < NEW
    assert ours(pair, prompts, eos) == wanted


@pytest.mark.parametrize("name", PAIRS)
@torch.no_grad()
def test_answers(pair_of, name):
    """Sources of different lengths in one batch, as above."""
    pair = pair_of(name, lively=True)
    sources = [tiny_models.draw(1, length, seed=length)[0].tolist() for length in (9, 4, 6)]
    longest = max(map(len, sources))
    tokens = torch.tensor([source + [pair.pad] * (longest - len(source)) for source in sources])
    mask = torch.tensor([[1] * len(source) + [0] * (longest - len(source)) for source in sources])
    start = pair.module.config.decoder_start_id
    assert start == pair.peer.config.decoder_start_token_id
    memory = {"memory": pair.module.backbone.encode(tokens, mask), "memory_segments": mask}
    wanted = theirs(pair.peer, tokens, mask, pad=pair.pad)
    assert max(len(set(row)) for row in wanted) > 2
    assert ours(pair, [[start]] * 3, **memory) == wanted
    eos = wanted[1][0]
    wanted = theirs(pair.peer, tokens, mask, eos, pad=pair.pad)
    assert min(map(len, wanted)) < NEW
    assert ours(pair, [[start]] * 3, eos, **memory) == wanted


def test_an_exported_model_generates_without_being_told_anything(pair_of, tmp_path):
    """``config.json`` alone says where targets start and that no token ends them."""
    pair = pair_of("bart", lively=True)
    export_model(pair.module, tmp_path / "out")
    peer = type(pair.peer).from_pretrained(tmp_path / "out")
    source = tiny_models.draw(2, 9)
    found = peer.generate(
        source, attention_mask=torch.ones_like(source), max_new_tokens=NEW, do_sample=False, num_beams=1
    )
    memory = {"memory": pair.module.backbone.encode(source), "memory_segments": torch.ones_like(source)}
    assert found[:, 1:].tolist() == ours(pair, [[2]] * 2, **memory)
