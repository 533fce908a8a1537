"""`lightning-nlp tokenizer`: what is trained is what a configuration would train, and is shown token by token."""

from __future__ import annotations

import json

import pytest

from lightning_nlp.__main__ import main
from lightning_nlp.data.tokenizers.tokenizer import Tokenizer, TokenizerConfig

TEXTS = ["The cat sat on the mat.", "Größe 北京 🙂", "the cats sat in 1984"] * 4


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "texts.jsonl"
    rows = [{"text": text, "answer": text.upper()} for text in TEXTS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def train(corpus, output, *more):
    return main(["tokenizer", "train", "--path", str(corpus), "--output", str(output), *more])


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        (["--vocab_size", "300"], {"vocab_size": 300}),
        (["--kind", "unigram", "--vocab_size", "290", "--no-bos"], {"kind": "unigram", "vocab_size": 290, "bos": False}),
        (["--kind", "word", "--lowercase", "--min_frequency", "4"], {"kind": "word", "lowercase": True, "min_frequency": 4}),
        (["--kind", "char", "--unicode", "nfkc", "--mask_token"], {"kind": "char", "unicode": "nfkc", "mask_token": True}),
        (["--kind", "byte", "--extra_tokens", "<a>", "<b>"], {"kind": "byte", "extra_tokens": ("<a>", "<b>")}),
    ],
)  # fmt: skip
def test_a_file_is_what_a_configuration_would_train(options, settings, corpus, tmp_path, capsys):
    output = tmp_path / "new" / "tokenizer.json"
    assert train(corpus, output, *options) == 0
    expected = Tokenizer.train(TEXTS, TokenizerConfig(**settings))
    assert Tokenizer.load(output).hash == expected.hash
    first, second = capsys.readouterr().out.splitlines()
    assert f"{expected.vocab_size} tokens, hash {expected.hash[:12]}" in first
    each = sum(len(text.encode()) for text in TEXTS) / sum(map(len, expected.encode_batch(TEXTS)))
    assert second == f"  {each:.2f} bytes a token in the first {len(TEXTS)} texts"


def test_two_columns_share_a_tokenizer(corpus, tmp_path, capsys):
    assert train(corpus, tmp_path / "t.json", "--text_column", "text", "--text_column", "answer", "--kind", "char") == 0
    expected = Tokenizer.train([*TEXTS, *map(str.upper, TEXTS)], TokenizerConfig(kind="char"))
    assert Tokenizer.load(tmp_path / "t.json").hash == expected.hash


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--vocab_size", "20"], 2, "--vocab_size must be at least 260 for bpe, not 20"),
        (["--kind", "wordpiece", "--vocab_size", "9"], 2, "--vocab_size must be at least"),
        (["--kid", "bpe"], 2, "did you mean '--kind'?"),
        (["--kind", "bpee"], 2, "invalid choice: 'bpee'"),
        (["--text_unit", "lines"], 2, "invalid choice: 'lines'"),
        (["--text_column", "txt"], 2, "--text_column 'txt' is not in the train data; did you mean 'text'?"),
        (["--text_column", "a", "--text_column", "b", "--text_column", "c"], 2, "may be given twice at most"),
        (["--path", "/nowhere"], 2, "--path '/nowhere' does not exist"),
        (["--output", "/proc/x/t.json", "--kind", "byte"], 1, "cannot write '/proc/x/t.json'"),
    ],
)
def test_mistakes_are_one_line(options, code, message, corpus, tmp_path, capsys):
    assert train(corpus, tmp_path / "t.json", *options) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lightning-nlp: error: ") and message in line
    assert not (tmp_path / "t.json").exists()


def test_nothing_is_overwritten_unasked(corpus, tmp_path, capsys):
    output = tmp_path / "t.json"
    output.write_text("mine")
    assert train(corpus, output, "--kind", "byte") == 2 and output.read_text() == "mine"
    assert "exists: --overwrite replaces it" in capsys.readouterr().err
    assert train(corpus, output, "--kind", "byte", "--overwrite") == 0 and Tokenizer.load(output).vocab_size == 260


SHOWN = """\
special  pad <pad> 0, bos <bos> 1, eos <eos> 2, unk <unk> 3
put around a text: <bos> and <eos>
words are known

'the cat in 北京\\n': 7 tokens, 2.57 bytes a token, comes back exactly
id  bytes  word  token
"""


def test_tokens_are_shown_with_bytes_and_words(corpus, tmp_path, capsys):
    run = tmp_path / "run"
    train(corpus, run / "tokenizer.json", "--vocab_size", "320")
    capsys.readouterr()
    assert main(["tokenizer", "show", str(run), "--text", "the cat in 北京\n"]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{run / 'tokenizer.json'}: BPE, ")
    rows = [line.split() for line in lines[6:]]
    assert [line.strip() for line in lines[:6]] == SHOWN.replace(
        "7 tokens, 2.57", f"{len(rows)} tokens, {18 / len(rows):.2f}"
    ).splitlines()
    assert sum(int(row[1]) for row in rows) == 18 and "".join(row[3] for row in rows) == "the▁cat▁in▁北京\\n"
    assert [int(row[2]) for row in rows] == sorted(int(row[2]) for row in rows) and rows[-1][2] == "4"
    assert main(["tokenizer", "show", str(run / "tokenizer.json"), "--text", "the cat in 北京\n", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [
        [str(token[key]) for key in ("id", "bytes", "word", "token")] for token in found["texts"][0]["tokens"]
    ] == rows
    assert found["special"]["eos"] == {"id": 2, "token": "<eos>"} and found["special"]["mask"] is None


def test_what_is_lost_is_said(corpus, tmp_path, capsys):
    train(corpus, tmp_path / "t.json", "--kind", "word")
    assert main(["tokenizer", "show", str(tmp_path / "t.json"), "--text", "the  cat dog"]) == 0
    out = capsys.readouterr().out
    assert (
        "3 tokens" in out
        and "comes back as 'the cat'" in out
        and out.splitlines()[-1].split() == ["3", "0", "2", "<unk>"]
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [("absent", "'absent' does not exist"), (".", "'.' has no tokenizer.json"), ("bad", "no tokenizer.json")],
)
def test_what_is_no_tokenizer_is_refused(name, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad").write_text("{}")
    assert main(["tokenizer", "show", name]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
