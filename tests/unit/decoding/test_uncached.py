"""Generation against the plain thing: every text read anew at every step, alone, without cache, padding or batch."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from models import EOS, PROMPTS, SOURCES, build, decode, encoded, head
from torch import Tensor

from lightning_nlp.decoding import generate as module
from lightning_nlp.decoding.beam import Hypothesis
from lightning_nlp.decoding.config import GenerationConfig
from lightning_nlp.decoding.score import score


class Plain:
    """What :class:`CachedDecoder` is, as slowly and simply as can be; shares no code with it."""

    def __init__(
        self, backbone, logits, prompts, *, pad_id, steps, memory=None, memory_segments=None, bidirectional, around_logits
    ):  # fmt: skip
        self.backbone, self.logits, self.device = backbone, logits, torch.device("cpu")
        given = [len(prompt) if bidirectional else 0 for prompt in prompts]
        sources = [None] * len(prompts)
        if memory is not None:
            sources = [x[mark > 0][None] for x, mark in zip(memory, memory_segments, strict=True)]
        self.rows = list(zip(prompts, given, sources, strict=True))

    def first(self) -> Tensor:
        return torch.stack([self.read(*row) for row in self.rows])

    def next(self, tokens: Tensor) -> Tensor:
        added = zip(self.rows, tokens.tolist(), strict=True)
        self.rows = [([*text, token], given, source) for (text, given, source), token in added]
        return self.first()

    def read(self, text: list[int], given: int, source: Tensor | None) -> Tensor:
        more = {} if source is None else {"memory": source}
        if given:
            more["prefix_mask"] = torch.arange(len(text))[None] < given
        if len(text) > self.backbone.config.max_length:  # a row that has ended; what comes is of no consequence
            return torch.zeros(50)
        return self.logits(self.backbone(torch.tensor([text]), **more)[0, -1:])[0]

    def select(self, rows: Tensor, width: int = 1) -> None:
        self.rows = [self.rows[row] for row in rows.tolist()]

    def move(self, rows: list[int]) -> None:
        self.select(torch.tensor(rows))

    def sharing_sources(self):
        return nullcontext()


SEARCH = {"beams": 3, "n_best": 3, "max_new_tokens": 10, "eos_id": EOS}
BANS = {"no_repeat_ngram_size": 2, "min_new_tokens": 3, "bad_words": [[4], [11, 12]]}
SETTINGS = {
    "greedy": {"max_new_tokens": 24, "eos_id": EOS},
    "greedy, banned": {"max_new_tokens": 10, "eos_id": EOS, **BANS, "repetition_penalty": 1.3},
    "samples": {"max_new_tokens": 10, "eos_id": EOS, "temperature": 0.9, "top_k": 20, "seed": 3, "n_best": 3},
    "beams": SEARCH,
    "beams, banned": {**SEARCH, **BANS, "repetition_penalty": 1.3},
    "beams, gnmt, to the end": {**SEARCH, "length_norm": "gnmt", "length_penalty": 0.8, "stop": "never"},
}
ARRANGEMENTS = {
    "decoder": {"positions": "alibi"},
    "prefix": {"positions": "learned"},
    "prefix, relative": {"positions": "relative", "norm": "rmsnorm"},
    "encoder_decoder": {"arrangement": "encoder_decoder"},
}


def case(kind: str, left: bool = False) -> tuple[torch.nn.Module, list[list[int]], dict[str, object]]:
    """A model, prompts and what else it is given."""
    model = build(**ARRANGEMENTS[kind])
    if kind == "encoder_decoder":
        return model, [[1], [1, 5], [1]], encoded(model, SOURCES, left)
    return model, PROMPTS, {"bidirectional": True} if kind.startswith("prefix") else {}


def close(found: list[list[Hypothesis]], expected: list[list[Hypothesis]]) -> None:
    """The same tokens, and scores to float32."""
    assert [[x.tokens for x in row] for row in found] == [[x.tokens for x in row] for row in expected]
    for field in ("score", "log_probability"):
        values, wanted = ([getattr(x, field) for row in rows for x in row] for rows in (found, expected))
        assert values == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("kind", ARRANGEMENTS)
def test_cached_batches_give_what_plain_reading_gives(kind, settings, monkeypatch):
    """32 positions, so that longer texts end where the model does."""
    model, prompts, given = case(kind)
    found = decode(model, prompts, **settings, **given)
    if "memory" in given:
        close(decode(model, prompts, **settings, **case(kind, left=True)[2]), found)
    monkeypatch.setattr(module, "CachedDecoder", Plain)
    close(found, decode(model, prompts, **settings, **given))
    assert len({tuple(x.tokens) for row in found for x in row}) > 1


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("kind", ARRANGEMENTS)
def test_hypotheses_score_what_forcing_them_scores(kind, settings):
    model, prompts, given = case(kind)
    found = decode(model, prompts, **settings, **given)
    texts = [x.tokens + [EOS] * x.finished for row in found for x in row]
    owners = [number for number, row in enumerate(found) for _ in row]
    each = {name: value[owners] if isinstance(value, Tensor) else value for name, value in given.items()}
    forced = score(model, head, [prompts[number] for number in owners], texts, pad_id=0, **each)
    expected = [x.log_probability for row in found for x in row]
    assert [sum(row) for row in forced] == pytest.approx(expected, abs=1e-4)
    if "repetition_penalty" not in settings:
        norm = GenerationConfig(
            **{name: settings[name] for name in ("length_norm", "length_penalty") if name in settings}
        ).normalised
        scores = [norm(sum(row), max(len(row), 1)) for row in forced]
        assert [x.score for row in found for x in row] == pytest.approx(scores, abs=1e-4)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("kind", ARRANGEMENTS)
def test_constrained_texts_keep_the_models_own_scores(kind, beams, monkeypatch):
    """What is forced or allowed is chosen among other tokens; none becomes likelier by it."""
    model, prompts, given = case(kind)
    given["prefixes"] = [[20 + number] * (number % 3) for number in range(len(prompts))]
    given["allowed_tokens"] = lambda row, new: range(8 + row + len(new), 50, 3)
    settings = {"max_new_tokens": 6, "beams": beams, "n_best": beams, "force_eos": True, "eos_id": EOS}
    found = decode(model, prompts, **settings, **given)
    texts = [[*row[0].tokens, EOS] for row in found]
    assert all(row[0].finished for row in found)
    for number, text in enumerate(texts):
        start = number % 3
        assert text[:start] == given["prefixes"][number]
        assert all((token - 8 - number - place) % 3 == 0 for place, token in enumerate(text[:-1]) if place >= start)
    sources = {name: given[name] for name in ("memory", "memory_segments", "bidirectional") if name in given}
    forced = score(model, head, prompts, texts, pad_id=0, **sources)
    assert [sum(row) for row in forced] == pytest.approx([row[0].log_probability for row in found], abs=1e-4)
    monkeypatch.setattr(module, "CachedDecoder", Plain)
    close(found, decode(model, prompts, **settings, **given))


@pytest.mark.parametrize("kind", ["decoder", "prefix"])
def test_a_prompt_read_in_both_directions_is_another_prompt(kind):
    """What the other tests could miss: that ``bidirectional`` does anything."""
    model, prompts, given = case(kind)
    one, both = (score(model, head, prompts, [[3, 4]] * 4, pad_id=0, bidirectional=value) for value in (False, True))
    same = [a == pytest.approx(b, abs=1e-5) for a, b in zip(one, both, strict=True)]
    assert same == [False, True, False, False]  # one of the prompts is a single token
    assert decode(model, [prompts[2]], **given) != decode(model, [prompts[2]], bidirectional=not given)


@pytest.mark.parametrize("kind", ["decoder", "prefix"])
@pytest.mark.parametrize("beams", [1, 2])
def test_cut_prompts_score_what_forcing_them_scores(kind, beams):
    """A prompt as long as the model, or longer, is cut to leave room for one token: everywhere alike."""
    model, _, given = case(kind)
    prompts = [list(range(1, length + 1)) for length in (29, 30, 31, 32, 40)]
    found = decode(model, prompts, max_new_tokens=9, beams=beams, **given)
    assert [len(row[0].tokens) for row in found] == [3, 2, 1, 1, 1]
    forced = score(model, head, prompts, [row[0].tokens for row in found], pad_id=0, **given)
    assert [sum(row) for row in forced] == pytest.approx([row[0].log_probability for row in found], abs=1e-4)


@pytest.mark.parametrize("beams", [1, 3])
def test_special_tokens_in_a_prompt_are_tokens_like_others(beams, monkeypatch):
    """Neither the end token ends a text that has not begun, nor is a padding token in a prompt padding."""
    prompts = [[EOS], [0], [0, 0, 5], [5, EOS, 0], [9, 8, 7, 6]]
    settings = {"beams": beams, "max_new_tokens": 8, "eos_id": EOS, "pad_id": 0}
    found = decode(build(), prompts, **settings)
    assert any(row[0].tokens for row in found[:4])
    monkeypatch.setattr(module, "CachedDecoder", Plain)
    close(found, decode(build(), prompts, **settings))
