"""Making shards: what is finished stays, what is damaged or out of date is named, nothing depends on the workers."""

from __future__ import annotations

import json
import os
import signal
import time

import numpy as np
import pytest
from prepared_corpora import ready, shards_of, taken, write_rows

from lightning_nlp.cli.prepare import prepare, terminated
from lightning_nlp.data.causal_lm import CausalLMData
from lightning_nlp.data.prepared import preparing
from lightning_nlp.data.prepared.shards import Shard
from lightning_nlp.data.prepared.source import PreparedSource
from lightning_nlp.data.text_classification import TextClassificationData
from lightning_nlp.data.tokenizers.tokenizer import Tokenizer, TokenizerConfig
from lightning_nlp.errors import ConfigError, DataError

BYTE = TokenizerConfig(kind="byte")


@pytest.fixture(autouse=True)
def own_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_NLP_DATA", str(tmp_path / "data"))


@pytest.fixture
def corpus(tmp_path):
    return write_rows(tmp_path / "corpus", rows=40)


@pytest.fixture
def small_units(monkeypatch):
    monkeypatch.setattr(preparing, "UNIT_BYTES", (200, 400))


def module(corpus, **settings):
    return CausalLMData(
        str(corpus), **{"tokenizer": BYTE, "max_length": 24, "global_batch_size": 4, "lanes": 4, **settings}
    )


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".bin", ".index")}


def used(data):
    return isinstance(ready(data).splits["train"], PreparedSource)


def last_line(capfd):
    return capfd.readouterr().err.splitlines()[-1]


def test_tokens_lie_back_to_back_without_special_ones(tmp_path):
    (tmp_path / "corpus").mkdir()
    texts = ["abc", "", "ü"]
    (tmp_path / "corpus/train.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    data = module(
        tmp_path / "corpus", validation_fraction=0.0, tokenizer=TokenizerConfig(kind="byte", special_tokens=False)
    )
    folder = shards_of(data)
    (ids,) = folder.glob("*.bin")
    assert ids.read_bytes() == np.frombuffer(("".join(texts) + "\0").encode(), np.uint8).astype("<u2").tobytes()
    manifest = json.loads((folder / "manifest.json").read_text())
    (record,) = manifest["splits"]["train"]["shards"]
    assert (record["rows"], record["tokens"], record["text_bytes"], manifest["dtype"]) == (3, {"text": 5}, 5, "<u2")
    shard = Shard(folder, record, manifest["dtype"], ["text"])
    assert shard.ends["text"].tolist() == [0, 3, 3, 5] and shard.sizes["text"].tolist() == [3, 0, 2]
    assert [shard.id(place) for place in range(3)] == shard.ids(np.arange(3)) == ["train:0", "train:1", "train:2"]
    assert Tokenizer.load(folder / "tokenizer.json").hash == manifest["tokenizer"]


@pytest.mark.parametrize("vocab_size, kind", [(257, "<u2"), (1 << 16, "<u2"), ((1 << 16) + 1, "<u4")])
def test_ids_take_as_many_bytes_as_they_need(vocab_size, kind):
    assert preparing.id_type(vocab_size).str == kind


def test_values_of_other_columns_come_back(tmp_path):
    (tmp_path / "train.jsonl").write_text(
        '{"text": "a", "label": 3}\n{"text": "b", "label": 1.5}\n{"text": "c", "label": true}\n'
    )
    data = TextClassificationData(str(tmp_path / "train.jsonl"), tokenizer=BYTE, validation_fraction=0.0)
    shards_of(data)
    rows = ready(TextClassificationData(str(tmp_path / "train.jsonl"), tokenizer=BYTE, validation_fraction=0.0)).split(
        "train"
    )
    assert [row["label"] for row in rows.scan(0)] == [3, 1.5, True]
    assert [row["label"] for row in rows.read(np.array([2, 0]))] == [True, 3]


def test_ids_with_zeros_in_them(tmp_path):
    (tmp_path / "train.jsonl").write_text(
        "".join(json.dumps({"id": name, "text": "x"}) + "\n" for name in ("a\0b", "", "ü"))
    )
    folder = shards_of(module(tmp_path / "train.jsonl", validation_fraction=0.0))
    manifest = json.loads((folder / "manifest.json").read_text())
    shard = Shard(folder, manifest["splits"]["train"]["shards"][0], "<u2", ["text"])
    assert shard.ids(np.array([2, 0, 1, 0])) == ["ü", "a\0b", "", "a\0b"]


