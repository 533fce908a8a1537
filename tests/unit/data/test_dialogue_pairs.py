"""Dialogues for encoder-decoders: histories by hand, windows, what is dropped, prompts that equal training."""

from __future__ import annotations

import json

import pytest

from lightning_nlp.data.dialogue_pairs import DialoguePairsData
from lightning_nlp.data.tokenizers.tokenizer import TokenizerConfig
from lightning_nlp.errors import ConfigError, DataError

TALKS = [
    [("user", "Hi"), ("assistant", "Hello"), ("user", "Bye"), ("assistant", "See you")],
    [("system", "Be short"), ("user", "Why?"), ("assistant", "So")],
    [("assistant", "I begin"), ("user", "Well"), ("assistant", "Good")],
]


def make(folder, talks=TALKS, **settings):
    file = folder / "talks.jsonl"
    rows = [{"messages": [{"role": role, "content": text} for role, text in talk]} for talk in talks]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"tokenizer": TokenizerConfig(kind="byte"), "validation_fraction": 0.0, **settings}
    data = DialoguePairsData(str(file), seed=0, **settings)
    data.prepare_data()
    data.setup("fit")
    return data


def examples(data):
    rows = list(data.split("train").scan(0))
    return [part for example in data.prepare(rows) for part in example.parts]


def read(data, *turns):
    """What an encoder reads before an answer of the assistant."""
    known, speakers = data.tokenizer, data.speakers
    ids = [token for who, text in turns for token in (*speakers.markers[who], *known.encode(text), speakers.end_id)]
    return [*ids, *speakers.markers["assistant"], known.eos_id]


@pytest.mark.parametrize("history", [None, 1, 2])
def test_every_response_is_an_example(tmp_path, history):
    data = make(tmp_path, history_turns=history)
    expected = []
    for talk in TALKS:
        for place, (role, text) in enumerate(talk):
            if role == "assistant":
                before = talk[:place] if history is None else talk[max(place - history, 0) : place]
                pinned = [talk[0]] if talk[0][0] == "system" and talk[0] not in before else []
                expected.append((read(data, *pinned, *before), [*data.tokenizer.encode(text), data.tokenizer.eos_id]))
    found = [(example.source.tolist(), example.labels.tolist()) for example in examples(data)]
    assert found == expected and len(found) == 5
    assert not any(example.truncated for example in examples(data))


def test_oldest_turns_are_dropped_and_counted(tmp_path):
    talk = [*[("user", "aaaa"), ("assistant", "bbbb")] * 5]
    data = make(tmp_path, [talk], max_source_length=19, max_target_length=3)
    whole = examples(data)[-1]
    assert whole.source.tolist() == read(data, *talk[7:9]) and whole.truncated
    assert len(whole.source) == 14  # two turns of six, the marker, the end: three would be 20
    assert whole.labels.tolist() == data.tokenizer.encode("bbb")  # no end: it does not stop there
    assert whole.full_length == 9 * 6 + 1 + 1 + 5


def test_prompts_are_what_training_reads(tmp_path):
    data = make(tmp_path)
    rows = [{"id": "a", "messages": [{"role": who, "content": text} for who, text in TALKS[0]]}]
    rows.append({"id": "b", "messages": "Hi"})
    rows.append({"id": "c", "messages": " "})
    answered, asked, empty = data.prepare_prediction(rows)
    assert answered.source.tolist() == examples(data)[1].source.tolist() and answered.reference == "See you"
    assert asked.source.tolist() == read(data, ("user", "Hi")) and asked.reference is None
    assert empty is None
    around = data.facts()["prompt"]
    assert read(data, ("user", "Hi"))[:-1] == [*around["before"], *data.tokenizer.encode("Hi"), *around["after"]]
    assert data.facts()["decoder_start_id"] == data.tokenizer.bos_id


def test_two_columns(tmp_path):
    file = tmp_path / "qa.jsonl"
    file.write_text("".join(json.dumps({"q": f"Q{n}", "a": f"A{n}"}) + "\n" for n in range(3)))
    data = DialoguePairsData(
        str(file), prompt_column="q", response_column="a", tokenizer=TokenizerConfig(kind="byte"), seed=0,
        validation_fraction=0.0,
    )  # fmt: skip
    data.prepare_data()
    data.setup("fit")
    assert [example.source.tolist() for example in examples(data)] == [read(data, ("user", f"Q{n}")) for n in range(3)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"history_turns": 0}, r"data.history_turns must be at least 1, not 0"),
        ({"max_target_length": 0}, r"data.max_target_length must be at least 1, not 0"),
        ({"respond": ["bot"]}, r"data.respond names 'bot', which is none of data.roles"),
        ({"prompt_column": "q"}, r"data.prompt_column and data.response_column belong together"),
        ({"max_source_length": 2}, r"data.max_length 2 has no room for a role marker and a response"),
    ],
    ids=str,
)
def test_mistakes(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        make(tmp_path, **settings)


def test_a_conversation_without_a_response_is_a_bad_row(tmp_path):
    data = make(tmp_path, [*TALKS, [("user", "Anybody?")]])
    with pytest.raises(DataError, match=r"no turn of assistant: nothing to learn from"):
        examples(data)
