"""Windows over long texts: every label once, context as far back as fits, as lm-evaluation-harness cuts them."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_nlp.data.causal_lm import CausalLMData, in_windows, words_in
from lightning_nlp.data.objectives import IGNORED, causal_lm, rolling_windows
from lightning_nlp.data.tokenizers.config import TokenizerConfig
from lightning_nlp.errors import ConfigError

BOS, EOS = 101, 102


@pytest.mark.parametrize(
    ("pairs", "length", "stride", "expected"),
    [
        (0, 4, None, []),
        (3, 4, None, [(0, 0, 3)]),
        (4, 4, None, [(0, 0, 4)]),
        (5, 4, None, [(0, 0, 4), (1, 4, 5)]),
        (10, 4, None, [(0, 0, 4), (4, 4, 8), (6, 8, 10)]),
        (7, 4, 2, [(0, 0, 4), (2, 4, 6), (3, 6, 7)]),
        (6, 4, 1, [(0, 0, 4), (1, 4, 5), (2, 5, 6)]),
        (2, 1, 1, [(0, 0, 1), (1, 1, 2)]),
    ],
)
def test_by_hand(pairs, length, stride, expected):
    """The third column of lm-eval's own example: get_rolling_token_windows of 10 tokens, 4 at a time, context 1."""
    assert rolling_windows(pairs, length, stride) == expected


@pytest.mark.parametrize("stride", [1, 3, 8])
@pytest.mark.parametrize("size", [1, 7, 8, 9, 30])
@pytest.mark.parametrize("ends", [(BOS, EOS), (BOS, None), (None, EOS)])
def test_every_label_is_scored_once_after_the_longest_context(size, stride, ends):
    example = causal_lm(np.arange(size, dtype=np.int32), "a", 50, *ends)
    if example is None:
        return
    example.words = 9
    labels, tokens = example.labels.tolist(), example.tokens.tolist()
    parts = in_windows(example, 8, stride, ends[1]).parts
    scored = [int(label) for part in parts for label in part.labels if label != IGNORED]
    assert scored == labels
    assert sum(part.bytes for part in parts) == 50 and sum(part.words for part in parts) == 9
    for part in parts:
        first = int(np.flatnonzero(part.labels != IGNORED)[0])
        place = labels.index(int(part.labels[first]))
        assert (
            len(part.tokens) <= 8 and tokens[place - first : place - first + len(part.tokens)] == part.tokens.tolist()
        )
        assert place == first or len(part.tokens) == 8  # what has no room begins as far back as fits


def test_evaluation_in_windows_sees_every_document_alone(tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(f'{{"text": "{letter * 20}"}}\n' for letter in "abc"))
    settings = {"tokenizer": TokenizerConfig(kind="byte"), "max_length": 8, "validation_fraction": 0.4}
    data = CausalLMData(str(tmp_path / "a.jsonl"), eval_stride=4, eval_batch_size=2, **settings)
    data.prepare_data()
    data.setup("validate")
    batches = list(data.val_dataloader())
    assert all((batch["segments"] <= 1).all() for batch in batches)
    documents = {identity.partition("@")[0] for batch in batches for (identity,) in batch["example_ids"]}
    labels = sum(int((batch["labels"] != IGNORED).sum()) for batch in batches)
    assert labels == 21 * len(documents)  # with the end token
    assert sum(int(batch["words"].sum()) for batch in batches if "words" in batch) == len(documents)


def test_mistakes(tmp_path):
    (tmp_path / "a.txt").write_text("a\n")
    for stride in (0, 9):
        with pytest.raises(ConfigError, match=r"data.eval_stride must be in \[1, 8\]"):
            CausalLMData(str(tmp_path / "a.txt"), max_length=8, eval_stride=stride)


@pytest.mark.parametrize(("text", "words"), [("", 1), ("one", 1), ("one two", 2), (" a\n\tb ", 4), ("a\u00a0b", 2)])
def test_words_are_counted_as_the_harness_counts_them(text, words):
    assert words_in(text) == words