def test_workers_write_the_same_bytes(corpus, small_units, tmp_path, monkeypatch):
    one = shards_of(module(corpus))
    monkeypatch.setenv("LIGHTNING_NLP_DATA", str(tmp_path / "other"))
    two = shards_of(module(corpus), workers=2)
    assert one.name == two.name and one != two
    assert content(one) == content(two) and len(content(one)) > 8


def test_what_was_finished_is_not_made_again(corpus, small_units, monkeypatch):
    made, stop = [], 3
    build = preparing.build_unit

    def counted(job, split, number, *rest):
        if len(made) == stop:
            raise KeyboardInterrupt
        made.append((split, number))
        return build(job, split, number, *rest)

    monkeypatch.setattr(preparing, "build_unit", counted)
    with pytest.raises(KeyboardInterrupt):
        prepare(module(corpus), 1)
    assert not used(module(corpus))  # without its manifest, nothing is trusted
    stop, first = -1, list(made)
    folder = shards_of(module(corpus))
    assert len(made) == len(set(made)) > 2 * len(first)
    made.clear()
    before = content(folder)
    shards_of(module(corpus))
    assert not made
    victim = sorted(folder.glob("train-00001*.bin"))[0]
    victim.write_bytes(b"\0" * victim.stat().st_size)
    shards_of(module(corpus))
    assert made == [("train", 1)] and content(folder) == before


def test_a_damaged_shard_is_named_and_not_used(corpus, capfd):
    folder = shards_of(module(corpus))
    victim = folder / "train-00000-0.text.bin"
    whole = victim.read_bytes()
    damages = {
        "does not match its checksum": bytes([whole[0] ^ 1]) + whole[1:],
        f"has {len(whole) - 2} bytes instead of {len(whole)}": whole[:-2],
        "is missing": None,
    }
    for what, damaged in damages.items():
        victim.unlink() if damaged is None else victim.write_bytes(damaged)
        capfd.readouterr()
        assert not used(module(corpus))
        assert (
            last_line(capfd)
            == f"lightning-nlp: prepared shards {folder} are not used: {victim.name} {what}; `lightning-nlp prepare` mends it"
        )
        with pytest.raises(DataError, match=f"{victim.name} {what}"):
            ready(module(corpus, prepared=str(folder.parent)))
    prepare(module(corpus), 1)
    assert used(module(corpus))


