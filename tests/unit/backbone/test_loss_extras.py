"""Smoothing, weights, caps and soft targets: published numbers, and both forms against plain mathematics in float64."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from lightning_nlp.backbone import chunked_loss
from lightning_nlp.backbone.loss import LossConfig, cross_entropy, linear_cross_entropy, linear_distillation
from lightning_nlp.errors import ConfigError

LABELS = {
    "all": [1, 4, 3, 6, 2, 3, 5, 1, 1, 2, 6],
    "a few left out": [1, -100, 3, 6, 2, 3, 5, 1, -100, 2, 6],
    "most left out": [-100, -100, 3, -100, -100, -100, -100, -100, 5, -100, -100],
    "none": [-100] * 11,
}
FORMS = [(False, 256), (True, 4), (True, 256)]


@pytest.fixture(autouse=True)
def pieces_smaller_than_a_chunk(monkeypatch):
    monkeypatch.setattr(chunked_loss, "WIDE_ROWS", 3)
    monkeypatch.setattr(chunked_loss, "WEIGHT_ROWS", 4)


def inputs():
    generator = torch.Generator().manual_seed(0)
    shapes = [(11, 5), (7, 5), (7,)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


@pytest.mark.parametrize(
    ("smoothing", "expected"),
    [
        # The same scores and labels through PyTorch and transformers, fairseq and JoeyNMT (its own test value).
        ("uniform", 6.4869),
        ("others", 6.7019),
        ("no_pad", 2.1326),
    ],
)
@pytest.mark.parametrize(("chunked", "rows"), FORMS)
def test_three_conventions_of_smoothing(smoothing, expected, chunked, rows):
    scores = torch.tensor([[0.1, 0.1, 0.6, 0.1, 0.1]]).log().repeat(6, 1)
    labels = torch.tensor([2, 1, 2, -100, 1, -100])
    options = {"label_smoothing": 0.4, "smoothing": smoothing, "pad_id": 0, "chunked": chunked, "chunk_rows": rows}
    total, count = linear_cross_entropy(scores, torch.eye(5), labels, **options)
    assert total.item() == pytest.approx(expected, abs=5e-5)
    assert count.item() == 4


def test_padding_as_a_label_counts_nothing_where_padding_gets_nothing():
    scores, eye = torch.randn(3, 5), torch.eye(5)
    options = {"label_smoothing": 0.4, "smoothing": "no_pad", "pad_id": 0}
    total, count = linear_cross_entropy(scores, eye, torch.tensor([2, 0, 1]), **options)
    expected, _ = linear_cross_entropy(scores[[0, 2]], eye, torch.tensor([2, 1]), **options)
    assert count.item() == 2
    torch.testing.assert_close(total, expected)


def test_the_least_loss_of_the_divergence_is_zero():
    best = torch.tensor([[0.0, 0.2, 0.4, 0.2, 0.2]]).clamp(min=1e-30).log()
    options = {"label_smoothing": 0.6, "smoothing": "no_pad", "pad_id": 0}
    assert linear_cross_entropy(best, torch.eye(5), torch.tensor([2]), **options)[0].item() == pytest.approx(
        0, abs=1e-6
    )


def on_paper(hidden, weight, bias, labels, softcap=None, label_smoothing=0.0, smoothing="uniform", z_loss=0.0,
             class_weights=None, pad_id=None, scale=1.0):  # fmt: skip
    """One row after the other."""
    total = (hidden.sum() + weight.sum() + bias.sum()) * 0
    for row, label in zip(hidden, labels.tolist(), strict=True):
        if label < 0 or (smoothing == "no_pad" and label_smoothing and label == pad_id):
            continue
        scores = scale * (weight @ row) + bias
        scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
        target = torch.zeros_like(scores)
        spread = {"uniform": len(scores), "others": len(scores) - 1, "no_pad": len(scores) - 2}[smoothing]
        target += label_smoothing / spread
        if smoothing == "uniform":
            target[label] += 1 - label_smoothing
        else:
            target[label] = 1 - label_smoothing
        if smoothing == "no_pad":
            target[pad_id] = 0
            total = total + torch.special.xlogy(target, target).sum() * (label_smoothing > 0)
        if class_weights is not None:
            target = target * class_weights
        total = total - (target * scores.log_softmax(-1)).sum() + z_loss * scores.logsumexp(-1) ** 2
    return total


EXTRAS = [
    {"scale": 0.3},
    {"scale": -2.0, "softcap": 1.5, "label_smoothing": 0.2},
    {"softcap": 1.5},
    {"z_loss": 0.3},
    {"label_smoothing": 0.2},
    {"label_smoothing": 0.2, "smoothing": "others"},
    {"label_smoothing": 0.2, "smoothing": "no_pad", "pad_id": 0},
    {"class_weights": True},
    {"class_weights": True, "label_smoothing": 0.2, "z_loss": 0.1, "softcap": 2.0},
    {"label_smoothing": 0.3, "smoothing": "others", "z_loss": 0.2, "softcap": 3.0},
]


@pytest.mark.parametrize(("chunked", "rows"), FORMS)
@pytest.mark.parametrize("extras", EXTRAS, ids=str)
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_every_extra_in_both_forms(labels, extras, chunked, rows):
    labels, extras = torch.tensor(labels), dict(extras)
    if "class_weights" in extras:
        extras["class_weights"] = torch.linspace(0.2, 2, 7, dtype=torch.float64)
    ours, theirs = inputs(), inputs()
    total, count = linear_cross_entropy(*ours[:2], labels, ours[2], chunked=chunked, chunk_rows=rows, **extras)
    expected = on_paper(*theirs, labels, **extras)
    torch.testing.assert_close(total, expected)
    weights = extras.get("class_weights", torch.ones(7, dtype=torch.float64))
    torch.testing.assert_close(count, weights[labels[labels >= 0]].sum())
    (3 * total).backward()
    (3 * expected).backward()
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our.grad, their.grad)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("chunked", [False, True])
def test_smoothing_and_weights_are_those_of_pytorch(weighted, chunked):
    hidden, weight, bias = inputs()
    labels = torch.tensor(LABELS["a few left out"])
    class_weights = torch.linspace(0.2, 2, 7, dtype=torch.float64) if weighted else None
    total, count = linear_cross_entropy(
        hidden, weight, labels, bias, label_smoothing=0.1, class_weights=class_weights, chunked=chunked
    )
    mean = F.cross_entropy(F.linear(hidden, weight, bias), labels, class_weights, label_smoothing=0.1)
    torch.testing.assert_close(total / count, mean)


def test_extras_in_bfloat16_keep_the_digits_of_the_sum():
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(64, 16, generator=generator), torch.randn(500, 16, generator=generator) * 0.2
    labels = torch.randint(0, 500, (64,), generator=generator)
    options = {"label_smoothing": 0.1, "z_loss": 1e-3, "softcap": 5.0}
    hidden, weight = hidden.bfloat16(), weight.bfloat16()
    exact, _ = linear_cross_entropy(hidden.double(), weight.double(), labels, chunked=False, **options)
    for chunked in (False, True):
        total, _ = linear_cross_entropy(hidden, weight, labels, chunked=chunked, **options)
        assert total.item() == pytest.approx(exact.item(), rel=1e-3)


def teacher_of_seven_tokens():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in [(11, 3), (7, 3), (7,)]]


@pytest.mark.parametrize("form", ["logits", "states", "states and bias"])
@pytest.mark.parametrize(("temperature", "scale", "softcap"), [(1.0, 1.0, None), (2.5, 0.4, None), (2.5, 0.4, 1.5)])
@pytest.mark.parametrize(("chunked", "rows"), FORMS)
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_distillation(labels, chunked, rows, temperature, scale, softcap, form):
    labels = torch.tensor(labels)
    states, matrix, bias = teacher_of_seven_tokens()
    scores = states @ matrix.T * scale + (bias if form == "states and bias" else 0)
    scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
    teacher = {"logits": scores, "states": (states, matrix), "states and bias": (states, matrix, bias)}[form]
    options = {} if form == "logits" else {"teacher_scale": scale, "teacher_softcap": softcap}
    ours, theirs = inputs(), inputs()
    total, count = linear_distillation(
        *ours[:2], labels, teacher, ours[2], temperature=temperature, scale=scale, softcap=softcap,
        chunked=chunked, chunk_rows=rows, **options,
    )  # fmt: skip
    student = scale * theirs[0] @ theirs[1].T + theirs[2]
    student = student if softcap is None else softcap * torch.tanh(student / softcap)
    log_p, log_q = (scores / temperature).log_softmax(-1), (student / temperature).log_softmax(-1)
    expected = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)[labels >= 0].sum() * temperature**2
    torch.testing.assert_close(total, expected)
    assert count.item() == (labels >= 0).sum()
    (2 * total).backward()
    (2 * expected).backward()
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our.grad, their.grad)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_teacher_may_rule_tokens_out(chunked):
    hidden, weight, bias = inputs()
    states, matrix, _ = teacher_of_seven_tokens()
    scores = states @ matrix.T
    scores[:, 2] = -math.inf
    total, _ = linear_distillation(hidden, weight, torch.ones(11, dtype=torch.long), scores, bias, chunked=chunked)
    total.backward()
    p, log_q = scores.softmax(-1), F.linear(hidden, weight, bias).log_softmax(-1)
    expected = (torch.special.xlogy(p, p) - p * log_q).sum()
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(bias.grad, (log_q.exp() - p).sum(0))


@pytest.mark.parametrize("chunked", [False, True])
def test_what_stands_in_rows_left_out_of_distillation_does_not_matter(chunked):
    hidden, weight, _ = inputs()
    states, matrix, _ = teacher_of_seven_tokens()
    states[1] = math.nan
    labels = torch.tensor(LABELS["a few left out"])
    total, _ = linear_distillation(hidden, weight, labels, (states, matrix), chunked=chunked)
    total.backward()
    assert total.isfinite() and hidden.grad.isfinite().all() and weight.grad.isfinite().all()
    assert (hidden.grad[1] == 0).all() and (hidden.grad[0] != 0).all()


@pytest.mark.parametrize("chunked", [False, True])
def test_distillation_under_autocast(chunked):
    hidden, weight, bias = (x.detach().float().requires_grad_() for x in inputs())
    states, matrix, theirs = (x.float() for x in teacher_of_seven_tokens())
    labels = torch.tensor(LABELS["a few left out"])
    expected, _ = linear_distillation(hidden, weight, labels, (states, matrix, theirs), bias, chunked=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        teacher = (states.bfloat16(), matrix, theirs)
        total, _ = linear_distillation(hidden.bfloat16(), weight, labels, teacher, bias, chunked=chunked)
    total.backward()
    assert total.dtype == weight.grad.dtype == torch.float32
    assert total.item() == pytest.approx(expected.item(), rel=2e-2)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_a_temperature_is_positive(temperature):
    hidden, weight, _ = inputs()
    with pytest.raises(ConfigError, match="temperature"):
        linear_distillation(hidden, weight, torch.ones(11, dtype=torch.long), (hidden, weight), temperature=temperature)


@pytest.mark.parametrize("chunked", [False, True])
def test_no_rows_at_all(chunked):
    _, weight, bias = inputs()
    hidden, labels = torch.empty(0, 5, dtype=torch.float64, requires_grad=True), torch.empty(0, dtype=torch.long)
    for total, count in (
        linear_cross_entropy(hidden, weight, labels, bias, scale=0.5, label_smoothing=0.1, chunked=chunked),
        linear_distillation(hidden, weight, labels, hidden @ weight.T, bias, scale=0.5, chunked=chunked),
    ):
        total.backward()
        assert (total.item(), count.item()) == (0.0, 0.0)
        assert (weight.grad == 0).all() and (bias.grad == 0).all()


def test_what_the_sum_is_divided_by_is_not_rounded_to_bfloat16():
    # 1 / 900 is 0.25 % off in bfloat16; the chunked form multiplies its finished gradients by it.
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(900, 64, generator=generator).bfloat16().requires_grad_()
    weight = (torch.randn(500, 64, generator=generator) * 0.1).bfloat16().requires_grad_()
    labels = torch.randint(0, 500, (900,), generator=generator)
    exact = [x.detach().double().requires_grad_() for x in (hidden, weight)]
    for matrices, chunked in (((hidden, weight), True), (exact, False)):
        total, count = linear_cross_entropy(*matrices, labels, chunked=chunked)
        (total / count).backward()
    for our, their in zip((hidden, weight), exact, strict=True):
        length = (our.grad.double() * their.grad).sum() / their.grad.square().sum()
        assert length.item() == pytest.approx(1, abs=1e-3)


def test_a_student_like_its_teacher_has_nothing_to_learn():
    hidden, weight, _ = inputs()
    total, _ = linear_distillation(hidden, weight, torch.ones(11, dtype=torch.long), (hidden.detach(), weight.detach()))
    total.backward()
    assert total.item() == pytest.approx(0, abs=1e-12)
    assert hidden.grad.abs().max() < 1e-12


def test_classification_with_smoothing_and_weights():
    logits, labels = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 2, -100, 1, 2])
    weights = torch.tensor([0.5, 1.0, 3.0])
    total, count = cross_entropy(logits, labels, label_smoothing=0.2, class_weights=weights)
    torch.testing.assert_close(total / count, F.cross_entropy(logits, labels, weights, label_smoothing=0.2))
    assert count.item() == 0.5 + 3 + 1 + 3
    assert cross_entropy(logits, labels, label_smoothing=0.2)[1].item() == 4


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"label_smoothing": 1.0}, "loss.label_smoothing"),
        ({"label_smoothing": -0.1}, "loss.label_smoothing"),
        ({"smoothing": "all"}, "loss.smoothing 'all'"),
        ({"z_loss": -1.0}, "loss.z_loss"),
        ({"z_loss": math.inf}, "loss.z_loss"),
    ],
)
def test_wrong_settings(values, part):
    with pytest.raises(ConfigError, match=part):
        LossConfig(**values)


def test_combinations_that_mean_nothing():
    hidden, weight, _ = inputs()
    labels = torch.tensor(LABELS["all"])
    with pytest.raises(ConfigError, match="padding token"):
        linear_cross_entropy(hidden, weight, labels, label_smoothing=0.1, smoothing="no_pad")
    with pytest.raises(ConfigError, match="class weights"):
        linear_cross_entropy(
            hidden, weight, labels, label_smoothing=0.1, smoothing="others", class_weights=torch.ones(7)
        )
