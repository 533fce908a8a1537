"""With shards or without: the same rows, the same order, the same states."""

from __future__ import annotations

import random

import pytest
import torch
from prepared_corpora import ready, shards_of, taken, write_rows

from lightning_nlp.data.causal_lm import CausalLMData
from lightning_nlp.data.masked_lm import MaskedLMData
from lightning_nlp.data.order import bulk
from lightning_nlp.data.order.bulk import BulkStream
from lightning_nlp.data.order.mixture import MixtureConfig, MixtureSource
from lightning_nlp.data.prepared.source import PreparedSource
from lightning_nlp.data.sequence_to_sequence import SequenceToSequenceData
from lightning_nlp.data.sources.filters import Filter
from lightning_nlp.data.text_classification import TextClassificationData
from lightning_nlp.data.tokenizers.tokenizer import TokenizerConfig

BYTE = TokenizerConfig(kind="byte")
BARE = TokenizerConfig(kind="byte", special_tokens=False)
BPE = TokenizerConfig(kind="bpe", vocab_size=320)
SMALL = {"global_batch_size": 8, "lanes": 4, "block_rows": 8, "seed": 3}
KINDS = {
    "causal_lm": (CausalLMData, {"max_length": 24, "tokenizer": BPE}),
    "causal_lm, no special tokens": (CausalLMData, {"max_length": 24, "tokenizer": BARE}),
    "causal_lm, fitted": (CausalLMData, {"max_length": 24, "tokenizer": BPE, "packing": "first_fit"}),
    "causal_lm, growing": (CausalLMData, {"max_length": 9, "tokenizer": BPE, "batch_ramp": {0: 4, 3: 8}, "micro_batch_size": 4}),
    "causal_lm, stream": (CausalLMData, {"max_length": 24, "tokenizer": BPE, "streaming": True}),
    "causal_lm, filtered": (CausalLMData, {"max_length": 24, "tokenizer": BPE, "filters": [Filter("text", min_length=30)]}),
    "causal_lm, bad rows": (CausalLMData, {"max_length": 24, "tokenizer": BPE, "bad_rows": "skip", "bad_rows_budget": 1e6, "also_bad": ["empty", "duplicate_id"]}),
    "causal_lm, long": (CausalLMData, {"max_length": 24, "tokenizer": BPE, "bad_rows": "skip", "bad_rows_budget": 1e6, "also_bad": ["long"]}),
    "causal_lm, workers": (CausalLMData, {"max_length": 24, "tokenizer": BPE, "workers": 2}),
    "causal_lm, part": (CausalLMData, {"max_length": 24, "tokenizer": BPE, "take": 30}),
    "masked_lm": (MaskedLMData, {"max_length": 24, "tokenizer": BPE}),
    "masked_lm, words": (MaskedLMData, {"max_length": 24, "tokenizer": BPE, "whole_word": True}),
    "sequence_to_sequence": (SequenceToSequenceData, {"max_source_length": 20, "tokenizer": BPE}),
    "sequence_to_sequence, tokens": (SequenceToSequenceData, {"max_source_length": 20, "tokenizer": BPE, "global_batch_size": None, "global_batch_tokens": 1800}),
    "classification": (TextClassificationData, {"max_length": 20, "tokenizer": BPE}),
}  # fmt: skip
STEPS = 40  # several epochs of 60 rows


@pytest.fixture(autouse=True)
def own_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_NLP_DATA", str(tmp_path / "data"))


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """``pair(kind)``: a module without and one with shards, made once."""
    folder = tmp_path_factory.mktemp("pairs")
    corpus, made = write_rows(folder / "corpus"), {}

    def get(kind):
        if kind not in made:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("LIGHTNING_NLP_DATA", str(folder / kind))
                made[kind] = both(corpus, kind)
        return made[kind]

    return get


def both(corpus, kind, **more):
    """A module without and one with shards, which are made here."""
    maker, settings = KINDS[kind]
    settings = {**SMALL, **settings, **more}
    without = ready(maker(str(corpus), prepared="none", **settings))
    shards_of(maker(str(corpus), **settings))
    return without, ready(maker(str(corpus), **settings))


@pytest.mark.parametrize("kind", KINDS)
def test_the_rows_of_a_run_are_the_same(kind, pair):
    without, prepared = pair(kind)
    assert all(isinstance(source, PreparedSource) for source in prepared.splits.values())
    assert not any(isinstance(source, PreparedSource) for source in without.splits.values())
    assert prepared.tokenizer_hash == without.tokenizer_hash
    one, two = without.train_dataloader(), prepared.train_dataloader()
    one_by_one = ("fitted", "stream", "bad rows", "long")
    assert isinstance(prepared._stream, BulkStream) == (kind.startswith("causal_lm") and not kind.endswith(one_by_one))
    assert taken(two, STEPS) == taken(one, STEPS)
    assert prepared.order_fingerprint == without.order_fingerprint
    assert prepared._stream.state(prepared._stream.step)["step"] == without._stream.step
    assert taken(prepared.val_dataloader()) == taken(without.val_dataloader())
    assert taken(prepared.test_dataloader()) == taken(without.test_dataloader())


def unmarked(state):
    """Without the marks of streams, which shards need not have."""
    lanes = {number: {**lane, "mark": None} for number, lane in state["lanes"].items()}
    return {**state, "lanes": lanes}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", [2, 23])
