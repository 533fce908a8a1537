"""Sources of a mixture are evaluated together and each by itself."""

from __future__ import annotations

import json

import pytest
import torch

from lightning_nlp.data.causal_lm import CausalLMData
from lightning_nlp.data.evaluation import EvalRows
from lightning_nlp.data.order.mixture import MixtureConfig, MixtureSource
from lightning_nlp.data.tokenizers.config import TokenizerConfig
from lightning_nlp.errors import DataError
from lightning_nlp.metrics.language_model import LanguageModelMetrics
from lightning_nlp.metrics.tokens import TokenMetrics


def mixture(tmp_path, rows, **settings):
    """Data of sources ``{name: rows}``, each with a file for training and one for validation."""
    for name, own in rows.items():
        (tmp_path / name).mkdir()
        for split in ("train", "valid"):
            (tmp_path / name / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    sources = {name: MixtureSource(str(tmp_path / name)) for name in rows}
    defaults = {"max_length": 8, "global_batch_size": 4, "lanes": 4, "tokenizer": TokenizerConfig(kind="byte")}
    data = CausalLMData(mixture=MixtureConfig(sources), **{**defaults, **settings})
    data.prepare_data()
    data.setup("fit")
    data.plan(1, 0)
    return data


TEXTS = {"one": [{"text": "a" * size} for size in (3, 20, 1)], "two": [{"text": "b" * size} for size in (7, 2)]}


@pytest.mark.parametrize("ranks", [1, 2])
def test_batches_are_of_one_source_and_hold_every_token_once(tmp_path, ranks):
    data = mixture(tmp_path, TEXTS)
    assert data.facts()["sources"] == ["one", "two"]
    found = {"one": [], "two": []}
    steps = set()
    for rank in range(ranks):
        rows = EvalRows(
            data.split("validation"),
            data.prepare,
            mode="packed",
            max_length=8,
            micro_batch=1,
            data_ranks=ranks,
            rank=rank,
        )
        batches = [data.collate(group) for group in rows]
        steps.add(len(batches))
        for batch in batches:
            labels = batch["labels"][batch["labels"] >= 0].tolist()
            if labels:
                found[batch["origin"]] += labels
            else:
                assert "origin" not in batch
    assert len(steps) == 1
    tokenizer = data.tokenizer
    for name, letter in (("one", "a"), ("two", "b")):
        texts = [row["text"] for row in TEXTS[name]]
        assert sorted(found[name]) == sorted(
            [tokenizer.encode(letter)[0]] * sum(map(len, texts)) + [tokenizer.eos_id] * len(texts)
        )


@pytest.mark.parametrize("streaming", [False, True])
def test_a_bad_row_of_a_source_is_named_with_its_file(tmp_path, streaming):
    bad = {"one": [{"text": "fine"}], "two": [{"text": "fine"}, {"text": 5}]}
    data = mixture(tmp_path, bad, streaming=streaming) if not streaming else mixture_of_streams(tmp_path, bad)
    with pytest.raises(DataError, match=r"two/valid\.jsonl row 2: column 'text' holds int, not text"):
        list(data.val_dataloader())


def mixture_of_streams(tmp_path, rows):
    data = mixture(tmp_path, rows)
    config = {name: MixtureSource(part.path, streaming=True, size=2) for name, part in data.mixture.sources.items()}
    data.mixture = MixtureConfig(config)
    data.open()
    return data


def test_a_single_source_is_measured_as_before(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": "hello"}\n' * 30)
    data = CausalLMData(
        str(tmp_path / "rows.jsonl"), tokenizer=TokenizerConfig(kind="byte"), lanes=4, global_batch_size=4
    )
    data.prepare_data()
    data.setup("fit")
    assert data.facts()["sources"] == []
    assert all("origin" not in batch for batch in data.val_dataloader())


@pytest.mark.parametrize(("kind", "third"), [(LanguageModelMetrics, "bits_per_byte"), (TokenMetrics, "accuracy")])
def test_the_whole_and_its_parts(kind, third):
    whole, one, metric = kind(), kind(), kind(["one", "two", "never"])
    for number, source in enumerate(["one", "two", "one", None, "unknown"], 1):
        values = [torch.tensor(float(number * part)) for part in (3, 4, 2)]
        for each in (whole, metric, *([one] if source == "one" else [])):
            each.update(*values, source)
    found = metric.compute()
    assert {name: value for name, value in found.items() if "/" not in name} == whole.compute()
    assert {name[4:]: value for name, value in found.items() if name.startswith("one/")} == one.compute()
    assert found["two/loss"] == 0.75 and f"two/{third}" in found
    assert not any(name.startswith(("never/", "unknown/")) for name in found)
    metric.reset()
    assert set(metric.compute()) == {name for name in kind().compute()}
