"""Examples that heads give to reports, and the report as people read it."""

from __future__ import annotations

import json
import math

import pytest
import torch
import torch.nn.functional as F

import lightning_nlp
from lightning_nlp import registry
from lightning_nlp.callbacks.report import SHORT, Report, markdown
from lightning_nlp.data.tokenizers.tokenizer import Tokenizer

N = -100
SHAPE = {"n_layers": 1, "d_model": 32, "n_heads": 2, "max_length": 64, "init_std": 0.4}
TEXTS = ["the cat sat", "on a mat and there it sat", "äöü"]


def make(task, arrangement, **more):
    tokenizer = Tokenizer.train([], lightning_nlp.TokenizerConfig(kind="byte", mask_token=True))
    torch.manual_seed(0)
    start = {"decoder_start_id": 1} if arrangement == "encoder_decoder" else {}
    backbone = lightning_nlp.TransformerConfig(
        **SHAPE, arrangement=arrangement, vocab_size=tokenizer.vocab_size, **start
    )
    module = registry.load(registry.TASKS, task)(backbone, **more)
    module.configure_model()
    module.head.tokenizer = tokenizer
    return module.eval()


def field(rows, fill=0):
    length = max(map(len, rows))
    return torch.tensor([[*row, *[fill] * (length - len(row))] for row in rows])


def examined(module, *batches, number=20):
    head = module.head
    head.watch(number)
    with torch.no_grad():
        for batch in batches:
            head.update(module.backbone, batch)
        head.compute()
        found = head.chosen(module.backbone, "cpu")
    assert head.examples is None
    return found


def packed(module):
    """Two rows: two texts in the first, the third alone in the second, and padding."""
    ids = [module.head.tokenizer.encode(text) for text in TEXTS]
    rows = [[(ids[0], 1), (ids[1], 2)], [(ids[2], 1)]]
    return {
        "tokens": field([[token for part, _ in row for token in part] for row in rows]),
        "labels": field([[token for part, _ in row for token in [*part[1:], 2]] for row in rows], N),
        "segments": field([[number for part, number in row for _ in part] for row in rows]),
        "positions": field([[place for part, _ in row for place in range(len(part))] for row in rows]),
        "example_ids": [["a", "b@5"], ["c"]],
        "bytes": torch.tensor([30, 6]),
        "task": "lm",
    }


def test_documents_of_a_packed_row_are_examples_of_their_own():
    module = make("CausalLM", "decoder")
    batch = packed(module)
    worst = examined(module, batch)["worst"]
    assert {record["id"]: record["text"] for record in worst} == dict(zip(("a", "b@5", "c"), TEXTS, strict=True))
    hidden = module.head.hidden(module.backbone, batch)
    scores = module.head.scores(module.backbone, hidden).double()
    for record in worst:
        row, number = {"a": (0, 1), "b@5": (0, 2), "c": (1, 1)}[record["id"]]
        there = batch["segments"][row] == number
        losses = F.cross_entropy(scores[row][there], batch["labels"][row][there], reduction="none")
        assert record["score"] == pytest.approx(float(losses.detach().mean()), rel=1e-5)
        assert record["hardest"][0]["loss"] == pytest.approx(float(losses.detach().max()), rel=1e-5)
        assert [token["loss"] for token in record["hardest"]] == sorted(
            (token["loss"] for token in record["hardest"]), reverse=True
        )
    assert [record["id"] for record in worst][-1] == "c"  # six labels say less than eight


def test_what_is_hidden_is_shown_beside_what_was_there():
    module = make("MaskedLM", "encoder")
    known = module.head.tokenizer
    ids = known.encode(TEXTS[0])
    labels = [N] * len(ids)
    labels[4], labels[5], shown = ids[4], ids[5], [*ids]
    shown[4] = known.mask_id
    batch = {
        "tokens": field([shown]),
        "labels": field([labels]),
        "segments": field([[1] * len(ids)]),
        "positions": field([range(len(ids))]),
        "example_ids": [["a"]],
    }
    (record,) = examined(module, batch)["random"]
    assert record["target"] == TEXTS[0] and record["prediction"] != TEXTS[0]
    assert record["text"] == f"{TEXTS[0][:4]}<mask>{TEXTS[0][5:]}"
    assert {token["target"] for token in record["hardest"]} == set(TEXTS[0][4:6])


