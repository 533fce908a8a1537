"""The classification head: losses of each problem by hand, padding that counts nothing, answers, token types."""

from __future__ import annotations

import math

import pytest
import torch

import lightning_nlp
from lightning_nlp.errors import ConfigError

SHAPE = {
    "vocab_size": 40,
    "arrangement": "encoder",
    "n_layers": 1,
    "d_model": 16,
    "n_heads": 2,
    "max_length": 16,
    "init_std": 0.5,
}
LABELS = {"single": ["a", "b", "c"], "multi_label": ["a", "b", "c"], "regression": None}
NAN = math.nan


def make(problem, labels="as usual", **shape):
    torch.manual_seed(0)
    config = lightning_nlp.TransformerConfig(**{**SHAPE, **shape})
    labels = LABELS.get(problem) if labels == "as usual" else labels
    module = lightning_nlp.TextClassification(config, labels=labels, problem=problem)
    module.configure_model()
    return module.eval()


def batch_of(labels, rows=3):
    tokens = torch.randint(1, 40, (rows, 6), generator=torch.Generator().manual_seed(1))
    positions = torch.arange(6).expand(rows, 6)
    ids, texts = [[str(row)] for row in range(rows)], [f"text {row}" for row in range(rows)]
    segments = torch.ones(rows, 6, dtype=torch.long)
    return {
        "tokens": tokens,
        "segments": segments,
        "positions": positions,
        "labels": labels,
        "example_ids": ids,
        "texts": texts,
    }


def by_hand(problem, scores, labels):
    total, count = 0.0, 0
    for row, label in zip(scores.double().tolist(), labels.tolist(), strict=True):
        if problem == "single" and label != -100:
            total, count = total + math.log(sum(map(math.exp, row))) - row[label], count + 1
        elif problem == "multi_label" and not math.isnan(label[0]):
            for score, wanted in zip(row, label, strict=True):
                total, count = total + math.log1p(math.exp(-score if wanted else score)), count + 1
        elif problem == "regression" and not math.isnan(label):
            total, count = total + (row[0] - label) ** 2, count + 1
    return total, count


TARGETS = {
    "single": torch.tensor([2, -100, 0]),
    "multi_label": torch.tensor([[1.0, 0, 1], [0, 0, 0], [NAN, NAN, NAN]]),
    "regression": torch.tensor([0.25, NAN, -3.0]),
}
METRICS = {
    "single": {"loss", "accuracy", "macro_f1", "mcc"},
    "multi_label": {"loss", "micro_f1", "macro_f1", "exact_match"},
    "regression": {"loss", "pearson", "spearman"},
}


@pytest.mark.parametrize("problem", TARGETS)
def test_losses_by_hand_and_metrics(problem):
    module = make(problem)
    head, backbone = module.head, module.backbone
    batch = batch_of(TARGETS[problem])
    total, count = head(backbone, batch)["loss"]
    expected, number = by_hand(problem, head.logits(backbone, batch), batch["labels"])
    assert (float(total.detach()), float(count)) == (pytest.approx(expected, rel=1e-5), number)
    total.backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in head.parameters())
    head.update(backbone, batch)
    found = head.compute()
    assert set(found) == METRICS[problem] == set(head.metric_names)
    assert set(module.monitors()) == {f"val/{name}" for name in METRICS[problem]}
    assert found["loss"] == pytest.approx(expected / number, rel=1e-5)
    assert set(head.signatures()) == METRICS[problem]
    head.reset()
    assert head.compute()["loss"] == 0.0


@pytest.mark.parametrize("problem", TARGETS)
def test_a_padding_row_alone_is_no_error(problem):
    module = make(problem)
    labels = torch.full_like(TARGETS[problem][:1], -100 if problem == "single" else NAN)
    batch = {**batch_of(labels, 1), "segments": torch.zeros(1, 6, dtype=torch.long), "example_ids": [[]]}
    total, count = module.head(module.backbone, batch)["loss"]
    assert (float(total), float(count)) == (0.0, 0.0)
    module.head.update(module.backbone, batch)
    assert list(module.head.predict(module.backbone, batch)) == [] and module.head.compute()["loss"] == 0.0


@pytest.mark.parametrize("problem", TARGETS)
def test_answers(problem):
    module = make(problem)
    batch = batch_of(TARGETS[problem])
    scores = module.head.logits(module.backbone, batch)
    for row, record in enumerate(module.head.predict(module.backbone, batch)):
        assert (record["id"], record["text"]) == (str(row), f"text {row}")
        if problem == "single":
            best = "abc"[int(scores[row].argmax())]
            assert record["prediction"] == best and record["score"] == record["scores"][best] == max(
                record["scores"].values()
            )
            assert sum(record["scores"].values()) == pytest.approx(1, abs=1e-6)
        elif problem == "multi_label":
            assert record["prediction"] == [name for name, score in zip("abc", scores[row], strict=True) if score > 0]
            assert list(record["scores"].values()) == pytest.approx(scores[row].sigmoid().tolist(), abs=1e-6)
        else:
            assert record["prediction"] == pytest.approx(float(scores[row, 0]))


def test_the_data_says_what_the_problem_is():
    config = lightning_nlp.TransformerConfig(**SHAPE)
    module = lightning_nlp.TextClassification(config)
    module.resolve({"problem": "multi_label", "labels": ["x"]})
    module.configure_model()
    assert (module.head.problem, module.head.output.out_features) == ("multi_label", 1)
    again = lightning_nlp.TextClassification(**module.plain_hyperparameters())
    again.configure_model()
    assert again.head.problem == "multi_label" and again.plain_hyperparameters() == module.plain_hyperparameters()
    assert make("auto", ["a", "b"]).head.problem == "single"
    with pytest.raises(ConfigError, match=r"model.problem is regression, the data's is single"):
        lightning_nlp.TextClassification(config, problem="regression").resolve({"problem": "single", "labels": ["a"]})


@pytest.mark.parametrize(
    ("problem", "labels", "message"),
    [
        ("single", ["a"], "classification needs at least two labels, there are 1"),
        ("auto", None, "classification needs at least two labels, there are 0"),
        ("multi_label", [], "multi_label needs at least one label"),
        ("regression", ["a", "b"], "model.problem regression has none"),
    ],
)
def test_mistakes(problem, labels, message):
    with pytest.raises(ConfigError, match=message):
        make(problem, labels)


def test_token_types_are_told_to_a_backbone_that_has_them():
    batch = batch_of(TARGETS["single"])
    types = {**batch, "token_types": torch.tensor([[0, 0, 0, 1, 1, 1]] * 3)}
    plain, typed = make("single"), make("single", token_types=2)
    assert torch.equal(plain.head.logits(plain.backbone, types), plain.head.logits(plain.backbone, batch))
    assert not torch.equal(typed.head.logits(typed.backbone, types), typed.head.logits(typed.backbone, batch))
