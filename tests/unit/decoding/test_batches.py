"""Batch equals singles, cached equals uncached, a hypothesis scores what forcing it scores; beams, bans and all."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from models import EOS, PROMPTS, SOURCES, VARIANTS, build, decode, encoded, head

from lightning_nlp.decoding.config import GenerationConfig
from lightning_nlp.decoding.generate import Hypothesis, generate, hypotheses
from lightning_nlp.decoding.score import score
from lightning_nlp.errors import ConfigError

SEARCH = {"beams": 3, "n_best": 3, "max_new_tokens": 10, "eos_id": EOS}
BANS = {"no_repeat_ngram_size": 2, "repetition_penalty": 1.3, "min_new_tokens": 3, "bad_words": [[4], [11, 12]]}


def close(found: list[list[Hypothesis]], expected: list[list[Hypothesis]]) -> None:
    """The same tokens, and scores to float32."""
    assert [[x.tokens for x in row] for row in found] == [[x.tokens for x in row] for row in expected]
    for field in ("score", "log_probability"):
        values, wanted = ([getattr(x, field) for row in rows for x in row] for rows in (found, expected))
        assert values == pytest.approx(wanted, abs=5e-5)


@pytest.mark.parametrize("settings", [SEARCH, {**SEARCH, **BANS}, {"max_new_tokens": 10, "eos_id": EOS, **BANS}])
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_a_batch_gives_what_its_prompts_give_alone(variant, settings):
    model = build(**variant)
    together = decode(model, PROMPTS, **settings)
    close(together, [decode(model, [prompt], **settings)[0] for prompt in PROMPTS])
    assert len({len(x.tokens) for row in together for x in row}) > 1 or settings is not SEARCH


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
@pytest.mark.parametrize("settings", [SEARCH, {"max_new_tokens": 10, "eos_id": EOS}], ids=["beams", "greedy"])
@pytest.mark.parametrize("variant", ["rotary", "learned", "relative"])
def test_a_padded_source_gives_what_it_gives_alone(variant, settings, left):
    model = build(arrangement="encoder_decoder", positions=variant)
    prompts = [[1], [1, 5], [1]]
    together = decode(model, prompts, **settings, **encoded(model, SOURCES, left))
    alone = [
        decode(model, [prompt], **settings, memory=model.encode(torch.tensor([source])).detach())[0]
        for prompt, source in zip(prompts, SOURCES, strict=True)
    ]
    close(together, alone)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize(
    "settings",
    [SEARCH, {"max_new_tokens": 10, "eos_id": EOS}, {**SEARCH, **BANS}, {"temperature": 1.0, "n_best": 3, "seed": 1, "eos_id": EOS}],
    ids=["beams", "greedy", "bans", "samples"],
)  # fmt: skip
def test_log_probabilities_are_those_of_the_forced_text(variant, settings):
    """:func:`score` reads whole texts at once, padded on the right, without a cache."""
    model = build(**variant)
    rows = [(prompt, x) for prompt, row in zip(PROMPTS, decode(model, PROMPTS, **settings), strict=True) for x in row]
    texts = [x.tokens + [EOS] * x.finished for _, x in rows]
    forced = score(model, head, [prompt for prompt, _ in rows], texts, pad_id=0)
    assert [sum(values) for values in forced] == pytest.approx([x.log_probability for _, x in rows], abs=5e-5)
    assert [len(values) for values in forced] == list(map(len, texts))
    if "repetition_penalty" not in settings:
        norm = GenerationConfig().normalised
        assert [x.score for _, x in rows] == pytest.approx(
            [norm(x.log_probability, max(len(t), 1)) for (_, x), t in zip(rows, texts, strict=True)], abs=5e-5
        )


def test_forced_texts_of_an_encoder_decoder():
    model = build(arrangement="encoder_decoder")
    source = encoded(model, SOURCES)
    found = decode(model, [[1]] * 3, **{**SEARCH, "n_best": 1}, **source)
    forced = score(
        model, head, [[1]] * 3, [row[0].tokens + [EOS] * row[0].finished for row in found], pad_id=0, **source
    )
    assert [sum(row) for row in forced] == pytest.approx([row[0].log_probability for row in found], abs=5e-5)


@torch.no_grad()
def test_forced_texts_token_by_token():
    model = build().eval()
    prompts, texts = [[3, 14], [9], [5, 6, 7]], [[2, 6], [], [11, 12, 13, 14]]
    expected = []
    for prompt, text in zip(prompts, texts, strict=True):
        logs = head(model(torch.tensor([prompt + text]))[0]).log_softmax(-1)
        expected.append([float(logs[len(prompt) - 1 + place, token]) for place, token in enumerate(text)])
    found = score(model, head, prompts, texts, pad_id=0)
    assert list(map(len, found)) == [2, 0, 4]
    assert [*itertools.chain(*found)] == pytest.approx([*itertools.chain(*expected)], abs=1e-5)
    assert score(model, head, [], [], pad_id=0) == []
    assert score(model, head, [[]], [[4]], pad_id=0, bos_id=9) == score(model, head, [[9]], [[4]], pad_id=0)
    long = list(range(1, 33))
    assert score(model, head, [[9] * 40], [long], pad_id=0) == score(model, head, [[9]], [long], pad_id=0)


@pytest.mark.parametrize(
    ("prompts", "texts", "message"),
    [
        ([[1], [2]], [[3]], "2 prompts have 1 continuations"),
        ([[]], [[3]], "prompt is empty"),
        ([[1]], [[3] * 33], "33 tokens is longer than backbone.max_length 32"),
    ],
)
def test_texts_that_cannot_be_scored(prompts, texts, message):
    with pytest.raises(ConfigError, match=message):
        score(build(), head, prompts, texts, pad_id=0)


@pytest.mark.parametrize("norm", ["none", "average", "gnmt"])
def test_a_wide_beam_finds_the_best_of_all_texts(norm):
    """With more beams than texts, beam search is exhaustive search."""
    model = build(vocab_size=50)

    def few(hidden: torch.Tensor) -> torch.Tensor:
        return head(hidden)[:, :5]

    config = GenerationConfig(max_new_tokens=3, beams=5, n_best=5, length_norm=norm, length_penalty=0.7, stop="never")
    (found,) = hypotheses(model, few, [[9]], config, eos_id=0, pad_id=0)
    texts = [(*text, 0) for n in range(3) for text in itertools.product(range(1, 5), repeat=n)]
    texts += list(itertools.product(range(1, 5), repeat=3))
    values = score(model, few, [[9]] * len(texts), [list(text) for text in texts], pad_id=0)
    ranked = sorted((-config.normalised(sum(row), len(row)), text) for row, text in zip(values, texts, strict=True))
    assert found[0].score == pytest.approx(-ranked[0][0], abs=1e-5)
    assert (*found[0].tokens, *[0] * found[0].finished) == ranked[0][1]


@pytest.mark.parametrize("settings", [{}, BANS, {"beams": 3}], ids=["greedy", "bans", "beams"])
def test_rows_that_end_early_leave_the_batch_and_the_others_unharmed(settings):
    model = build()
    (free,) = decode(model, PROMPTS[:1], max_new_tokens=5, **settings)
    given = {"max_new_tokens": 25, "eos_id": free[0].tokens[4], **settings}
    sizes: list[int] = []
    watched = model.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    found = decode(model, PROMPTS * 4, **given)
    watched.remove()
    assert 1 < sizes[-1] < max(sizes)
    close(found, [decode(model, [prompt], **given)[0] for prompt in PROMPTS * 4])


@pytest.mark.parametrize("beams", [1, 3])
def test_prefixes_begin_the_result_whatever_is_banned(beams):
    prefixes = [[4, 4], [], [EOS], [10, 11, 12]]
    found = decode(build(), PROMPTS, beams=beams, max_new_tokens=9, eos_id=EOS, prefixes=prefixes, **BANS)
    best = [row[0] for row in found]
    assert [x.tokens[: len(prefix)] for x, prefix in zip(best, prefixes, strict=True)][::3] == prefixes[::3]
    assert best[2].tokens == []
    assert best[2].finished


@pytest.mark.parametrize("beams", [1, 3])
def test_a_text_ends_where_nothing_is_allowed(beams):
    words = {0: [[20, 21], [20, 22, 23]], 1: [[30]], 2: [[]], 3: [[20]]}

    def allowed(row: int, new: list[int]) -> list[int]:
        return [word[len(new)] for word in words[row] if word[: len(new)] == new and len(word) > len(new)]

    found = decode(build(), PROMPTS, beams=beams, max_new_tokens=9, eos_id=EOS, allowed_tokens=allowed)
    assert [row[0].tokens for row in found][1:] == [[30], [], [20]]
    assert found[0][0].tokens in words[0]
    assert not any(row[0].finished for row in found)
    banned = decode(build(), PROMPTS, beams=beams, max_new_tokens=9, eos_id=EOS, bad_words=[[n] for n in range(50)])
    assert [row[0].tokens for row in banned] == [[]] * 4


@pytest.mark.parametrize("beams", [1, 3])
def test_the_end_can_be_forced(beams):
    found = decode(build(), PROMPTS, beams=beams, max_new_tokens=4, eos_id=EOS, min_new_tokens=3, force_eos=True)
    assert [len(row[0].tokens) for row in found] == [3] * 4
    assert all(row[0].finished for row in found)
    full = decode(
        build(max_length=8), PROMPTS, beams=beams, max_new_tokens=99, eos_id=EOS, min_new_tokens=99, force_eos=True
    )
    assert [len(row[0].tokens) for row in full] == [4, 6, 0, 5]
    assert all(row[0].finished for row in full)


def test_several_samples_of_a_prompt():
    found = decode(build(), PROMPTS, temperature=3.0, n_best=4, seed=3, max_new_tokens=6)
    assert [len(row) for row in found] == [4] * 4
    assert all(len({tuple(x.tokens) for x in row}) > 1 for row in found)
    assert all(row == sorted(row, key=lambda x: -x.score) for row in found)


def test_generate_gives_the_best_hypothesis():
    model, config = build(), GenerationConfig(beams=3, max_new_tokens=8)
    best = generate(model, head, PROMPTS, config, eos_id=EOS, pad_id=0)
    assert best == [row[0].tokens for row in decode(model, PROMPTS, beams=3, max_new_tokens=8, eos_id=EOS)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"beams": 51}, "beams 51 is more than the vocabulary of 50"),
        ({"prefixes": [[1]]}, "prefixes has 1 rows for 4 prompts"),
        ({"source": [[1]]}, "source has 1 rows for 4 prompts"),
        ({"prefixes": [[1] * 4] * 4, "max_new_tokens": 3}, "prefix of prompt 0 has 4 tokens, more than the 3 new ones"),
        ({"prefixes": [[-1]] * 4}, "prefix of prompt 0 holds token -1"),
        ({"beams": 2, "on_token": print}, "announced as they come"),
        ({"temperature": 1.0, "n_best": 2, "on_token": print}, "announced as they come"),
    ],
)
def test_impossible_calls_are_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        decode(build(), PROMPTS, **given)


def test_as_many_beams_as_tokens():
    (found,) = decode(build(), [[9]], beams=50, n_best=50, max_new_tokens=2, eos_id=EOS)
    assert len(found) == 50
    assert len({tuple(x.tokens) for x in found}) == 50
    assert all(math.isfinite(x.score) for x in found)
