"""Decoding beside transformers: the same tokens, and scores within 1e-5, from the same tiny random weights."""

from __future__ import annotations

import functools
import itertools
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_nlp.decoding.config import GenerationConfig
from lightning_nlp.decoding.generate import Hypothesis, hypotheses
from lightning_nlp.decoding.sampling import keep_min_p, keep_top_p, keep_typical, next_token
from lightning_nlp.interop.convert import import_model
from tests.unit.decoding.table_model import END, TableModel

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

VOCABULARY, EOS, PAD = 43, 7, 0
SAME = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": EOS, "pad_token_id": PAD}
PROMPTS = [[3, 14, 15, 9, 26], [5], [35, 8, 9, 3, 35, 8], [2, 3]]


def gpt2() -> Any:
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(**SAME, n_positions=64, n_embd=32, n_layer=2, n_head=4, initializer_range=0.3)
    )


def llama() -> Any:
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            **SAME, max_position_embeddings=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, initializer_range=0.3,
        )
    )  # fmt: skip


PAIR = {
    **SAME, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_position_embeddings": 64, "init_std": 0.3,
    "forced_eos_token_id": None, "scale_embedding": True,
}  # fmt: skip


def marian() -> Any:
    return transformers.MarianMTModel(
        transformers.MarianConfig(**PAIR, activation_function="swish", decoder_start_token_id=PAD)
    )


def bart() -> Any:
    return transformers.BartForConditionalGeneration(transformers.BartConfig(**PAIR, decoder_start_token_id=2))


def t5() -> Any:
    return transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            **SAME, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=PAD,
            relative_attention_num_buckets=8, relative_attention_max_distance=12, initializer_factor=2.0,
        )
    )  # fmt: skip


BUILDERS = {"gpt2": gpt2, "llama": llama}
ENCODER_DECODERS = {"marian": marian, "bart": bart, "t5": t5}


