"""When no row is of use, the message says what became of the rows."""

from __future__ import annotations

import json
import re
from itertools import islice

import pytest

from lightning_nlp.data.causal_lm import CausalLMData
from lightning_nlp.data.dialogue import DialogueData
from lightning_nlp.data.sources.filters import Filter
from lightning_nlp.data.tokenizers.config import TokenizerConfig
from lightning_nlp.data.tokenizers.of_run import settle_tokenizer
from lightning_nlp.errors import DataError

BPE, BYTE = TokenizerConfig(vocab_size=300), TokenizerConfig(kind="byte")
USELESS = {
    "conversations": (
        DialogueData,
        [{"messages": [{"role": "usr", "content": "hello"}]}] * 8,
        {"bad_rows": "skip", "bad_rows_budget": 100},
        "(8 bad rows, the first is FILE row 1: turn 1 has the unknown role 'usr'; did you mean 'user'?",
    ),
    "malformed": (
        CausalLMData,
        ["{oops"] * 8,
        {"bad_rows": "skip", "bad_rows_budget": 100},
        "(8 bad rows, the first is FILE row 1: malformed JSON",
    ),
    "filtered": (
        CausalLMData,
        [{"text": "hello", "lang": "de"}] * 8,
        {"filters": [Filter("lang", equals="en")]},
        "(8 rows left out by data.filters)",
    ),
    "both": (
        CausalLMData,
        [{"text": "hello", "lang": "de"}, {"text": 5, "lang": "en"}] * 4,
        {"filters": [Filter("lang", equals="en")], "bad_rows": "skip", "bad_rows_budget": 100},
        "(4 bad rows, the first is FILE row 2: column 'text' holds int, not text; 4 rows left out by data.filters)",
    ),
}


def opened(tmp_path, case, tokenizer):
    kind, rows, settings, _ = USELESS[case]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    data = kind(str(path), tokenizer=tokenizer, validation_fraction=0.0, lanes=2, global_batch_size=2, **settings)
    data.prepare_data()
    data.setup("fit")
    data.plan(1, 0)
    return data


@pytest.mark.parametrize("case", USELESS)
def test_no_text_for_a_tokenizer(tmp_path, case):
    with pytest.raises(DataError, match="there is no text to train a tokenizer on") as caught:
        opened(tmp_path, case, BPE)
    assert USELESS[case][3].replace("FILE", str(tmp_path / "rows.jsonl")) in str(caught.value)


@pytest.mark.parametrize("case", USELESS)
def test_nothing_to_learn_from(tmp_path, case):
    data = opened(tmp_path, case, BYTE)
    with pytest.raises(DataError, match="gives anything to learn from") as caught:
        list(islice(data.train_dataloader(), 1))
    assert USELESS[case][3].replace("FILE", str(tmp_path / "rows.jsonl")) in str(caught.value)


@pytest.mark.parametrize("case", USELESS)
def test_nothing_to_evaluate(tmp_path, case):
    data = opened(tmp_path, case, BYTE)
    data.splits["validation"] = data.splits["train"]
    with pytest.raises(DataError, match="gives anything to evaluate") as caught:
        list(data.val_dataloader())
    assert USELESS[case][3].replace("FILE", str(tmp_path / "rows.jsonl")) in str(caught.value)


def test_a_stream_too_short_to_hold_rows_out(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "hello"}\n' * 3)
    data = CausalLMData(str(path), tokenizer=BYTE, streaming=True, lanes=2, global_batch_size=2)
    data.prepare_data()
    data.setup("fit")
    with pytest.raises(
        DataError, match=re.escape("the validation data has no rows (data.validation_fraction of a short")
    ):
        list(data.val_dataloader())


def test_settings_of_training_beside_a_tokenizer_that_is_loaded(tmp_path, capsys):
    trained = settle_tokenizer(BYTE, lambda: [], kept=None, initial=None, save=True)
    trained.save(tmp_path / "tokenizer.json")
    config = TokenizerConfig(path=str(tmp_path / "tokenizer.json"), vocab_size=500, lowercase=True, mask_token=True)
    kept = tmp_path / "run.json"
    assert settle_tokenizer(config, lambda: [], kept=kept, initial=None, save=True).hash == trained.hash
    told = capsys.readouterr().err
    assert told == (
        "lightning-nlp: data.tokenizer.path is loaded as it is; vocab_size, lowercase would be for training one\n"
    )
    settle_tokenizer(config, lambda: [], kept=kept, initial=None, save=True)
    assert not capsys.readouterr().err