def test_shards_may_appear_or_disappear_at_a_resume(kind, at, pair):
    without, prepared = pair(kind)
    for first, then in ((without, prepared), (prepared, without)):
        batches = iter(first.train_dataloader())
        micro = first.accumulation
        for _ in range(at * micro):
            next(batches)
        state = first._stream.state(at)
        expected = taken(batches, 12)
        then._restored = state
        assert taken(then.train_dataloader(), 12) == expected
        assert unmarked(then._stream.state(then._stream.step)) == unmarked(first._stream.state(then._stream.step))
        then._restored = None
        first._stream.close(), then._stream.close()


def test_states_are_those_of_packed_lanes_after_every_step(tmp_path, monkeypatch):
    monkeypatch.setattr(bulk, "DRAWN", 24 * 8 * 5)
    without, prepared = both(write_rows(tmp_path / "corpus"), "causal_lm")
    one, two = iter(without.train_dataloader()), iter(prepared.train_dataloader())
    for step in range(STEPS):
        for back in range(min(step + 1, 4)):
            assert prepared._stream.state(step - back) == without._stream.state(step - back)
            assert prepared._stream.counts(step - back) == without._stream.counts(step - back)
        for stream in (without._stream, prepared._stream):
            with pytest.raises(KeyError):
                stream.state(step - 4)
        next(one), next(two)


@pytest.mark.parametrize("seed", range(10))
def test_bulk_rows_in_any_shape(seed, tmp_path, monkeypatch):
    draw = random.Random(seed)
    length, lanes = draw.choice([1, 2, 7, 33, 300]), draw.choice([1, 2, 4, 8])
    rows = (
        lanes * draw.choice([1, 2, 3])
        if draw.random() < 0.5
        else draw.choice([n for n in (1, 2, 4, 8) if lanes % n == 0])
    )
    ranks = draw.choice([n for n in (1, 2, 4) if lanes % n == 0 and rows % n == 0])
    monkeypatch.setattr(bulk, "DRAWN", draw.choice([1, 500, 5000]))
    monkeypatch.setattr(bulk, "FILLED", draw.choice([1, 300, 5000]))
    monkeypatch.setattr("lightning_nlp.data.prepared.preparing.SHARD_TOKENS", draw.choice([50, 700, 1 << 20]))
    monkeypatch.setattr("lightning_nlp.data.prepared.preparing.UNIT_BYTES", (300, 5000))
    monkeypatch.setattr("lightning_nlp.data.prepared.preparing.CHUNK_ROWS", 3)
    more = {"max_length": length, "lanes": lanes, "global_batch_size": rows, "block_rows": draw.choice([1, 8, 64])}
    more |= {"tokenizer": draw.choice([BYTE, BARE, BPE]), "shuffle": draw.random() < 0.8}
    corpus = write_rows(tmp_path / "corpus", rows=draw.choice([3, 40]), seed=seed)
    without, prepared = both(corpus, "causal_lm", **more)
    for rank in range(ranks):
        for data in (without, prepared):
            data.plan(ranks, rank)
        assert taken(prepared.train_dataloader(), 25) == taken(without.train_dataloader(), 25)
        assert prepared._stream.state(25) == without._stream.state(25)


def test_batches_are_views_that_do_not_overlap(tmp_path):
    _, prepared = both(write_rows(tmp_path / "corpus"), "causal_lm")
    batches = iter(prepared.train_dataloader())
    first, second = next(batches), next(batches)
    kept = second["tokens"].clone()
    first["tokens"].fill_(7)
    assert torch.equal(second["tokens"], kept)
    assert first["tokens"].is_contiguous() and first["tokens"].dtype == torch.int64


def test_a_mixture_uses_what_is_prepared_of_it(tmp_path, capfd):
    one, two = (write_rows(tmp_path / name, seed=seed) for seed, name in enumerate(("one", "two")))
    settings = {**SMALL, "max_length": 24, "tokenizer": BPE}
    sources = {"one": MixtureSource(str(one)), "two": MixtureSource(str(two), columns={"text": "source"})}
    make = lambda prepared: CausalLMData(mixture=MixtureConfig(sources), prepared=prepared, **settings)  # noqa: E731
    without = ready(make("none"))
    from lightning_nlp.cli.prepare import prepare

    prepare(make("auto"), 1)
    prepared = ready(make("auto"))
    assert "using prepared shards" in capfd.readouterr().err
    parts = prepared.splits["train"].parts
    assert all(isinstance(part, PreparedSource) for part in parts.values())
    assert taken(prepared.train_dataloader(), STEPS) == taken(without.train_dataloader(), STEPS)
    assert taken(prepared.val_dataloader()) == taken(without.val_dataloader())
    assert prepared.order_fingerprint == without.order_fingerprint


def test_predictions_have_their_texts(tmp_path):
    _, prepared = both(write_rows(tmp_path / "corpus"), "sequence_to_sequence")
    assert isinstance(prepared.splits["test"], PreparedSource)
    prepared.setup("predict")
    batch = next(iter(prepared.predict_dataloader()))
    assert all(isinstance(text, str) and text for text in batch["texts"])
    prepared.setup("fit")
    assert isinstance(prepared.splits["test"], PreparedSource)
