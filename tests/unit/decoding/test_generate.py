"""Cached, batched generation gives what the model would give token by token, and leaves nothing behind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.init import init_weights
from lightning_nlp.backbone.transformer import Transformer
from lightning_nlp.decoding.generate import generate
from lightning_nlp.decoding.sampling import GenerationConfig
from lightning_nlp.errors import ConfigError

PROMPTS = [[3, 14, 15], [9], [2, 6, 5, 35, 8, 9, 7], [9, 3]]
VARIANTS = {
    **{positions: {"positions": positions} for positions in ("rotary", "learned", "sinusoidal", "none")},
    "grouped heads": {"n_kv_heads": 2},
    "post-norm": {"norm_placement": "post"},
    "llama-like": {"norm": "rmsnorm", "feedforward": "swiglu", "n_kv_heads": 1},
}


def build(**given: object) -> Transformer:
    torch.manual_seed(0)
    config = TransformerConfig(
        **{"n_layers": 2, "d_model": 32, "n_heads": 4, "vocab_size": 50, "max_length": 32, "init_std": 0.3, **given}
    )
    model = Transformer(config)
    init_weights(model, config)
    return model


def run(model: Transformer, prompts: list[list[int]], **given: object) -> list[list[int]]:
    settings = {name: given.pop(name) for name in list(given) if name in GenerationConfig.__dataclass_fields__}
    head = torch.randn(50, 32, generator=torch.Generator().manual_seed(1))
    options = {"eos_id": None, "pad_id": 0, **given}
    return generate(
        model, lambda hidden: hidden @ head.to(hidden.dtype).T, prompts, GenerationConfig(**settings), **options
    )


@torch.no_grad()
def one_by_one(model: Transformer, prompt: list[int], new: int, **source: Tensor) -> list[int]:
    """Greedy tokens without cache, padding or batch."""
    head = torch.randn(50, 32, generator=torch.Generator().manual_seed(1))
    tokens, training = list(prompt), model.training
    model.eval()
    for _ in range(new):
        tokens.append(int((model(torch.tensor([tokens]), **source)[0, -1] @ head.T).argmax()))
    model.train(training)
    return tokens[len(prompt) :]


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_greedy_tokens_are_those_without_cache_or_batch(variant):
    model = build(**variant)
    expected = [one_by_one(model, prompt, 12) for prompt in PROMPTS]
    assert run(model, PROMPTS, max_new_tokens=12) == expected
    assert [run(model, [prompt], max_new_tokens=12)[0] for prompt in PROMPTS] == expected
    assert len({tuple(row) for row in expected}) > 1


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_an_encoder_decoder_reads_its_memory(variant):
    model = build(arrangement="encoder_decoder", **variant).eval()
    sources = torch.tensor([[7, 8, 9, 0], [1, 2, 3, 4]])
    segments = (sources > 0).long()
    memory = model.encode(sources, segments).detach()
    found = run(model, [[1], [1, 5]], max_new_tokens=10, memory=memory, memory_segments=segments)
    alone = [model.encode(sources[:1, :3]), model.encode(sources[1:])]
    expected = [one_by_one(model, [1], 10, memory=alone[0]), one_by_one(model, [1, 5], 10, memory=alone[1])]
    assert found == expected
    swapped = run(model, [[1], [1, 5]], max_new_tokens=10, memory=memory.flip(0), memory_segments=segments.flip(0))
    assert swapped != found


def test_a_row_stops_at_its_end_token_and_the_others_go_on():
    model = build()
    free = run(model, PROMPTS, max_new_tokens=12)
    eos = free[0][4]
    found = run(model, PROMPTS, max_new_tokens=12, eos_id=eos)
    assert found == [row[: row.index(eos)] if eos in row else row for row in free]
    assert len(found[0]) < max(map(len, found))


@pytest.mark.parametrize("positions", ["rotary", "learned", "sinusoidal", "none"])
def test_rows_end_where_the_model_does(positions):
    model = build(positions=positions, max_length=8)
    prompts = [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [3, 4], [1, 2, 3, 4, 5, 6, 7], [5, 6, 7, 8, 9, 10, 11, 12]]
    found = run(model, prompts, max_new_tokens=99)
    cut = [prompt[-7:] for prompt in prompts]
    assert [len(row) for row in found] == [1, 6, 1, 1]
    assert found == [one_by_one(model, prompt, 8 - len(prompt)) for prompt in cut]


def test_sampling_is_repeatable_and_leaves_the_global_generator_alone():
    model = build()
    before = torch.get_rng_state()
    settings = {"max_new_tokens": 20, "temperature": 1.0, "top_k": 40, "top_p": 0.95}
    first, again, other = (run(model, PROMPTS, seed=seed, **settings) for seed in (5, 5, 6))
    unseeded = [run(model, PROMPTS, **settings) for _ in range(2)]
    assert first == again
    assert first != other
    assert unseeded[0] != unseeded[1]
    assert torch.equal(torch.get_rng_state(), before)


def test_training_modes_return_and_dropout_is_off():
    model = build(dropout=0.5)
    model.train()
    model.decoder.layers[0].eval()
    modes = [child.training for child in model.modules()]
    assert run(model, PROMPTS, max_new_tokens=5) == run(model, PROMPTS, max_new_tokens=5)
    assert [child.training for child in model.modules()] == modes

    def broken(hidden: Tensor) -> Tensor:
        raise RuntimeError("broken head")

    with pytest.raises(RuntimeError, match="broken head"):
        generate(model, broken, PROMPTS, GenerationConfig(), eos_id=None, pad_id=0)
    assert [child.training for child in model.modules()] == modes


def test_tokens_are_announced_as_they_come():
    model, seen = build(), []
    free = run(model, PROMPTS, max_new_tokens=8)
    eos = free[0][3]
    found = run(model, PROMPTS, max_new_tokens=8, eos_id=eos, on_token=seen.append)
    assert [[step[row] for step in seen if step[row] is not None] for row in range(4)] == found


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_generate(dtype):
    found = run(build().to(dtype), PROMPTS, max_new_tokens=6)
    assert [len(row) for row in found] == [6] * 4


def test_empty_prompts():
    model = build()
    assert run(model, []) == []
    with pytest.raises(ConfigError, match="prompt is empty"):
        run(model, [[1], []])
    assert run(model, [[4, 5], []], bos_id=9, max_new_tokens=5) == run(model, [[4, 5], [9]], max_new_tokens=5)


def test_a_model_without_room_is_refused():
    with pytest.raises(ConfigError, match="max_length 1 has no room"):
        run(build(max_length=1), [[1]])


def test_a_source_is_asked_for():
    with pytest.raises(ConfigError, match="needs source_tokens or memory"):
        run(build(arrangement="encoder_decoder"), [[1]])
