"""Dialogues: ParlAI's history, loss on responses and their end alone, the oldest turns dropped first, bad rows named."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_nlp.data.builders.number_chat import conversation
from lightning_nlp.data.dialogue import DialogueData
from lightning_nlp.data.objectives import IGNORED, Turn, dialogue, windows
from lightning_nlp.data.objectives.dialogue import consecutive, fitting
from lightning_nlp.data.tokenizers.tokenizer import Tokenizer, TokenizerConfig
from lightning_nlp.errors import ConfigError, DataError

N = IGNORED
BOS, END = 1, 2


def turn(marker, ids, response=False, pinned=False):
    return Turn(np.array([marker]), np.array(ids), response, pinned)


TALK = [turn(5, [20, 21]), turn(6, [30], True), turn(5, [22]), turn(6, [31, 32], True)]


def test_labels_are_responses_with_their_end():
    example = dialogue(TALK, "d", 99, BOS, END)
    assert example.tokens.tolist() == [1, 5, 20, 21, 2, 6, 30, 2, 5, 22, 2, 6, 31, 32]
    assert example.labels.tolist() == [N, N, N, N, N, 30, 2, N, N, N, N, 31, 32, 2]
    assert (example.full_length, example.truncated) == (14, False)
    assert dialogue(TALK, "d", 99, None, END).tokens.tolist() == [5, 20, 21, 2, 6, 30, 2, 5, 22, 2, 6, 31, 32]
    assert dialogue(TALK[:1], "d", 99, BOS, END) is None


# room for pairs -> tokens; the oldest turns go first, an instruction goes last, a response too long loses its end.
ROOM = {
    13: [1, 6, 30, 2, 5, 22, 2, 6, 31, 32],
    9: [1, 5, 22, 2, 6, 31, 32],
    6: [1, 6, 31, 32],
    4: [1, 6, 31, 32],
    3: [1, 6, 31],
    2: [1, 6],
}
PINNED = {
    14: [1, 4, 9, 2, 6, 30, 2, 5, 22, 2, 6, 31, 32],
    10: [1, 4, 9, 2, 5, 22, 2, 6, 31, 32],
    7: [1, 4, 9, 2, 6, 31, 32],
    6: [1, 6, 31, 32],
}


@pytest.mark.parametrize("room", ROOM)
def test_the_oldest_turns_are_dropped_first(room):
    example = dialogue(TALK, "d", room, BOS, END)
    assert example.tokens.tolist() == ROOM[room]
    assert example.full_length == 14 and example.truncated
    assert example.labels[-1] == (END if room > 3 else {3: 32, 2: 31}[room])


@pytest.mark.parametrize("room", PINNED)
def test_an_instruction_stays_longest(room):
    example = dialogue([turn(4, [9], pinned=True), *TALK], "d", room, BOS, END)
    assert example.tokens.tolist() == PINNED[room]


@given(
    sizes=st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=9),
    room=st.integers(3, 60),
    bos=st.sampled_from([None, BOS]),
)
def test_nothing_fits_better_and_labels_stay_in_responses(sizes, room, bos):
    turns = [turn(5, [100 * n + k for k in range(size)], said) for n, (size, said) in enumerate(sizes)]
    kept = fitting(turns, room)
    assert kept == turns[len(turns) - len(kept) :]
    assert sum(map(len, kept)) <= room or len(kept) == 1
    assert len(kept) == len(turns) or sum(map(len, turns[-len(kept) - 1 :])) > room
    example = dialogue(turns, "d", room, bos, END)
    if example is not None:
        assert len(example.tokens) == len(example.labels) <= room
        said = example.labels[example.labels != N]
        assert all(token == END or sizes[token // 100][1] for token in said.tolist())
        assert (example.tokens[1:] == example.labels[:-1])[example.labels[:-1] != N].all()
        assert example.truncated == (len(example.tokens) < example.full_length)


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        (None, [[20, 30, 22, 31]]),
        (1, [[20, 30], [22, 31]]),
        (2, [[20, 30], [30, 22, 31]]),
        (9, [[20, 30], [20, 30, 22, 31]]),
    ],
)
def test_windows_of_turns(history, expected):
    found = windows([*TALK, turn(5, [23])], history)
    assert [[int(part.ids[0]) for part in window] for window in found] == expected
    for window in found if history else []:
        assert [part.response for part in window] == [False] * (len(window) - 1) + [True]
    pinned = windows([turn(4, [9], pinned=True), *TALK], 1)
    assert [[int(part.ids[0]) for part in window] for window in pinned] == [[9, 20, 30], [9, 22, 31]]


# ParlAI `test_torch_agent.py::test_history`: what a model is shown of "I am Groot." / "I am Groot?" / "I am Groot.", by
# history_size, and with person tokens.
ASKED, SAID = "I am Groot.", "I am Groot?"
HISTORY = {1: [ASKED], 2: [SAID, ASKED], 3: [ASKED, SAID, ASKED], None: [ASKED, SAID, ASKED]}


@pytest.fixture
def groot(tmp_path):
    rows = [
        {"messages": [{"speaker": who, "text": text} for who, text in (("p1", ASKED), ("p2", SAID), ("p1", ASKED))]}
    ]
    return write(tmp_path / "talk.jsonl", rows)


@pytest.mark.parametrize("size", HISTORY)
def test_history_is_that_of_parlai(groot, size):
    data = make(groot, history_turns=size, roles={"p1": "__p1__", "p2": "__p2__"}, respond=["p2"], stage="validate")
    data.predict_path = str(groot)
    (batch,) = data.predict_dataloader()
    shown = [
        data.tokenizer.backend.id_to_token(token) for token in batch["tokens"][0][batch["segments"][0] > 0].tolist()
    ]
    text = "".join(shown).replace("Ġ", " ").removeprefix("<bos>")
    who = {ASKED: "__p1__", SAID: "__p2__"}
    assert text == "".join(f"{who[said]}{said}<eos>" for said in HISTORY[size]) + "__p2__"


# Corpora, seen through the data module ---------------------------------------------------------------------------


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def talks(tmp_path_factory):
    directory = tmp_path_factory.mktemp("talks")
    for split, numbers in (("train", range(60)), ("validation", range(60, 75)), ("test", range(75, 80))):
        write(directory / f"{split}.jsonl", [{"id": f"{split}-{n}", "messages": conversation(n)} for n in numbers])
    return directory


def make(path, *, stage="fit", ranks=1, rank=0, **settings):
    settings = {"tokenizer": TokenizerConfig(kind="byte"), "max_length": 128, "seed": 5, **settings}
    data = DialogueData(
        str(path), global_batch_size=8, lanes=4, validation_fraction=0.0 if path.suffix else 0.05, **settings
    )
    data.setup(stage)
    data.plan(ranks, rank)
    return data


def documents_of(batches):
    """``(name, tokens, labels)`` of every document of every row."""
    for batch in batches:
        for row, names in enumerate(batch["example_ids"]):
            for number, name in enumerate(names, 1):
                inside = batch["segments"][row] == number
                yield name, batch["tokens"][row][inside].tolist(), batch["labels"][row][inside].tolist()


def train(data, count):
    return [batch for batch, _ in zip(data.train_dataloader(), range(count), strict=False)]


def spelled(data, turns):
    known, end = data.tokenizer, data.speakers.end_id
    return [token for who, text in turns for token in (*data.speakers.markers[who].tolist(), *known.encode(text), end)]


@pytest.mark.parametrize("rows", ["packed", "single"])
def test_conversations_are_whole_or_lose_their_oldest_turns(talks, rows):
    data = make(talks, rows=rows)
    known = {row["id"]: data.speakers.turns(row) for row in data.split("train").scan(0)}
    bos, end, cut, met = data.tokenizer.bos_id, data.speakers.end_id, 0, set()
    for name, tokens, labels in documents_of(train(data, 40)):
        turns, text = known[name], [*tokens, labels[-1]]
        while [bos, *spelled(data, turns)] != text:
            turns, cut = turns[1:], cut + 1
        assert len(tokens) <= 128 and labels.count(end) == sum(who == "assistant" for who, _ in turns)
        answers = [token for who, said in turns if who == "assistant" for token in (*data.tokenizer.encode(said), end)]
        assert [label for label in labels if label != N] == answers
        met.add(name)
    counts = data.counts(40)
    assert met == known.keys() and cut and counts["truncated"] and counts["tokens_cut"] and not counts["split"]
    for batch in train(make(talks, rows=rows), 5):
        supervised = [
            [label for label in row if label not in (N, data.speakers.end_id)] for row in batch["labels"].tolist()
        ]
        assert batch["bytes"].tolist() == [len(row) for row in supervised]


def test_every_response_is_an_example_with_a_window_of_turns(talks):
    data = make(talks, history_turns=2)
    known = {row["id"]: data.speakers.turns(row) for row in data.split("train").scan(0)}
    seen = {}
    for name, tokens, labels in documents_of(train(data, 60)):
        document, _, number = name.partition("@")
        place = 2 * int(number or 0) + 1
        first = max(place - 2, 0)
        assert [*tokens, labels[-1]] == [data.tokenizer.bos_id, *spelled(data, known[document][first : place + 1])]
        assert [label for label in labels if label != N] == spelled(data, known[document][place : place + 1])[1:]
        seen.setdefault(document, set()).add(place)
    assert seen == {name: set(range(1, len(turns), 2)) for name, turns in known.items()}
    assert data.counts(60)["split"] > 0


@given(
    sizes=st.lists(st.tuples(st.integers(1, 9), st.booleans()), max_size=12),
    room=st.integers(3, 40),
    first=st.booleans(),
)
def test_windows_of_a_long_conversation_hold_every_turn_once(sizes, room, first):
    instruction = [turn(4, [9], pinned=True)] if first else []
    turns = [turn(5, [n] * size, said) for n, (size, said) in enumerate(sizes)]
    found = consecutive([*instruction, *turns], room)
    used = [part for window in found for part in window if not part.pinned]
    answers = [part for part in turns if part.response]
    places = [next(place for place, part in enumerate(turns) if part is other) for other in used]
    assert places == sorted(set(places)) and sum(part.response for part in used) == len(answers)
    for window in found:
        assert window[-1].response and (not first or window[0] is instruction[0])
        assert sum(map(len, fitting(window, room))) <= room or len(fitting(window, room)) == 1
    if all(said for _, said in sizes):
        assert len(used) == len(turns)


def test_nothing_of_a_long_conversation_is_lost_when_it_is_split(talks):
    data = make(talks, max_length=64, split_long=True)
    known = {row["id"]: data.speakers.turns(row) for row in data.split("train").scan(0)}
    met = {}
    for name, _, labels in documents_of(train(data, 60)):
        document, _, number = name.partition("@")
        met.setdefault(document, {})[int(number or 0)] = [label for label in labels if label != N]
    for name, turns in known.items():
        answers = [token for turn_ in turns if turn_[0] == "assistant" for token in spelled(data, [turn_])[1:]]
        assert [token for number in sorted(met[name]) for token in met[name][number]] == answers
    assert data.counts(60)["split"] > 0


def test_evaluation_and_restores(talks):
    once = sorted(documents_of(make(talks, stage="validate").val_dataloader()))
    assert len(once) == 15
    parts = [make(talks, stage="validate", ranks=2, rank=rank).val_dataloader() for rank in (0, 1)]
    assert sorted(document for part in parts for document in documents_of(part)) == once
    for history in (None, 1):
        whole = list(documents_of(train(make(talks, history_turns=history), 20)))
        first = make(talks, history_turns=history)
        batches = iter(first.train_dataloader())
        begun = list(documents_of([next(batches) for _ in range(9)]))
        again = make(talks, history_turns=history)
        again.load_state_dict({"train": json.loads(json.dumps(first._stream.state(9)))})
        assert begun + list(documents_of(train(again, 11))) == whole


def test_prompts_end_where_the_answer_begins(talks, tmp_path):
    data = make(talks, stage="validate")
    user, assistant = data.speakers.markers["user"].tolist(), data.speakers.markers["assistant"].tolist()
    around = data.facts()["prompt"]
    end, system = data.speakers.end_id, data.speakers.markers["system"].tolist()
    expected = {"before": user, "after": [end, *assistant], "end_id": end}
    assert around == {**expected, "system": system, "history_turns": None}
    (tmp_path / "in.txt").write_text("hello\n\n" + "a" * 200 + "\n")
    data.predict_path = str(tmp_path / "in.txt")
    (batch,) = data.predict_dataloader()
    hello = [data.tokenizer.bos_id, *user, *data.tokenizer.encode("hello"), data.speakers.end_id, *assistant]
    assert batch["tokens"][0][batch["segments"][0] > 0].tolist() == hello and list(batch["failed"]) == [1]
    long = batch["tokens"][1][batch["segments"][1] > 0].tolist()
    assert len(long) == 127 and long[-2:] == [data.speakers.end_id, *assistant] and long[0] == data.tokenizer.bos_id
    assert batch["cut"] == [0, 200 + 4 - 127] and batch["references"] == [None, None]
    data.predict_path = None
    known = {row["id"]: data.speakers.turns(row) for row in data.split("test").scan(0)}
    for batch in data.predict_dataloader():
        for (name,), reference, tokens in zip(batch["example_ids"], batch["references"], batch["tokens"], strict=True):
            assert reference == known[name][-1][1]
            last = [*spelled(data, known[name][-2:-1]), *assistant]
            assert tokens[tokens != 0].tolist()[-len(last) :] == last


def test_two_columns_are_a_conversation(tmp_path):
    path = write(tmp_path / "pairs.jsonl", [{"question": "who", "answer": "me"}, {"question": "a", "answer": "b"}])
    data = make(path, prompt_column="question", response_column="answer")
    documents = {name: (tokens, labels) for name, tokens, labels in documents_of(train(data, 3))}
    tokens, labels = documents["train:0"]
    assert [*tokens, labels[-1]] == [data.tokenizer.bos_id, *spelled(data, [("user", "who"), ("assistant", "me")])]
    data = make(path, prompt_column="question", response_column="answer", stage="validate")
    data.predict_path = str(path)
    (batch,) = data.predict_dataloader()
    assert batch["references"] == ["me", "b"] and batch["texts"] == ["who", "a"]


def test_markers_of_a_tokenizer_of_ones_own_are_tokens_or_texts(talks, tmp_path):
    path = tmp_path / "tokenizer.json"
    Tokenizer.train(["a"], TokenizerConfig(kind="byte", extra_tokens=("<user>", "<stop>"))).save(path)
    tokenizer = TokenizerConfig(path=str(path))
    data = make(talks, tokenizer=tokenizer, end_of_turn="<stop>")
    assert data.speakers.markers["user"].tolist() == [data.tokenizer.backend.token_to_id("<user>")]
    assert data.tokenizer.decode(data.speakers.markers["assistant"].tolist()) == "<assistant>"
    assert data.speakers.end_id == data.facts()["prompt"]["end_id"] == data.tokenizer.backend.token_to_id("<stop>")
    with pytest.raises(ConfigError, match=r"data.end_of_turn: '<over>' is no token: name one that the tokenizer has"):
        make(talks, tokenizer=tokenizer, end_of_turn="<over>")


GOOD = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
BAD = {
    "no response": ([GOOD[0]], "talk.jsonl row 2: no turn of assistant: nothing to learn from"),
    "unknown role": ([*GOOD, {"role": "asistant", "content": "b"}], r"talk.jsonl row 2: turn 3 has the unknown role 'asistant'; did you mean 'assistant'\? \(known: system, user, assistant; more in data.roles\)"),
    "empty turn": ([GOOD[0], {"role": "assistant", "content": " \n"}], r"talk.jsonl row 2: turn 2 \(assistant\) is empty"),
    "no content": ([{"role": "user", "content": None}, GOOD[1]], r"talk.jsonl row 2: turn 1 has no content \(known names: content, text, value\)"),
    "no role": ([{"role": None, "content": "a"}, GOOD[1]], r"talk.jsonl row 2: turn 1 has no role \(known names: role, speaker, from\)"),
    "nothing": ([], "talk.jsonl row 2: the conversation is empty"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("history", [None, 1])
def test_bad_conversations_are_named_or_dropped_and_counted(tmp_path, case, history):
    messages, message = BAD[case]
    path = write(tmp_path / "talk.jsonl", [{"messages": GOOD}, {"messages": messages}, {"messages": GOOD}])
    with pytest.raises(DataError, match=message):
        train(make(path, history_turns=history), 3)
    data = make(path, history_turns=history, bad_rows="skip", bad_rows_budget=0.5)
    assert {name for name, _, _ in documents_of(train(data, 6))} == {"train:0", "train:2"}
    assert data.counts(6)["skipped/bad_conversation"] > 0


def test_other_things_than_lists_of_turns(talks):
    data = make(talks)
    for value, message in {
        3: r"the conversation is int, no list of turns",
        ("hello",): "turn 1 is str, not a role and a content",
        (17,): "turn 1 is int",
    }.items():
        with pytest.raises(DataError, match=message):
            data.speakers.turns({"id": "x", "messages": value})
    with pytest.raises(DataError, match="turn 1 has a content that is int, not text"):
        data.speakers.turns({"id": "x", "messages": [{"role": "user", "content": 3}]})


MISTAKES = [
    ({"respond": ["bot"]}, r"data.respond names 'bot', which is none of data.roles \(system, user, assistant\)"),
    ({"respond": []}, "data.respond names no role"),
    ({"roles": {"user": "<a>", "assistant": "<a>"}}, "a marker for every role, and another one each"),
    ({"roles": {"system": "<s>"}, "respond": ["system"]}, "nobody who speaks but system"),
    ({"history_turns": 0}, "data.history_turns must be at least 1, not 0"),
    ({"history_turns": 1, "split_long": True}, "data.history_turns cuts them already"),
    ({"prompt_column": "a"}, "give both or neither"),
    ({"max_length": 2}, "data.max_length 2 has no room for a role marker and a response"),
    ({"tokenizer": TokenizerConfig(kind="byte", special_tokens=False)}, "the tokenizer has no end token"),
]


@pytest.mark.parametrize(("settings", "message"), MISTAKES)
def test_mistakes(talks, settings, message):
    with pytest.raises(ConfigError, match=message):
        make(talks, **settings)
