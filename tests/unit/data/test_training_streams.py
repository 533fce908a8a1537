"""Every way to batch, through the DataModules: the same global batches on any ranks, after any stop, exactly."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lightning_nlp.data.causal_lm import CausalLMData
from lightning_nlp.data.order.mixture import MixtureConfig, MixtureSource
from lightning_nlp.data.sequence_to_sequence import SequenceToSequenceData
from lightning_nlp.data.tokenizers.tokenizer import TokenizerConfig
from lightning_nlp.errors import ConfigError, DataError

STEPS = 30


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpora")
    draw = np.random.default_rng(0)
    for name, rows in (("a", 150), ("b", 90)):
        (root / name).mkdir()
        with (root / name / "train.jsonl").open("w") as stream:
            for number in range(rows):
                size = int(np.clip(draw.lognormal(3.2, 0.8), 2, 60))
                text = "".join(draw.choice(list("abcdefgh "), size))
                stream.write(
                    json.dumps({"id": f"{name}{number}", "text": text, "target": text[::-1][: size // 2 + 1]}) + "\n"
                )
    return root


MIXED = {
    "sources": {"a": MixtureSource(path="a"), "b": MixtureSource(path="b")},
    "rates": "weights",
    "weights": {"a": 1, "b": 2},
}
KINDS = {
    "first_fit": (CausalLMData, {"packing": "first_fit", "global_batch_size": 8}),
    "ramp": (CausalLMData, {"batch_ramp": {0: 4, 7: 8, 12: 16}}),
    "mixture": (CausalLMData, {"mixture": MIXED, "global_batch_size": 8}),
    "mixture of tokens": (CausalLMData, {"mixture": {**MIXED, "unit": "tokens"}, "global_batch_size": 8}),
    "homogeneous": (CausalLMData, {"mixture": {**MIXED, "batches": "homogeneous"}, "global_batch_size": 8}),
    "stream": (CausalLMData, {"streaming": True, "global_batch_size": 8}),
    "tokens": (SequenceToSequenceData, {"global_batch_tokens": 1600}),
    "tokens, mixture": (SequenceToSequenceData, {"global_batch_tokens": 1600, "mixture": MIXED}),
    "pairs, homogeneous": (
        SequenceToSequenceData,
        {"global_batch_tokens": 1600, "mixture": {**MIXED, "batches": "homogeneous"}},
    ),
    "static": (SequenceToSequenceData, {"global_batch_size": 8, "static_shapes": True}),
}


def make(kind, corpora, ranks=1, rank=0, **more):
    factory, settings = KINDS[kind]
    settings = {**settings, **more, "lanes": 4, "tokenizer": TokenizerConfig(kind="byte"), "seed": 3}
    if "mixture" in settings:
        sources = {name: MixtureSource(path=str(corpora / name)) for name in "ab"}
        settings["mixture"] = MixtureConfig(**{**settings["mixture"], "sources": sources})
    else:
        settings["path"] = str(corpora / "a")
    if factory is CausalLMData:
        settings["max_length"] = 64
    else:
        settings |= {"source_column": "text", "max_source_length": 64, "max_target_length": 40}
    data = factory(**settings)
    data.prepare_data()
    data.setup("predict")
    data.plan(ranks, rank)
    return data


def steps(data, count):
    """Per step ``{row number: (ids, tokens, source)}``."""
    batches = iter(data.train_dataloader())
    found = []
    for _ in range(count):
        rows = {}
        for _ in range(data.accumulation):
            batch = next(batches)
            for place, number in enumerate(batch["row_ids"].tolist()):
                inside = batch["segments"][place] > 0
                source = batch.get("source_tokens")
                content = (
                    batch["example_ids"][place],
                    batch["tokens"][place][inside].tolist(),
                    None if source is None else source[place][batch["source_segments"][place] > 0].tolist(),
                )
                assert number not in rows
                rows[number] = content
        found.append(rows)
    return found


def joined(parts):
    return [{number: row for part in step for number, row in part.items()} for step in zip(*parts, strict=True)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_on_any_ranks_and_after_any_stop(kind, corpora):
    one = make(kind, corpora)
    expected = steps(one, STEPS)
    assert all(step for step in expected)
    two = [make(kind, corpora, 2, rank) for rank in range(2)]
    assert joined([steps(data, STEPS) for data in two]) == expected
    for stop in (0, 5, 13, 29):
        before = [make(kind, corpora, 2, rank) for rank in range(2)]
        for data in before:
            steps(data, stop)
        states = [data._stream.state(stop) for data in before]
        lanes = {lane: state for part in states for lane, state in part["lanes"].items()}
        state = json.loads(json.dumps({**states[0], "lanes": lanes}))  # plain values
        after = make(kind, corpora)
        after._restored = state
        assert steps(after, STEPS - stop) == expected[stop:]
        assert after.counts(STEPS) == one.counts(STEPS)


@pytest.mark.parametrize("kind", ["first_fit", "ramp", "mixture", "homogeneous", "stream", "tokens, mixture"])
def test_workers_change_nothing(kind, corpora):
    expected = steps(make(kind, corpora), STEPS)
    data = make(kind, corpora, workers=2)
    assert steps(data, 11) == expected[:11]
    state = json.loads(json.dumps(data._stream.state(11)))  # though the workers are further
    data.teardown("fit")
    for workers in (0, 4):
        after = make(kind, corpora, workers=workers)
        after._restored = state
        assert steps(after, STEPS - 11) == expected[11:]
        after.teardown("fit")
    two = [make(kind, corpora, 2, rank, workers=2) for rank in range(2)]
    assert joined([steps(data, STEPS) for data in two]) == expected
    for data in two:
        data.teardown("fit")
    with pytest.raises(ConfigError, match=r"data\.lanes 4 is not divisible by data\.workers 3"):
        make(kind, corpora, workers=3)


def test_what_a_worker_meets_is_told(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"text": "one"}\n{"text": ""}\n' * 20 + '{"text": "two"}\n{"text": null}\n')
    data = CausalLMData(
        str(tmp_path), validation_fraction=0.0, tokenizer=TokenizerConfig(kind="byte"), lanes=4, workers=2
    )
    data.prepare_data()
    data.setup("predict")
    data.plan(1, 0)
    with pytest.raises(DataError, match=r"train\.jsonl row 42: column 'text' is empty"):
        steps(data, 50)


def test_a_worker_that_dies_is_missed(corpora):
    data = make("mixture", corpora, workers=2)
    batches = iter(data.train_dataloader())
    next(batches)
    data._stream._workers._processes[1].kill()
    with pytest.raises(RuntimeError, match="a data worker died"):
        for _ in range(10):
            next(batches)


def test_a_ramp_grows_in_rows_and_keeps_its_micro_batches(corpora):
    data = make("ramp", corpora, micro_batch_size=8)
    assert data.accumulation == 2
    assert [len(step) for step in steps(data, 15)] == [4] * 7 + [8] * 5 + [16] * 3
    assert data.steps_for_tokens(64 * (4 * 7 + 8 * 5 + 16 * 2), "") == 14


@pytest.mark.parametrize("micro", [None, 400])
def test_token_batches_keep_their_budget(micro, corpora):
    data = make("tokens", corpora, micro_batch_tokens=micro)
    assert data.accumulation == (1 if micro is None else 4)
    batches, sizes = iter(data.train_dataloader()), []
    for _ in range(STEPS * data.accumulation):
        batch = next(batches)
        padded, positions = batch["padding"]
        sizes.append(batch["tokens"].numel() + batch["source_tokens"].numel())
        assert positions == sizes[-1]
        assert padded == int((batch["segments"] == 0).sum() + (batch["source_segments"] == 0).sum())
    if micro is None:  # four lanes are padded to the longest row of all
        assert 0.85 * 1600 < np.mean(sizes) < 1.1 * 1600
    else:  # one lane a micro-batch: never more
        assert max(sizes) <= micro


def test_static_shapes(corpora):
    data = make("static", corpora)
    batches = iter(data.train_dataloader())
    assert {(next(batches)["tokens"].shape, next(batches)["source_tokens"].shape) for _ in range(9)} == {
        ((8, 64), (8, 64))
    }
    with pytest.raises(ConfigError, match="static_shapes beside"):
        make("tokens", corpora, static_shapes=True)


def test_mixed_weights_show_in_what_is_read(corpora):
    read = [
        name[0]
        for step in steps(make("mixture", corpora), STEPS)
        for row in step.values()
        for name in row[0]
        if "@" not in name
    ]
    assert read.count("b") / len(read) == pytest.approx(2 / 3, abs=0.01)
    for step in steps(make("homogeneous", corpora), STEPS):
        assert len({name[0] for row in step.values() for name in row[0]}) == 1


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("first_fit", "needs full rows"),
        ("tokens", "needs full rows"),
    ],
)
def test_tokens_that_cannot_be_counted_in_steps(kind, corpora, text):
    with pytest.raises(ConfigError, match=text):
        make(kind, corpora).steps_for_tokens(1000, "trainer.max_tokens")


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("ramp", "packed rows do not end with an epoch"),
        ("tokens", "batches of tokens differ in rows"),
        ("tokens, mixture", "sources of a mixture do not end together"),
    ],
)
def test_epochs_that_cannot_be_counted_in_steps(kind, corpora, text):
    with pytest.raises(ConfigError, match=text):
        make(kind, corpora).steps_for_epochs(2, "trainer.max_epochs")


def test_epochs_are_counted_where_they_can_be(corpora):
    assert make("static", corpora).steps_for_epochs(3, "") == -(
        -3 * make("static", corpora).split("train").num_rows // 8
    )


def test_a_path_or_a_mixture():
    with pytest.raises(ConfigError, match=r"data\.path, or data\.mixture\.sources"):
        CausalLMData()
    with pytest.raises(ConfigError, match=r"data\.path, or data\.mixture\.sources"):
        CausalLMData("x", mixture=MixtureConfig(sources={"a": MixtureSource(path="y")}))


def test_a_mixture_names_the_source_that_is_wrong(corpora):
    sources = {"a": MixtureSource(path=str(corpora / "a")), "b": MixtureSource(path=str(corpora / "bb"))}
    with pytest.raises(
        ConfigError, match=r"data\.mixture\.sources\.b: data\.path '.*bb' does not exist; did you mean 'b'"
    ):
        CausalLMData(mixture=MixtureConfig(sources=sources)).prepare_data()


def test_ids_of_sources_without_ids_stay_apart(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text("one\n\ntwo\n\nthree\n\nfour\n\nfive\n")
    sources = {name: MixtureSource(path=str(tmp_path / f"{name}.txt")) for name in "ab"}
    data = CausalLMData(
        mixture=MixtureConfig(sources=sources), text_unit="paragraph", tokenizer=TokenizerConfig(kind="byte")
    )
    data.prepare_data()
    names = [row["id"] for split in ("train", "validation") for row in data.split(split).scan(0)]
    assert len(set(names)) == len(names) == 10
    assert {name.split(":")[0] for name in names} == {
        f"{source}/{part}" for source in "ab" for part in ("train", "validation")
    }