CHANGES = {
    "take": ({"take": 20}, "take None -> 20 since"),
    "tokenizer": ({"tokenizer": TokenizerConfig(kind="char")}, "the tokenizer changed since"),
    "also_bad": ({"also_bad": ["empty"], "bad_rows": "skip", "bad_rows_budget": 99.0}, "also_bad changed since"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_other_settings_are_named(name, corpus, capfd):
    settings, reason = CHANGES[name]
    folder = shards_of(module(corpus))
    capfd.readouterr()
    assert not used(module(corpus, **settings))
    assert f"prepared shards {folder} are not used: {reason}" in last_line(capfd)
    with pytest.raises(ConfigError, match="not used"):
        ready(module(corpus, prepared=str(folder.parent), **settings))
    prepare(module(corpus, **settings), 1)
    assert used(module(corpus, **settings)) and used(module(corpus))


def test_edited_data_is_noticed(tmp_path, capfd):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    rows = [json.dumps({"text": f"row {number:06d} " + "words " * 5}) + "\n" for number in range(5000)]
    file = corpus / "train.jsonl"
    file.write_text("".join(rows))
    settings = {"validation_fraction": 0.0, "tokenizer": TokenizerConfig(kind="bpe", vocab_size=300)}
    folder = shards_of(module(corpus, **settings))
    os.utime(file, (1, 1))
    assert used(module(corpus, **settings))  # touched, not edited
    rows[2500] = rows[2500].replace("words", "wards")  # in the middle: size and both ends stay
    file.write_text("".join(rows))
    capfd.readouterr()
    data = ready(module(corpus, **settings))
    assert not isinstance(data.splits["train"], PreparedSource)
    assert f"prepared shards {folder} are not used: {file} changed since" in last_line(capfd)
    fresh = ready(module(corpus, prepared="none", **settings))
    assert data.tokenizer_hash == fresh.tokenizer_hash
    prepare(module(corpus, **settings), 1)
    again = ready(module(corpus, **settings))
    assert isinstance(again.splits["train"], PreparedSource) and again.tokenizer_hash == fresh.tokenizer_hash
    assert taken(again.train_dataloader(), 5) == taken(fresh.train_dataloader(), 5)
    file.write_text("".join(rows[:-1]))
    capfd.readouterr()
    assert not used(module(corpus, **settings))
    assert "the data changed, the tokenizer changed since" in last_line(capfd)  # one would be trained on other texts


def test_moved_data_and_moved_shards_still_belong_together(corpus, tmp_path, monkeypatch):
    folder = shards_of(module(corpus))
    corpus.rename(tmp_path / "elsewhere")
    folder.parent.rename(tmp_path / "shards")
    assert used(module(tmp_path / "elsewhere", prepared=str(tmp_path / "shards")))
    assert not used(module(tmp_path / "elsewhere"))


def test_a_given_tokenizer_finds_the_shards_of_the_trained_one(corpus, tmp_path):
    bpe = TokenizerConfig(kind="bpe", vocab_size=300)
    folder = shards_of(module(corpus, tokenizer=bpe))
    given = TokenizerConfig(path=str(folder / "tokenizer.json"))
    assert not used(module(corpus, tokenizer=given))
    prepare(module(corpus, tokenizer=given), 1)
    assert used(module(corpus, tokenizer=given)) and used(module(corpus, tokenizer=bpe))


def test_an_empty_folder_of_shards_is_a_mistake(corpus, tmp_path):
    with pytest.raises(ConfigError, match=r"data.prepared '.*/none_here' has no shards of .*corpus"):
        ready(module(corpus, prepared=str(tmp_path / "none_here")))


def test_two_at_once_are_refused(corpus):
    folder = shards_of(module(corpus))
    with preparing.alone(folder), pytest.raises(DataError, match=f"another process is preparing '{folder}'"):
        prepare(module(corpus), 1)


def test_bad_rows_stop_it_where_they_stop_a_run(tmp_path):
    file = tmp_path / "train.jsonl"
    file.write_text('{"text": "a"}\n' * 30 + "{bad\n" + '{"text": "b"}\n')
    for policy in ("error", "auto"):
        with pytest.raises(DataError, match=f"{file} row 31"):
            prepare(module(file, bad_rows=policy), 1)
    with pytest.raises(DataError, match="1 of 32 rows of the train data are bad"):
        prepare(module(file, bad_rows="skip", bad_rows_budget=0.0, validation_fraction=0.0), 1)
    prepare(module(file, bad_rows="skip", bad_rows_budget=99.0, validation_fraction=0.0), 1)
    data = ready(module(file, bad_rows="skip", bad_rows_budget=99.0, validation_fraction=0.0))
    taken(data.train_dataloader(), 20)
    assert data._stream.counts(20)["skipped/malformed_json"] > 0
    with pytest.raises(DataError, match=f"{file} row 31"):
        taken(ready(module(file, bad_rows="error", validation_fraction=0.0)).train_dataloader(), 20)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_with_its_workers_and_gone_on_with(number, corpus, small_units, tmp_path, monkeypatch):
    monkeypatch.setattr(preparing, "CHUNK_ROWS", 1)
    expected = content(shards_of(module(corpus)))
    monkeypatch.setenv("LIGHTNING_NLP_DATA", str(tmp_path / "other"))
    child = os.fork()
    if child == 0:  # a process group of its own, in which every unit takes a while
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, terminated)
        build = preparing.build_unit
        preparing.build_unit = lambda *unit: (time.sleep(0.05), build(*unit))[1]
        try:
            prepare(module(corpus), 2)
        finally:
            os._exit(7)
    wait_until(lambda: len(list((tmp_path / "other").glob("prepared/*/units/*.json"))) >= 3)
    os.kill(child, number)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == (-number if number == signal.SIGKILL else 7)
    wait_until(lambda: not alive(child))
    (folder,) = (tmp_path / "other/prepared").iterdir()
    assert not (folder / "manifest.json").exists()
    done = len(list((folder / "units").iterdir()))
    assert 3 <= done < len({name.rsplit("-", 1)[0] for name in expected})
    assert content(shards_of(module(corpus), workers=2)) == expected
    assert not [path for path in folder.rglob("*.partial")]


def wait_until(holds):
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def alive(group):
    """Whether any process of a group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
