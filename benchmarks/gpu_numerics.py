"""Every kernel a GPU is given beside the mathematics in float64, values and gradients, for ``benchmarks.gpu``.

Errors are ``|found - exact| / |exact|``, Euclidean norms over all numbers of a tensor, from the same (narrow) inputs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu_tools import Emit, reason, relative_error
from lightning_nlp.backbone import attention, gpu
from lightning_nlp.backbone.attention import Scoring, attend, reference
from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.init import init_weights
from lightning_nlp.backbone.layers import norm
from lightning_nlp.backbone.loss import linear_cross_entropy
from lightning_nlp.backbone.masks import AttentionMask
from lightning_nlp.backbone.positions import POSITIONS
from lightning_nlp.backbone.transformer import Transformer
from lightning_nlp.optim.master_weights import MasterWeights

ALLOWED = {torch.float32: (1e-3, 1e-3), torch.bfloat16: (1e-2, 2e-2)}
"""Largest error of values and of gradients; float32 has room for products in TensorFloat-32."""
LOSS_ALLOWED = {torch.float32: (1e-5, 1e-3), torch.bfloat16: (1e-3, 1e-2)}
NAMES = ("batch", "heads", "length", "width", "window", "rows", "vocabulary", "d_model")
FULL = dict(zip(NAMES, (2, 4, 1024, 64, 64, 2048, 50304, 768), strict=True))
SMOKE = dict(zip(NAMES, (2, 2, 32, 16, 4, 40, 97, 32), strict=True))
KERNELS = [
    (gpu, "documents_in_one", "varlen"),
    (gpu, "flexible", "flex"),
    (attention, "fused", "SDPA"),
    (attention, "products", "products"),
]
"""Functions that compute attention, and what they are called in the table."""

Sizes = dict[str, int]
Case = Callable[..., dict[str, Any]]
"""``(name, sizes, device, dtype, **options)`` to a row."""


@contextmanager
def spying() -> Iterator[list[str]]:
    """Names of the kernels that were used inside."""
    used: list[str] = []
    with contextlib.ExitStack() as stack:
        for owner, name, shown in KERNELS:
            original = getattr(owner, name)

            def noting(*args: Any, original: Any = original, shown: str = shown, **kwargs: Any) -> Any:
                if shown not in used:
                    used.append(shown)
                return original(*args, **kwargs)

            stack.enter_context(patch.object(owner, name, noting))
        yield used


def row(name: str, dtype: torch.dtype, errors: tuple[float, float], allowed: tuple[float, float], **more: Any) -> Any:
    """A row of the table; an error that is no number is wrong."""
    right = all(error <= most for error, most in zip(errors, allowed, strict=True))
    return {
        "part": "numerics", "row": name, "dtype": str(dtype).removeprefix("torch."), "error": errors[0],
        "gradients": errors[1], "allowed": f"{allowed[0]:g} / {allowed[1]:g}",
        "status": "ok" if right else "wrong", **more,
    }  # fmt: skip


def tried(name: str, dtype: torch.dtype, emit: Emit, case: Case, *args: Any, **options: Any) -> None:
    """Emit what ``case`` finds, or why it could not."""
    try:
        emit(case(name, *args, dtype, **options))
    except Exception as error:
        status = "skipped" if "No available kernel" in str(error) else "failed"
        shown = str(dtype).removeprefix("torch.")
        emit({"part": "numerics", "row": name, "dtype": shown, "status": status, "note": f"{shown}: {reason(error)}"})


# Attention --------------------------------------------------------------------------------------------------------


def segments_of(kind: str, batch: int, length: int, device: str) -> Tensor:
    """``[B, T]``: documents of uneven length, or one a row with padding."""
    index = torch.arange(length, device=device)
    if kind == "documents":
        ends = torch.tensor([length // 8, length // 2, length * 3 // 4, length * 7 // 8], device=device)
        made = torch.bucketize(index, ends, right=True).expand(batch, -1) + 1
        return made.where(index < length * 15 // 16, 0).contiguous()
    starts = index[None] < torch.tensor([[length], [length * 5 // 8]], device=device)
    return starts.long()[:batch].contiguous()


def attention_case(
    name: str,
    sizes: Sizes,
    device: str,
    dtype: torch.dtype,
    *,
    causal: bool = True,
    segments: str | None = None,
    window: bool = False,
    prefix: bool = False,
    global_keys: bool = False,
    kv_heads: int | None = None,
    softcap: float | None = None,
    positions: str | None = None,
    queries: int | None = None,
    cross: bool = False,
    backend: SDPBackend | None = None,
) -> dict[str, Any]:
    """One call of :func:`attend` forward and backward."""
    batch, heads, length, width = (sizes[name] for name in ("batch", "heads", "length", "width"))
    queries = queries or length
    generator = torch.Generator().manual_seed(0)
    shapes = [(batch, queries, heads, width)] + 2 * [(batch, length, kv_heads or heads, width)]
    narrow = [torch.randn(s, generator=generator).to(device, dtype).requires_grad_() for s in shapes]
    exact = [x.detach().double().requires_grad_() for x in narrow]
    slope = torch.randn(batch, heads, queries, width, generator=generator).to(device)
    made = None if segments is None else segments_of(segments, batch, length, device)
    first = torch.arange(length, device=device) < length // 8
    more: dict[str, Any] = {"prefix": first[None].expand(batch, -1) if prefix else None}
    more["window"] = sizes["window"] if window else None
    if global_keys:
        more["global_keys"] = first[None].expand(batch, -1)
    if cross:
        mask = AttentionMask(False, torch.ones(batch, queries, device=device, dtype=torch.long), made, cross=True)
    else:
        mask = AttentionMask(causal and queries > 1, made, offset=length - queries, **more)
    config = TransformerConfig(positions=positions or "none", n_heads=heads, d_model=heads * width)
    part = POSITIONS[config.positions](config, True).to(device)
    wide = POSITIONS[config.positions](config, True).to(device).double()
    wide.load_state_dict(part.state_dict())
    index = torch.arange(length, device=device)[None]

    def scoring(positions: Any) -> Scoring:
        return Scoring(softcap=softcap, bias=positions.bias(index[:, length - queries :], index))

    forced = nullcontext() if backend is None else sdpa_kernel(backend)
    with spying() as used, forced:
        found = attend(*(x.transpose(1, 2) for x in narrow), mask, 0.0, scoring(part))
        real = torch.ones(batch, queries, dtype=torch.bool, device=device) if made is None or cross else made > 0
        keep = real[:, None, :, None]
        found = found.where(keep, 0)
        learned = [*narrow, *part.parameters()]
        gradients = torch.autograd.grad(found, learned, slope.to(dtype))
    with torch.no_grad():
        slope = slope.to(dtype).double()
    expected = reference(*(x.transpose(1, 2) for x in exact), mask, 0.0, scoring(wide)).where(keep, 0)
    wanted = torch.autograd.grad(expected, [*exact, *wide.parameters()], slope)
    worst = max(relative_error(ours, theirs) for ours, theirs in zip(gradients, wanted, strict=True))
    kernel = " ".join(used) if backend is None else backend.name.lower().removesuffix("_attention")
    return row(name, dtype, (relative_error(found, expected), worst), ALLOWED[dtype], kernel=kernel)


PLAIN: list[tuple[str, dict[str, Any]]] = [
    ("causal", {}),
    ("both ways", {"causal": False}),
    ("causal, grouped heads", {"kv_heads": 1}),
    ("causal, right padding", {"segments": "padding"}),
    ("documents", {"segments": "documents"}),
    ("documents, both ways", {"segments": "documents", "causal": False}),
    ("documents, grouped heads", {"segments": "documents", "kv_heads": 1}),
    ("documents, window", {"segments": "documents", "window": True}),
    ("documents, window both ways", {"segments": "documents", "window": True, "causal": False}),
    ("padding, both ways", {"segments": "padding", "causal": False}),
    ("a padded source", {"segments": "padding", "cross": True, "queries": 24}),
    ("one new token", {"queries": 1}),
    ("new tokens after a cache", {"queries": 16}),
]
OF_FLEX = [name for name, _ in PLAIN if name.startswith(("documents", "padding"))]
"""In float32 there is no other kernel for these on a GPU."""
FLEX: list[tuple[str, dict[str, Any]]] = [
    ("window", {"window": True}),
    ("prefix", {"prefix": True, "segments": "documents"}),
    ("ALiBi", {"positions": "alibi"}),
    ("T5's bias", {"positions": "relative"}),
    ("soft cap", {"softcap": 20.0}),
    ("soft cap, window, documents", {"softcap": 20.0, "window": True, "segments": "documents"}),
    ("soft cap, grouped heads", {"softcap": 20.0, "kv_heads": 1}),
    ("window and global keys", {"window": True, "global_keys": True, "causal": False, "segments": "padding"}),
]


def plain(sizes: Sizes, device: str, emit: Emit) -> None:
    """Kernels that need no compilation, and PyTorch's by name."""
    for name, options in PLAIN:
        for dtype in (torch.bfloat16, torch.float32):
            if device != "cuda" or dtype != torch.float32 or name not in OF_FLEX:
                tried(name, dtype, emit, attention_case, sizes, device, **options)
    if device == "cuda":
        for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION):
            tried("causal, alone", torch.bfloat16, emit, attention_case, sizes, device, backend=backend)


