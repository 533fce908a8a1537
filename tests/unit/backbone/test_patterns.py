"""Attention patterns and scores, every kernel that computes them, against the plain mathematics in float64."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from lightning_nlp.backbone import attention, gpu
from lightning_nlp.backbone.attention import Scoring, attend, banded, products, reference
from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.masks import AttentionMask
from lightning_nlp.backbone.positions import POSITIONS
from lightning_nlp.backbone.transformer import Transformer
from lightning_nlp.errors import ConfigError

T = 29
SEGMENTS = {
    "no segments": None,
    "documents": [[1] * 12 + [2] * 17, [1] * 3 + [2] * 20 + [3] * 4 + [0] * 2],
    "left padding": [[0] * 9 + [1] * 20, [1] * 29],
    "right padding": [[1] * 21 + [0] * 8, [1] * 29],
    "an empty row": [[0] * 29, [1] * 29],
}
TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-5, torch.bfloat16: 8e-2}


def inputs(heads=(4, 2), queries=T, keys=T, width=8):
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, heads[0], queries, width), (2, heads[1], keys, width), (2, heads[1], keys, width)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def assert_equal_to_reference(function, mask, dtype=torch.float64, scoring=None, keep=None, **shape):
    """Values and gradients of ``function`` for rows that see something."""
    scoring = scoring or (lambda dtype: Scoring())
    tensors = [x.to(dtype).double() for x in inputs(**shape)]
    queries, keys = tensors[0].shape[2], tensors[1].shape[2]
    seen = mask.dense(queries, keys, torch.device("cpu")).any(-1)[:, :, :, None]
    seen = seen if keep is None else seen & keep
    weights = torch.linspace(-1, 1, tensors[0].numel(), dtype=torch.float64).view_as(tensors[0])
    results = []
    for kernel, kind in ((reference, torch.float64), (function, dtype)):
        leaves = [x.to(kind, copy=True).requires_grad_() for x in tensors]
        output = kernel(*leaves, mask, 0.0, scoring(kind)).where(seen, 0)
        (output.double() * weights).sum().backward()
        results.append([output, *(leaf.grad for leaf in leaves)])
    for expected, found in zip(*results, strict=True):
        assert torch.isfinite(found).all()
        torch.testing.assert_close(found.double(), expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


def test_a_window_on_paper():
    causal = AttentionMask(True, window=2).dense(4, 4, torch.device("cpu"))[0, 0].long().tolist()
    assert causal == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    both = AttentionMask(False, window=2).dense(4, 4, torch.device("cpu"))[0, 0].long().tolist()
    assert both == [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 1]]


def test_a_prefix_on_paper():
    prefix = torch.tensor([[True, True, False, False]])
    mask = AttentionMask(True, prefix=prefix).dense(4, 4, torch.device("cpu"))[0, 0].long().tolist()
    assert mask == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]


def test_global_keys_on_paper():
    spots = torch.tensor([[True, False, False, False]])
    mask = AttentionMask(False, window=1, global_keys=spots).dense(4, 4, torch.device("cpu"))[0, 0].long().tolist()
    assert mask == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1]]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both ways"])
@pytest.mark.parametrize("window", [1, 3, 8, 40])
@pytest.mark.parametrize("layout", SEGMENTS)
def test_windows(layout, window, causal, dtype):
    segments = None if SEGMENTS[layout] is None else torch.tensor(SEGMENTS[layout])
    assert_equal_to_reference(attend, AttentionMask(causal, segments, window=window), dtype)


@pytest.mark.parametrize("prefixed", [False, True])
@pytest.mark.parametrize("globals_", [False, True])
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both ways"])
@pytest.mark.parametrize("window", [1, 4, 11])
@pytest.mark.parametrize("layout", SEGMENTS)
def test_the_band_is_the_window(monkeypatch, layout, window, causal, globals_, prefixed):
    monkeypatch.setattr(attention, "BAND_BLOCK", 5)
    segments = None if SEGMENTS[layout] is None else torch.tensor(SEGMENTS[layout])
    spots = torch.zeros(2, T, dtype=torch.bool)
    spots[0, [3, 15]] = True
    spots[1, [4, 5, 28]] = True
    prefix = torch.arange(T)[None] < torch.tensor([[6], [0]])
    mask = AttentionMask(
        causal, segments, window=window, global_keys=spots if globals_ else None, prefix=prefix if prefixed else None
    )
    assert_equal_to_reference(banded, mask)


def test_a_long_row_with_a_narrow_window_takes_the_band(monkeypatch):
    called = []
    monkeypatch.setattr(attention, "banded", lambda *args: (called.append(1), args[0])[1])
    x = torch.zeros(1, 2, 512, 8)
    attend(x, x, x, AttentionMask(True, window=16))
    assert called == [1]
    attend(x, x, x, AttentionMask(True, window=400))
    attend(x, x, x, AttentionMask(True))
    assert called == [1]


@pytest.mark.parametrize("layout", SEGMENTS)
def test_prefixes(layout):
    segments = None if SEGMENTS[layout] is None else torch.tensor(SEGMENTS[layout])
    prefix = torch.zeros(2, T, dtype=torch.bool)
    prefix[0, 2:7] = prefix[1, 20:25] = True
    assert_equal_to_reference(attend, AttentionMask(True, segments, prefix=prefix))


def scorings():
    vector = torch.linspace(-1, 1, 32, dtype=torch.float64).view(4, 8)

    def bias(kind, causal, queries, keys):
        few = {"relative_buckets": 8, "relative_distance": 20} if kind == "relative" else {}
        config = TransformerConfig(positions=kind, n_heads=4, d_model=32, **few)
        part = POSITIONS[kind](config, causal)
        if kind == "relative":
            weight = torch.linspace(-2, 2, 32, dtype=torch.float64).view(8, 4)
            part.embedding.weight = torch.nn.Parameter(weight)
        index = torch.arange(keys)[None]
        return part.bias(index[:, keys - queries :], index)

    return {
        "scale": lambda c, q, k: lambda dtype: Scoring(scale=0.7),
        "softcap": lambda c, q, k: lambda dtype: Scoring(softcap=1.5),
        "additive": lambda c, q, k: lambda dtype: Scoring(vector=vector.to(dtype)),
        "alibi": lambda c, q, k: lambda dtype: Scoring(bias=bias("alibi", c, q, k)),
        "relative": lambda c, q, k: lambda dtype: Scoring(scale=1.0, bias=bias("relative", c, q, k)),
        "all but additive": lambda c, q, k: lambda dtype: Scoring(0.3, 2.0, None, bias("relative", c, q, k)),
        "additive, capped and biased": lambda c, q, k: (
            lambda dtype: Scoring(None, 2.0, vector.to(dtype), bias("alibi", c, q, k))
        ),
    }


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both ways"])
@pytest.mark.parametrize("name", scorings())
@pytest.mark.parametrize("layout", SEGMENTS)
def test_scores(monkeypatch, layout, name, causal, window, dtype):
    monkeypatch.setattr(attention, "BAND_BLOCK", 5)  # so that the window is computed as a band
    segments = None if SEGMENTS[layout] is None else torch.tensor(SEGMENTS[layout])
    mask = AttentionMask(causal, segments, window=window)
    keep = None if segments is None else (segments > 0)[:, None, :, None]
    assert_equal_to_reference(attend, mask, dtype, scorings()[name](causal, T, T), keep)


@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("name", scorings())
def test_new_tokens_after_a_cache(name, window, queries):
    mask = AttentionMask(queries > 1, offset=T - queries, window=window)
    assert_equal_to_reference(attend, mask, scoring=scorings()[name](True, queries, T), queries=queries)


def test_gradients_reach_the_bias_and_the_score_vector():
    x = inputs()
    for window, layout in itertools.product((None, 4), ("no segments", "documents")):
        segments = None if SEGMENTS[layout] is None else torch.tensor(SEGMENTS[layout])
        config = TransformerConfig(positions="relative", n_heads=4, d_model=32)
        part = POSITIONS["relative"](config, True).double()
        index = torch.arange(T)[None]
        found = []
        for function in (reference, attend):
            vector = torch.ones(4, 8, dtype=torch.float64, requires_grad=True)
            part.zero_grad()
            scoring = Scoring(vector=vector, bias=part.bias(index, index))
            mask = AttentionMask(True, segments, window=window)
            real = torch.ones(2, T, dtype=torch.bool) if segments is None else segments > 0
            output = function(*x, mask, 0.0, scoring).where(real[:, None, :, None], 0)
            (output * torch.linspace(0, 1, 8, dtype=torch.float64)).sum().backward()
            found.append((vector.grad, part.embedding.weight.grad))
        for ours, theirs in zip(*found, strict=True):
            assert theirs.abs().max() > 1e-4
            torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-10)


def test_additive_scores_on_paper():
    query, key = torch.tensor([[[[0.5]]]]), torch.tensor([[[[0.1], [-0.4]]]])
    value = torch.tensor([[[[1.0], [3.0]]]])
    scores = [2 * math.tanh(0.6), 2 * math.tanh(0.1)]
    second = 1 / (1 + math.exp(scores[0] - scores[1]))
    found = products(query, key, value, None, False, 0.0, Scoring(vector=torch.tensor([[2.0]])))
    assert found.item() == pytest.approx(1 + 2 * second, abs=1e-6)


# Kernels of a GPU, with stand-ins that a CPU can run ------------------------------------------------------------


def ragged(query, key, value, ends_q, ends_k, longest_q, longest_k, *, scale, window_size, enable_gqa):
    """What the variable-length kernel documents that it computes, document by document."""
    assert longest_q == max((ends_q[1:] - ends_q[:-1]).tolist()) and torch.equal(ends_q, ends_k)
    outputs = []
    for start, stop in itertools.pairwise(ends_q.tolist()):
        parts = [x[start:stop].transpose(0, 1)[None] for x in (query, key, value)]
        left, right = window_size
        mask = AttentionMask(right == 0, window=None if left == -1 else left + 1)
        outputs.append(reference(*parts, mask, 0.0, Scoring(scale))[0].transpose(0, 1))
    assert enable_gqa == (key.shape[1] != query.shape[1])
    return torch.cat(outputs)


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both ways"])
@pytest.mark.parametrize("window", [None, 4])
def test_documents_in_one_call(window, causal):
    mask = AttentionMask(causal, torch.tensor(SEGMENTS["documents"]), window=window)
    run = lambda q, k, v, mask, dropout, scoring: gpu.documents_in_one(q, k, v, mask, scoring.scale, ragged)  # noqa: E731
    assert_equal_to_reference(run, mask)


@pytest.mark.parametrize("name", ["scale", "softcap", "alibi", "all but additive"])
@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("layout", SEGMENTS)
def test_flexible_attention(layout, window, name):
    from torch.nn.attention.flex_attention import flex_attention

    segments = None if SEGMENTS[layout] is None else torch.tensor(SEGMENTS[layout])
    mask = AttentionMask(True, segments, window=window, prefix=torch.arange(T)[None].expand(2, -1) < 5)
    scoring = scorings()[name](True, T, T)(torch.float64)
    tensors = inputs(width=16)  # FlexAttention wants heads of at least 16
    if name == "all but additive":
        scoring = Scoring(scoring.scale, scoring.softcap, None, scoring.bias)
    with torch.no_grad():  # no backward on a CPU
        found = gpu.flexible(*tensors, mask, scoring, flex_attention)
        expected = reference(*tensors, mask, 0.0, scoring)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)


# In a model -----------------------------------------------------------------------------------------------------

VARIANTS = [
    {"window": 3},
    {"window": 3, "full_attention_every": 2},
    {"attention": "additive", "positions": "learned"},
    {"qk_norm": True, "attention_softcap": 5.0},
    {"norm_placement": "sandwich", "norm": "rmsnorm"},
    {"parallel_residual": True},
    {"feedforward": "geglu"},
    {"feedforward": "relu2"},
    {"positions": "alibi", "window": 4},
    {"positions": "relative", "attention_scale": 1.0},
    {"n_kv_heads": 1, "rotary_share": 0.5},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_cached_equals_uncached_a_few_tokens_at_a_time(variant):
    torch.manual_seed(0)
    config = TransformerConfig(n_layers=3, d_model=16, n_heads=2, vocab_size=20, pad_id=0, **variant)
    model = Transformer(config).double().eval()
    tokens = torch.randint(1, 20, (2, 14))
    whole, cache = model(tokens), model.new_cache(2, 14)
    steps = [model(part, cache=cache) for part in tokens.split([5, 1, 3, 1, 4], dim=1)]
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_parameters_are_counted_without_building(variant):
    for arrangement in ("encoder", "decoder", "encoder_decoder"):
        if variant.get("parallel_residual") and arrangement == "encoder_decoder":
            continue
        for more in ({}, {"bias": True, "embedding_norm": True, "token_types": 2}):
            config = TransformerConfig(
                arrangement=arrangement, n_layers=2, d_model=16, n_heads=2, vocab_size=20, **variant, **more
            )
            with torch.device("meta"):
                model = Transformer(config)
            assert config.num_params() == sum(p.numel() for p in model.parameters())


def test_a_window_hides_what_is_far():
    torch.manual_seed(0)
    config = TransformerConfig(n_layers=2, d_model=16, n_heads=2, vocab_size=20, window=3)
    model = Transformer(config).eval()
    tokens = torch.randint(0, 20, (1, 12))
    other = tokens.clone()
    other[0, 0] = (tokens[0, 0] + 1) % 20
    changed = (model(tokens) - model(other)).abs().amax(-1)[0] > 1e-7
    assert changed[:5].all() and not changed[5:].any()  # two layers reach 2 * (3 - 1) further


def test_a_prefix_sees_itself_both_ways_also_when_it_is_cached():
    torch.manual_seed(0)
    model = Transformer(TransformerConfig(d_model=16, n_heads=2, vocab_size=20)).double().eval()
    tokens = torch.randint(0, 20, (1, 9))
    prefix = torch.arange(9)[None] < 5
    whole = model(tokens, prefix_mask=prefix)
    other = tokens.clone()
    other[0, 4] = (tokens[0, 4] + 1) % 20
    assert ((model(other, prefix_mask=prefix) - whole)[0, 0]).abs().max() > 1e-6
    assert (model(other) - model(tokens))[0, 0].abs().max() == 0
    cache = model.new_cache(1, 9)
    steps = [model(tokens[:, :5], prefix_mask=prefix[:, :5], cache=cache), model(tokens[:, 5:], cache=cache)]
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, atol=1e-10, rtol=1e-10)


def test_cross_attention_refuses_a_window():
    with pytest.raises(ConfigError, match="cross-attention has no use for a window"):
        AttentionMask(False, window=4, cross=True)


MISTAKES = [
    ({"positions": "alibi", "relative_buckets": 8}, ["relative_buckets", "positions relative", "is alibi"]),
    ({"positions": "relative", "rotary_base": 5.0}, ["rotary_base", "positions rotary", "is relative"]),
    ({"global_tokens": 1, "arrangement": "encoder"}, ["global_tokens", "window"]),
    ({"full_attention_every": 2}, ["full_attention_every", "window"]),
    ({"global_tokens": 1, "window": 4}, ["global_tokens", "arrangement encoder", "decoder"]),
    ({"attention": "additive"}, ["attention additive", "positions rotary"]),
    ({"attention": "additive", "positions": "none", "qk_norm": True}, ["qk_norm", "dot_product"]),
    ({"memory_length": 4, "positions": "learned"}, ["memory_length", "positions learned"]),
    ({"memory_length": 4, "arrangement": "encoder"}, ["memory_length", "arrangement decoder"]),
    ({"parallel_residual": True, "norm_placement": "post"}, ["parallel_residual", "norm_placement pre"]),
    ({"init": "mup"}, ["init mup", "mup_base_width"]),
    ({"mup_base_width": 64}, ["mup_base_width", "init mup", "gpt2"]),
    ({"rotary_share": 0.3, "d_head": 10}, ["rotary_share 0.3", "d_head 10", "even"]),
    ({"positions": "relative", "relative_buckets": 7, "arrangement": "encoder"}, ["relative_buckets 7", "even"]),
    ({"positions": "relative", "relative_distance": 16}, ["relative_distance 16", "relative_buckets 32"]),
    ({"decoder_start_id": 3}, ["decoder_start_id", "encoder_decoder"]),
    ({"rotary_scaling": {"kind": "llama4", "factor": 2.0}}, ["rotary_scaling.kind 'llama4'", "llama3"]),
    ({"rotary_scaling": {"kind": "linear", "factor": 0.5}}, ["rotary_scaling.factor", "0.5"]),
    ({"window": 0}, ["window must be at least 1"]),
]


@pytest.mark.parametrize(("given", "parts"), MISTAKES, ids=str)
def test_impossible_combinations_are_named_in_one_line(given, parts):
    with pytest.raises(ConfigError) as error:
        TransformerConfig(**given)
    message = str(error.value)
    assert "\n" not in message
    assert all(part in message for part in parts), message
