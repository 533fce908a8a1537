"""Which kernel a GPU is given, what it is told, and that this is worked out once: on a CPU, with stand-ins."""

from __future__ import annotations

import gc
import itertools

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from lightning_nlp.backbone import attention, compat, gpu
from lightning_nlp.backbone.attention import Scoring, reference
from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.loss import linear_cross_entropy
from lightning_nlp.backbone.masks import AttentionMask
from lightning_nlp.backbone.positions import POSITIONS
from lightning_nlp.backbone.transformer import Transformer
from tests.unit.backbone.test_gpu_loss import NoWaiting

LENGTH = 12
PACKED = [[1] * 4 + [2] * 8, [1] * 5 + [2] * 4 + [0] * 3]
RIGHT = [[1] * 12, [1] * 9 + [0] * 3]
LEFT = [[1] * 12, [0] * 3 + [1] * 9]
TORN = [[1, 2] * 6, [1] * 12]


def mask(segments=None, causal=True, **more):
    made = None if segments is None else torch.tensor(segments)
    return AttentionMask(causal, made, **more)


def bias():
    index = torch.arange(LENGTH)[None]
    return POSITIONS["alibi"](TransformerConfig(positions="alibi", n_heads=2, d_model=32)).bias(index, index)


PREFIX = torch.arange(LENGTH)[None] < 4
ROUTES = [
    # what, mask, scoring, dtype, kernel
    ("plain", mask(), Scoring(), "bfloat16", None),
    ("right padding, causal", mask(RIGHT), Scoring(), "bfloat16", None),
    ("right padding, both ways", mask(RIGHT, causal=False), Scoring(), "bfloat16", "documents"),
    ("left padding", mask(LEFT), Scoring(), "bfloat16", "documents"),
    ("packed", mask(PACKED), Scoring(), "bfloat16", "documents"),
    ("packed, with a window", mask(PACKED, window=3), Scoring(), "float16", "documents"),
    ("packed, in float32", mask(PACKED), Scoring(), "float32", "flexible"),
    ("a document in pieces", mask(TORN), Scoring(), "bfloat16", "flexible"),
    ("a window", mask(window=3), Scoring(), "bfloat16", "flexible"),
    ("a window that hides nothing", mask(window=LENGTH), Scoring(), "bfloat16", None),
    ("a window and global tokens", mask(RIGHT, False, window=3, global_keys=PREFIX), Scoring(), "bfloat16", "flexible"),
    ("a prefix", mask(prefix=PREFIX), Scoring(), "bfloat16", "flexible"),
    ("a bias", mask(), Scoring(bias=bias()), "bfloat16", "flexible"),
    ("a cap", mask(PACKED), Scoring(softcap=5.0), "bfloat16", "flexible"),
    ("additive scores", mask(PACKED), Scoring(vector=torch.ones(2, 16)), "bfloat16", None),
    (
        "a padded source",
        AttentionMask(False, torch.ones(2, LENGTH), torch.tensor(RIGHT), cross=True),
        Scoring(),
        "bfloat16",
        None,
    ),
    ("after a cache", mask(offset=3), Scoring(softcap=5.0), "bfloat16", None),
]


@pytest.fixture
def kernels(monkeypatch):
    monkeypatch.setattr(gpu, "FLEX_FROM", LENGTH)
    monkeypatch.setattr(gpu, "documents_in_one", lambda *args: "documents")
    monkeypatch.setattr(gpu, "flexible", lambda *args: "flexible")


@pytest.mark.parametrize(("mask", "scoring", "dtype", "kernel"), [r[1:] for r in ROUTES], ids=[r[0] for r in ROUTES])
def test_the_kernel_that_fits(kernels, mask, scoring, dtype, kernel):
    x = torch.zeros(2, 2, LENGTH, 16, dtype=getattr(torch, dtype))
    assert gpu.attend(x, x, x, mask, 0.0, scoring) == kernel
    assert gpu.attend(x, x, x, mask, 0.1, scoring) is None  # no kernel of its own drops weights
    assert gpu.attend(x[:, :, -1:], x, x, mask, 0.0, scoring) is None


def test_short_rows_are_not_worth_a_compilation(kernels, monkeypatch):
    monkeypatch.setattr(gpu, "FLEX_FROM", LENGTH + 1)
    x = torch.zeros(2, 2, LENGTH, 16)
    assert gpu.attend(x, x, x, mask(window=3), 0.0, Scoring()) is None


def ragged(query, key, value, ends, ends_again, longest, longest_again, *, scale, window_size):
    """The variable-length kernel of 2.11: as many heads of keys as of queries."""
    assert ends is ends_again and ends.dtype == torch.int32 and query.shape == key.shape
    assert longest == longest_again == max(ends.diff().tolist())
    left, right = window_size
    pieces = []
    for start, stop in itertools.pairwise(ends.tolist()):
        document = [x[start:stop].transpose(0, 1)[None] for x in (query, key, value)]
        inner = AttentionMask(right == 0, window=None if left < 0 else left + 1)
        pieces.append(reference(*document, inner, 0.0, Scoring(scale))[0].transpose(0, 1))
    return torch.cat(pieces)