def flex(sizes: Sizes, device: str, emit: Emit) -> None:
    """FlexAttention, each case compiled by itself."""
    for name, options in FLEX:
        tried(name, torch.bfloat16, emit, attention_case, sizes, device, **options)
    for name, options in (FLEX[0], ("documents", {"segments": "documents"})):
        tried(name, torch.float32, emit, attention_case, sizes, device, **options)


# The loss and norms -----------------------------------------------------------------------------------------------

LOSSES: list[tuple[str, dict[str, Any]]] = [
    ("loss in chunks", {}),
    ("loss in chunks, a third without label", {"unlabelled": 3}),
    ("loss in chunks, smoothing, z-loss", {"label_smoothing": 0.1, "z_loss": 1e-4}),
    ("loss in chunks, soft cap, bias", {"softcap": 10.0, "bias": True}),
]


def loss_case(
    name: str, sizes: Sizes, device: str, dtype: torch.dtype, unlabelled: int = 0, bias: bool = False, **options: Any
) -> dict[str, Any]:
    """The chunked loss beside all scores in float64."""
    rows, width, vocabulary = sizes["rows"], sizes["d_model"], sizes["vocabulary"]
    generator = torch.Generator().manual_seed(0)
    scales = ((rows, width, 1.0), (vocabulary, width, 0.05), *([(vocabulary, 1, 1.0)] if bias else []))
    drawn = [(torch.randn(n, m, generator=generator) * scale).squeeze(-1) for n, m, scale in scales]
    narrow = [x.to(device, dtype).requires_grad_() for x in drawn]
    exact = [x.detach().double().requires_grad_() for x in narrow]
    labels = torch.randint(vocabulary, (rows,), generator=generator).to(device)
    if unlabelled:
        labels[::unlabelled] = -100
    results = []
    for x, chunked in ((narrow, True), (exact, False)):
        form = {"chunked": chunked, "chunk_rows": rows // 2 if chunked else None}
        total, count = linear_cross_entropy(x[0], x[1], labels, x[2] if bias else None, **form, **options)
        results.append((total, torch.autograd.grad(total / count, x)))
    (found, gradients), (expected, wanted) = results
    worst = max(relative_error(ours, theirs) for ours, theirs in zip(gradients, wanted, strict=True))
    return row(name, dtype, (relative_error(found, expected), worst), LOSS_ALLOWED[dtype])


def norm_case(name: str, sizes: Sizes, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """A norm with gains that are not 1."""
    config = TransformerConfig(norm=name, d_model=sizes["d_model"], n_heads=1, bias=True)
    generator = torch.Generator().manual_seed(0)
    x, slope = torch.randn(2, sizes["rows"], sizes["d_model"], generator=generator).to(device, dtype)
    results = []
    for dt in (dtype, torch.float64):
        part = norm(config).to(device)
        with torch.no_grad():
            for number, parameter in enumerate(part.parameters()):
                values = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
                parameter.copy_(values.to(device, dtype))
        part.to(dt)
        inputs = x.to(dt).requires_grad_()
        output = part(inputs)
        results.append((output, torch.autograd.grad(output, [inputs, *part.parameters()], slope.to(dt))))
    (found, gradients), (expected, wanted) = results
    worst = max(relative_error(ours, theirs) for ours, theirs in zip(gradients, wanted, strict=True))
    return row(name, dtype, (relative_error(found, expected), worst), ALLOWED[dtype])


def loss(sizes: Sizes, device: str, emit: Emit) -> None:
    """The chunked loss and the norms."""
    for dtype in (torch.bfloat16, torch.float32):
        for name, options in LOSSES:
            if device != "cuda" or dtype == torch.bfloat16 or not options:  # every one is compiled anew
                tried(name, dtype, emit, loss_case, sizes, device, **options)
        for kind in ("layernorm", "rmsnorm"):
            tried(kind, dtype, emit, norm_case, sizes, device)


# Models -----------------------------------------------------------------------------------------------------------


def small(sizes: Sizes, device: str) -> tuple[Transformer, Tensor, Tensor]:
    """A model of two layers, tokens and labels."""
    torch.manual_seed(0)
    heads, width = sizes["heads"], sizes["heads"] * sizes["width"]
    config = TransformerConfig(n_layers=2, d_model=width, n_heads=heads, vocab_size=97, positions="learned")
    with torch.device(device):
        model = Transformer(config)
    init_weights(model, config)
    generator = torch.Generator().manual_seed(0)
    tokens, labels = torch.randint(97, (2, sizes["batch"], sizes["length"]), generator=generator).to(device)
    return model, tokens, labels


def loss_of(model: Transformer, tokens: Tensor, labels: Tensor, segments: Tensor | None) -> Tensor:
    """Mean cross-entropy of the next token, through the chunked loss."""
    hidden = model(tokens, segments=segments)
    total, count = linear_cross_entropy(
        hidden.flatten(0, 1), model.embedding_weight, labels.flatten(), chunked=True, drop_unlabelled=False
    )
    return total / count


def model_case(
    name: str, sizes: Sizes, device: str, dtype: torch.dtype, packed: bool, compiled: bool = False
) -> dict[str, Any]:
    """A model's loss and gradients in one training step."""
    model, tokens, labels = small(sizes, device)
    segments = segments_of("documents", *tokens.shape, device) if packed else None
    if segments is not None:
        labels = labels.masked_fill(segments == 0, -100)
    exact, *_ = small(sizes, device)
    exact.double().load_state_dict(model.state_dict())
    expected = loss_of(exact, tokens, labels, segments)
    expected.backward()
    weights = MasterWeights(model)
    if compiled:
        for block in model.blocks():
            block.compile(dynamic=False, backend="inductor" if device == "cuda" else "eager")
    with spying() as used, weights.computing() if dtype == torch.bfloat16 else nullcontext():
        found = loss_of(model, tokens, labels, segments)
    found.backward()
    both = [[p.grad.double().flatten() for p in m.parameters() if p.grad is not None] for m in (model, exact)]
    errors = relative_error(found.detach(), expected.detach()), relative_error(torch.cat(both[0]), torch.cat(both[1]))
    allowed = (1e-3, 5e-2) if dtype == torch.bfloat16 else (1e-5, 1e-3)
    return row(name, dtype, errors, allowed, kernel=" ".join(used))


def waiting_case(name: str, sizes: Sizes, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """A whole training step under PyTorch's check for waits, which raises an error; there is nothing to compare."""
    model, tokens, labels = small(sizes, device)
    weights, parameters = MasterWeights(model), list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, fused=True)
    for number in range(3):
        if number == 2:  # compilers and libraries may wait in the first ones
            torch.cuda.set_sync_debug_mode("error")
        try:
            with weights.computing():
                found = loss_of(model, tokens, labels, None)
            found.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            weights.changed()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return row(name, dtype, (0.0, 0.0), (0.0, 0.0))


@torch.no_grad()
def greedy_case(name: str, sizes: Sizes, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """Greedy tokens with a cache beside those of reading everything anew, in float32; the error is their share."""
    from lightning_nlp.decoding.config import GenerationConfig
    from lightning_nlp.decoding.generate import generate

    model, tokens, _ = small(sizes, device)
    scores: Callable[[Tensor], Tensor] = lambda hidden: hidden @ model.embedding_weight.T  # noqa: E731
    prompts = [each.tolist() for each in tokens[:, :9]]
    prompts[0] = prompts[0][:5]  # padded on the left
    found = generate(model, scores, prompts, GenerationConfig(max_new_tokens=12), eos_id=None, pad_id=0)
    different = 0
    for prompt, new in zip(prompts, found, strict=True):
        for place, token in enumerate(new):
            hidden = model(torch.tensor([prompt + new[:place]], device=device))
            different += int(scores(hidden[:, -1]).argmax() != token)
    return row(name, dtype, (different / sum(map(len, found)), 0.0), (0.0, 0.0))


def models(sizes: Sizes, device: str, emit: Emit) -> None:
    """Whole models: eager and compiled, plain and packed; a step that waits for nothing; greedy tokens."""
    on_gpu = device == "cuda"
    tried("a model, eager", torch.float32, emit, model_case, sizes, device, packed=False)
    for packed in (False, True):
        more = ", documents" if packed else ""
        tried(f"a model, eager{more}", torch.bfloat16, emit, model_case, sizes, device, packed=packed)
        if on_gpu or not packed:
            name = f"a model, blocks compiled{more}"
            tried(name, torch.bfloat16, emit, model_case, sizes, device, packed=packed, compiled=True)
    if on_gpu:
        tried("a step that waits for nothing", torch.bfloat16, emit, waiting_case, sizes, device)
    tried("greedy tokens, cached and not", torch.float32, emit, greedy_case, sizes, device)


GROUPS: dict[str, Callable[[Sizes, str, Emit], None]] = {"plain": plain, "flex": flex, "loss": loss, "models": models}


def run(spec: dict[str, Any], device: str, emit: Emit) -> None:
    """The groups that ``spec`` names, at its sizes."""
    if device == "cuda":
        from torch._dynamo import config

        config.recompile_limit = 64  # every case is a shape of its own
    for group in spec["groups"]:
        GROUPS[group](spec["sizes"], device, emit)