@pytest.fixture(scope="module", params=BUILDERS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """A model of theirs and the same one as a task of ours."""
    return twins(BUILDERS[request.param], tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module", params=ENCODER_DECODERS)
def sourced_pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """The same with a source."""
    return twins(ENCODER_DECODERS[request.param], tmp_path_factory.mktemp(request.param))


def twins(builder: Any, folder: Path) -> tuple[Any, Any]:
    """A random model of theirs, and what our import makes of it."""
    torch.manual_seed(1)
    theirs = builder().eval()
    theirs.get_output_embeddings().weight.data[EOS] *= 1.5  # texts end every now and then
    theirs.save_pretrained(folder)
    return theirs, import_model(folder)


def ours_and_theirs(
    pair: tuple[Any, Any], ours: dict[str, Any], theirs: dict[str, Any], rows: list[list[int]] = PROMPTS, **given: Any
) -> tuple[list[list[Hypothesis]], Any]:
    """Both results for ``rows``: prompts of a decoder, or sources of an encoder-decoder.

    Args:
        ours: settings of ours; theirs: of theirs; given: keyword arguments of our generation.
    """
    model, task = pair
    lengths = torch.tensor([len(row) for row in rows])
    width = int(lengths.max())
    sourced = model.config.is_encoder_decoder
    filled = [row + [PAD] * (width - len(row)) if sourced else [PAD] * (width - len(row)) + row for row in rows]
    tokens, count = torch.tensor(filled), torch.arange(width)
    mask = (count < lengths[:, None] if sourced else count >= width - lengths[:, None]).long()
    settings = {"do_sample": False, "return_dict_in_generate": True, "output_scores": True, **theirs}
    expected = model.generate(tokens, attention_mask=mask, **settings)
    backbone = task.backbone
    if sourced:
        start = model.config.decoder_start_token_id
        memory = backbone.encode(tokens, mask).detach()
        given = {"memory": memory, "memory_segments": mask, **given}
        prompts = [[start]] * len(rows)
    else:
        prompts = rows
    found = hypotheses(
        backbone, lambda hidden: task.head.scores(backbone, hidden), prompts, GenerationConfig(**ours),
        eos_id=EOS, pad_id=PAD, **given,
    )  # fmt: skip
    expected.start = 1 if sourced else width
    return found, expected


def check_same(found: list[list[Hypothesis]], expected: Any, beams: bool) -> None:
    """Tokens one by one, and scores of beams."""
    best = [hypothesis for row in found for hypothesis in row]
    theirs = [trimmed(row[expected.start :].tolist()) for row in expected.sequences]
    assert [hypothesis.tokens for hypothesis in best] == theirs
    assert len({tuple(tokens) for tokens in theirs}) > 1
    if beams:
        assert [x.score for x in best] == pytest.approx(expected.sequences_scores.tolist(), abs=1e-5, rel=1e-5)


def trimmed(tokens: list[int]) -> list[int]:
    """Without the end token and the padding after it."""
    return tokens[: tokens.index(EOS)] if EOS in tokens else [token for token in tokens if token != -1]


BEAMS = [(2, "finished", 1.0), (4, "finished", 0.6), (2, "heuristic", 1.0), (4, "heuristic", 2.0), (4, "heuristic", 0.0),
         (2, "never", 1.0), (4, "never", -1.0), (4, "never", 2.0), (3, "heuristic", -0.5)]  # fmt: skip
EARLY = {"finished": True, "heuristic": False, "never": "never"}


def test_greedy(pair):
    found, expected = ours_and_theirs(pair, {"max_new_tokens": 20}, {"max_new_tokens": 20})
    check_same(found, expected, beams=False)


@pytest.mark.parametrize(("beams", "stop", "penalty"), BEAMS)
def test_beam_search(pair, beams, stop, penalty):
    ours = {"max_new_tokens": 20, "beams": beams, "n_best": beams, "stop": stop, "length_penalty": penalty}
    theirs = {"max_new_tokens": 20, "num_beams": beams, "num_return_sequences": beams, "early_stopping": EARLY[stop],
              "length_penalty": penalty}  # fmt: skip
    check_same(*ours_and_theirs(pair, ours, theirs), beams=True)


WORDS = [[3], [35, 39], [38, 8, 9]]


@pytest.mark.parametrize("stop", EARLY)
@pytest.mark.parametrize("penalty", [-1.0, 0.0, 0.6, 1.0, 5.0])
@pytest.mark.parametrize("beams", [2, 3, 4])
def test_any_table(beams, stop, penalty):
    """Scores of a search through made-up probabilities of all texts of up to four tokens."""
    numbers = random.Random(f"{beams} {stop} {penalty}")
    most, table = numbers.randint(1, 5), {}
    for text in ("".join(letters) for length in range(5) for letters in itertools.product("ab", repeat=length)):
        weights = [numbers.uniform(0.02, 1) for _ in "$ab"]
        table[text] = {name: weight / sum(weights) for name, weight in zip("$ab", weights, strict=True)}
    model = TableModel({3: table})

    def from_table(tokens: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return torch.stack([model.next(3, [min(token, 2) for token in row[1:]]) for row in tokens.tolist()])

    theirs = blank().generate(
        torch.tensor([[3]]), num_beams=beams, num_return_sequences=beams, max_new_tokens=most, length_penalty=penalty,
        early_stopping=EARLY[stop], eos_token_id=END, pad_token_id=END, logits_processor=[from_table],
        do_sample=False, return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    config = GenerationConfig(max_new_tokens=most, beams=beams, n_best=beams, length_penalty=penalty, stop=stop)
    (found,) = hypotheses(model, lambda hidden: hidden, [[3]], config, eos_id=END, pad_id=0)
    expected = [x for x in theirs.sequences_scores.tolist() if x > -1e8]
    assert [x.score for x in found] == pytest.approx(expected, abs=1e-5, rel=1e-5)


@pytest.mark.parametrize(("beams", "stop", "penalty"), [(1, "finished", 1.0), *BEAMS[1:6]])
def test_encoder_decoders(sourced_pair, beams, stop, penalty):
    ours = {"max_new_tokens": 14, "beams": beams, "n_best": beams, "stop": stop, "length_penalty": penalty}
    theirs = {"max_new_tokens": 14, "num_beams": beams, "num_return_sequences": beams, "early_stopping": EARLY[stop],
              "length_penalty": penalty}  # fmt: skip
    check_same(*ours_and_theirs(sourced_pair, ours, theirs), beams=beams > 1)


@pytest.mark.parametrize("beams", [1, 3])
def test_ngrams_of_the_source(sourced_pair, beams):
    ours = {"max_new_tokens": 14, "beams": beams, "no_repeat_ngram_size": 1, "no_repeat_ngram_scope": "source"}
    theirs = {"max_new_tokens": 14, "num_beams": beams, "no_repeat_ngram_size": 1, "encoder_no_repeat_ngram_size": 1}
    rows = [[3, 14, 15, 9, 26], [35, 8, 9, 3, 11]]  # of one length: theirs count padding as text
    check_same(*ours_and_theirs(sourced_pair, ours, theirs, rows, source=rows), beams=beams > 1)


@pytest.mark.parametrize("p", [0.1, 0.37, 0.6, 0.95])
def test_filters_of_sampling(p):
    scores = torch.randn(20, 101, generator=torch.Generator().manual_seed(3)) * 3
    for mine, theirs in (
        (keep_top_p, transformers.TopPLogitsWarper),
        (keep_min_p, transformers.MinPLogitsWarper),
        (keep_typical, transformers.TypicalLogitsWarper),
    ):
        assert torch.equal(mine(scores, p), theirs(p)(None, scores)), theirs


@pytest.mark.parametrize(("temperature", "k"), [(0.3, 5), (1.0, 1), (2.5, 40)])
def test_the_distribution_samples_are_drawn_from(temperature, k, monkeypatch):
    """All filters in a row, in the order of theirs; what is drawn from is looked at instead of what is drawn."""
    scores = torch.randn(20, 101, generator=torch.Generator().manual_seed(4)) * 3
    config = GenerationConfig(temperature=temperature, top_k=k, top_p=0.9, min_p=0.02, typical_p=0.8)
    drawn: list[torch.Tensor] = []
    monkeypatch.setattr(torch, "multinomial", lambda p, n, generator: drawn.append(p) or torch.zeros(20, 1))
    next_token(scores, config, torch.Generator())
    expected = scores
    for step in (
        transformers.TemperatureLogitsWarper(temperature), transformers.TopKLogitsWarper(k),
        transformers.TopPLogitsWarper(0.9), transformers.MinPLogitsWarper(0.02), transformers.TypicalLogitsWarper(0.8),
    ):  # fmt: skip
        expected = step(None, expected)
    torch.testing.assert_close(drawn[0], expected.softmax(-1), atol=1e-6, rtol=1e-4)
    assert (drawn[0] > 0).sum() < 20 * k or k == 1


@functools.cache
def blank() -> Any:
    """A model of theirs over the tokens of the table; what it says is replaced."""
    config = transformers.GPT2Config(vocab_size=4, n_positions=16, n_embd=4, n_layer=1, n_head=1)
    return transformers.GPT2LMHeadModel(config).eval()


SETTINGS = {  # no 1-grams: theirs count padding as text and ban its token
    "2-grams": ({"no_repeat_ngram_size": 2}, {"no_repeat_ngram_size": 2}),
    "repetition penalty": ({"repetition_penalty": 1.7}, {"repetition_penalty": 1.7}),
    "least length": ({"min_new_tokens": 9}, {"min_new_tokens": 9}),
    "bad words": ({"bad_words": WORDS}, {"bad_words_ids": WORDS}),
    "all at once": (
        {"no_repeat_ngram_size": 3, "repetition_penalty": 1.2, "min_new_tokens": 4, "bad_words": WORDS},
        {"no_repeat_ngram_size": 3, "repetition_penalty": 1.2, "min_new_tokens": 4, "bad_words_ids": WORDS},
    ),
}


@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize(("ours", "theirs"), SETTINGS.values(), ids=SETTINGS)
def test_penalties_and_bans(pair, ours, theirs, beams):
    changed, expected = ours_and_theirs(
        pair, {"max_new_tokens": 16, "beams": beams, **ours}, {"max_new_tokens": 16, "num_beams": beams, **theirs}
    )
    check_same(changed, expected, beams=beams > 1)


@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize(("ours", "theirs"), SETTINGS.values(), ids=SETTINGS)
def test_penalties_and_bans_of_encoder_decoders(sourced_pair, ours, theirs, beams):
    changed, expected = ours_and_theirs(
        sourced_pair,
        {"max_new_tokens": 12, "beams": beams, "n_best": beams, **ours},
        {"max_new_tokens": 12, "num_beams": beams, "num_return_sequences": beams, **theirs},
    )
    check_same(changed, expected, beams=beams > 1)


def test_settings_of_this_file_make_a_difference(pair):
    free, _ = ours_and_theirs(pair, {"max_new_tokens": 16}, {"max_new_tokens": 16})
    for ours, theirs in SETTINGS.values():
        changed, _ = ours_and_theirs(pair, {"max_new_tokens": 16, **ours}, {"max_new_tokens": 16, **theirs})
        assert [row[0].tokens for row in changed] != [row[0].tokens for row in free], ours


@pytest.mark.parametrize("beams", [1, 4])
def test_forced_prefixes(pair, beams):
    prefixes = [[11, 12], [30], [], [21, 22, 23]]
    width = max(map(len, PROMPTS))

    def allowed(row: int, tokens: torch.Tensor) -> list[int]:
        place = len(tokens) - width
        return [prefixes[row][place]] if place < len(prefixes[row]) else list(range(VOCABULARY))

    theirs = {"max_new_tokens": 12, "num_beams": beams, "prefix_allowed_tokens_fn": allowed}
    found, expected = ours_and_theirs(pair, {"max_new_tokens": 12, "beams": beams}, theirs, prefixes=prefixes)
    check_same(found, expected, beams=beams > 1)
    assert [row[0].tokens[: len(prefix)] for row, prefix in zip(found, prefixes, strict=True)] == prefixes


@pytest.mark.parametrize("beams", [1, 4])
def test_allowed_tokens(pair, beams):
    def allowed(row: int, new: list[int]) -> list[int]:
        return [EOS, *range(10 + row, 40, 1 + len(new) % 4)]

    width = max(map(len, PROMPTS))
    theirs = {
        "max_new_tokens": 12, "num_beams": beams,
        "prefix_allowed_tokens_fn": lambda row, tokens: allowed(row, tokens[width:].tolist()),
    }  # fmt: skip
    ours = {"max_new_tokens": 12, "beams": beams}
    check_same(*ours_and_theirs(pair, ours, theirs, allowed_tokens=allowed), beams=beams > 1)