@pytest.mark.parametrize("heads", [2, 4], ids=["grouped", "equal"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("layout", [PACKED, RIGHT, LEFT], ids=["packed", "right", "left"])
def test_rows_of_documents_in_one_call(layout, causal, heads):
    shown = mask(layout, causal)
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, LENGTH, h, 8) for h in (4, heads, heads)]  # heads stand last in a model's projections
    x = [torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]
    found = gpu.documents_in_one(*[t.transpose(1, 2) for t in x], shown, None, compat.with_groups(ragged))
    expected = reference(*[t.transpose(1, 2) for t in x], shown)
    torch.testing.assert_close(found, expected)
    real = torch.tensor(layout) > 0
    assert found.transpose(1, 2)[~real].count_nonzero() == 0
    slope = torch.linspace(-1, 1, 8, dtype=torch.float64)
    for ours, theirs in zip(*(torch.autograd.grad((y * slope).sum(), x) for y in (found, expected)), strict=True):
        torch.testing.assert_close(ours, theirs)
        assert ours[~real].count_nonzero() == 0


def test_what_layers_share_is_made_once_and_forgotten_with_the_mask(monkeypatch):
    from torch.nn.attention.flex_attention import flex_attention

    calls = []
    for name in ("boundaries", "blocks"):
        original = getattr(gpu, name)
        monkeypatch.setattr(
            gpu, name, lambda *args, name=name, original=original: (calls.append(name), original(*args))[1]
        )
    x = torch.randn(2, 2, LENGTH, 16)
    before = len(gpu._MADE)
    shown = mask(PACKED)
    for _ in range(3):
        first = gpu.documents_in_one(x, x, x, shown, None, compat.with_groups(ragged))
        second = gpu.flexible(x, x, x, shown, Scoring(), flex_attention)
        torch.testing.assert_close(first, second)
    assert calls == ["boundaries", "blocks"]
    assert len(gpu._MADE) == before + 1
    del shown
    gc.collect()
    assert len(gpu._MADE) == before


def test_many_shapes_of_flex_attention_are_compiled(monkeypatch):
    """PyTorch alone would give up after 8 and compute without a kernel."""
    counter = CompileCounter()
    original = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda f, **options: original(lambda x: x.sin() + 1, backend=counter, **options)
    )
    gpu.compiled.cache_clear()
    try:
        for size in range(2, 14):
            gpu.compiled()(torch.zeros(size))
    finally:
        gpu.compiled.cache_clear()
    assert counter.frame_count == 12


def test_heads_are_repeated_only_where_they_are_grouped():
    seen = {}
    kernel = compat.with_groups(lambda q, k, v, *rest, **options: seen.update(key=k, rest=rest, options=options))
    q, k = torch.zeros(3, 4, 2), torch.arange(12.0).view(3, 2, 2)
    kernel(q, k, k, 7, enable_gqa=True, scale=2.0)
    assert torch.equal(seen["key"][:, [0, 2]], k) and torch.equal(seen["key"][:, [1, 3]], k)
    assert seen["rest"] == (7,) and seen["options"] == {"scale": 2.0}
    kernel(q, q, q, enable_gqa=False)
    assert seen["key"] is q


def test_the_kernel_of_this_version_takes_what_it_is_given():
    """No CPU form: that it is looked for shows that the arguments were right."""
    x = torch.zeros(2, 2, LENGTH, 16, dtype=torch.bfloat16)
    with pytest.raises(NotImplementedError, match="flash_attention_forward"):
        gpu.documents_in_one(x, x[:, :1], x[:, :1], mask(PACKED), None)


def test_a_property_is_looked_up_once():
    class Owner:
        calls = 0

        @compat.cached_property
        def answer(self) -> int:
            """Of everything."""
            self.calls += 1
            return 42

    owner = Owner()
    assert owner.answer == owner.answer == 42
    assert owner.calls == 1 and Owner.answer.__doc__ == "Of everything."


def test_all_blocks_are_one_compilation():
    """Nothing a block finds out breaks its graph, or has the next block compiled again."""
    torch._dynamo.reset()
    config = TransformerConfig(n_layers=3, d_model=16, n_heads=2, vocab_size=20, positions="learned")
    model, counter = Transformer(config), CompileCounter()
    tokens = torch.randint(20, (2, LENGTH))
    expected = model(tokens)
    for block in model.blocks():
        block.compile(backend=counter, dynamic=False)
    for _ in range(2):
        torch.testing.assert_close(model(tokens), expected)
    assert counter.frame_count == 1
    torch._dynamo.reset()


@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_a_training_step_without_segments_waits_for_nothing(positions):
    config = TransformerConfig(n_layers=2, d_model=16, n_heads=2, vocab_size=20, positions=positions)
    model = Transformer(config)
    tokens = torch.randint(20, (2, LENGTH))
    with NoWaiting(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("lightning_nlp.backbone.loss.runs_ahead", lambda device: True)
        hidden = model(tokens)
        total, count = linear_cross_entropy(hidden.flatten(0, 1), model.embedding_weight, tokens.flatten())
        (total / count).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    assert all(p.grad is not None for p in model.parameters())


def test_attention_of_a_gpu_is_that_of_a_cpu(monkeypatch):
    """The entry for CUDA devices, with a stand-in for its kernel of documents."""
    monkeypatch.setattr(compat, "varlen_attention", lambda: compat.with_groups(ragged))
    x = [torch.randn(2, 2, LENGTH, 16).bfloat16() for _ in range(3)]
    for shown in (mask(), mask(PACKED), mask(PACKED, False), mask(RIGHT), mask(LEFT), mask(window=3)):
        found = attention.on_gpu(*x, shown, 0.0, Scoring())
        expected = reference(*[t.double() for t in x], shown)
        if shown.query_segments is not None:
            real = (shown.query_segments > 0)[:, None, :, None]
            found, expected = found.where(real, 0), expected.where(real, 0)
        torch.testing.assert_close(found.double(), expected, atol=0.02, rtol=0.02)