@pytest.mark.parametrize("metrics", [["bleu"], []])
@pytest.mark.parametrize("thorough", [True, False])
def test_answers_are_decoded_once_for_metrics_or_at_the_end(metrics, thorough):
    module = make(
        "SequenceToSequence",
        "encoder_decoder",
        metrics=metrics,
        generation=lightning_nlp.GenerationConfig(max_new_tokens=6),
    )
    module.head.thorough = thorough
    known = module.head.tokenizer
    sources, targets = ([known.encode(text) for text in side] for side in (TEXTS, TEXTS[::-1]))
    batch = {
        "tokens": field([[1, *ids[:-1]] for ids in targets]),
        "labels": field(targets, N),
        "segments": field([[1] * len(ids) for ids in targets]),
        "positions": field([range(len(ids)) for ids in targets]),
        "source_tokens": field(sources),
        "source_segments": field([[1] * len(ids) for ids in sources]),
        "source_positions": field([range(len(ids)) for ids in sources]),
        "places": torch.arange(3),
        "example_ids": [["a"], ["b"], ["c"]],
    }
    calls, write = [], module.head.write
    module.head.write = lambda *args, **options: calls.append(len(args[1])) or write(*args, **options)
    found = examined(module, batch)
    assert calls == [3]
    for record in found["worst"]:
        row = "abc".index(record["id"])
        assert (record["source"], record["target"]) == (TEXTS[row], TEXTS[::-1][row])
        assert write(module.backbone, [sources[row]], module.head.evaluated_generation) == [record["prediction"]]
        assert set(record) == {"id", "score", "source", "prediction", "target"}


CLASSES = {
    "single": (torch.tensor([1, -100, 0]), ["yes", "no"], ["no", None, "yes"]),
    "multi_label": (torch.tensor([[1.0, 1.0], [math.nan] * 2, [0.0, 0.0]]), ["yes", "no"], [["yes", "no"], None, []]),
    "regression": (torch.tensor([0.5, math.nan, -2.0]), None, [0.5, None, -2.0]),
}


@pytest.mark.parametrize("problem", CLASSES)
@pytest.mark.parametrize("pair", [False, True])
def test_classes_labels_and_numbers(problem, pair):
    labels, names, targets = CLASSES[problem]
    module = make("TextClassification", "encoder", labels=names, problem=problem)
    ids = [module.head.tokenizer.encode(text) for text in TEXTS]
    batch = {
        "tokens": field(ids),
        "labels": labels,
        "segments": field([[1] * len(row) for row in ids]),
        "positions": field([range(len(row)) for row in ids]),
        "example_ids": [["a"], [], ["c"]],
    }
    if pair:
        batch["token_types"] = field([[0] * 4 + [1] * (len(row) - 4) for row in ids])
    found = examined(module, batch)
    logits = module.head.logits(module.backbone, batch)
    assert {record["id"] for record in found["worst"]} == {"a", "c"}
    for record in found["worst"]:
        row = "a c".index(record["id"])
        assert record["target"] == targets[row]
        loss, count = module.head.asked.loss(logits[row : row + 1], labels[row : row + 1])
        assert record["score"] == pytest.approx(float(loss.detach() / count), rel=1e-5)
        assert record["text"] + record.get("text_pair", "") == TEXTS[row]
        assert ("text_pair" in record) == pair
    assert set(module.head.details()) == set(names or [])


def test_without_somebody_to_read_them_there_are_no_examples():
    module = make("CausalLM", "decoder")
    module.head.each = None  # would be called
    with torch.no_grad():
        module.head.update(module.backbone, packed(module))
    assert module.head.examples is None


def test_the_report(tmp_path):
    records = [
        {"id": "a|b", "score": 1.5, "text": "one\n| two", "prediction": ["x", "y"], "target": []},
        {
            "id": "long",
            "score": None,
            "text": "word " * 500,
            "hardest": [{"after": "a\nb", "target": "c", "prediction": "d", "loss": 2.0}],
        },
    ]
    found = {
        "checkpoint": "runs/x/checkpoints/step-3.ckpt",
        "step": 3,
        "metrics": {"test/bleu": 12.3456789},
        "signatures": {"bleu": "tok:13a|case:lc"},
    }
    report = Report()
    report.details = {"classification": {"a|b": {"f1": 0.5, "support": 3}}}
    report.examples = {"classification": {"score": "loss a label", "worst": records, "random": records[:1]}}
    text = report.write(tmp_path, "test.test", found).read_text()
    assert (
        json.loads((tmp_path / "test.test.json").read_text())["examples"]["classification"]["worst"][1]["text"]
        == "word " * 500
    )
    for line in (
        r"| test/bleu | 12.3457 | `tok:13a\|case:lc` |",
        r"| a\|b | 0.5 | 3 |",
        "### 1. a|b: loss a label 1.5",
        "    text       one | two",
        "    prediction x, y",
        "    target     (none)",
        "### 2. long: loss a label not finite",
        "    hardest    2.00  c after ...a b  (predicted: d)",
    ):
        assert line in text.splitlines()
    assert max(map(len, text.splitlines())) < SHORT + 40
    assert text == markdown("test.test", found, report.details, report.examples)


def test_special_tokens_within_a_text_are_shown():
    known = make("CausalLM", "decoder").head.tokenizer
    first, second = known.encode("one"), known.encode("two")
    ids = [known.bos_id, *first, known.eos_id, *second, known.eos_id]
    assert known.decode(ids) == "onetwo"
    assert known.decode_all(ids) == "one<eos>two"
    assert known.decode_all([known.bos_id, known.eos_id]) == known.decode_all([]) == ""
