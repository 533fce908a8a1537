"""Prefix language models: seqio's numbers, documents in pieces, pairs cut fairly, and what the model then sees."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import lightning_nlp
from lightning_nlp.data.collate import collate_packed
from lightning_nlp.data.objectives import IGNORED, cut_pair, prefix_lm, split_point
from lightning_nlp.data.order.lanes import pack
from lightning_nlp.data.prefix_lm import PrefixLMData, PrefixPairsData
from lightning_nlp.data.tokenizers.tokenizer import TokenizerConfig
from lightning_nlp.errors import ConfigError

N = IGNORED


def test_a_row_is_that_of_seqio():
    """seqio `feature_converters_test.py`, PrefixLM: inputs 9 4 6 1, targets 3 9 1, start 0; weights 0 0 0 0 1 1 1."""
    example = prefix_lm([9, 4, 6, 1], [3, 9, 1], "d", 0, None)
    assert example.tokens.tolist() == [0, 9, 4, 6, 1, 3, 9]
    assert example.labels.tolist() == [N, N, N, N, 3, 9, 1]
    assert example.extras["prefix_mask"].astype(int).tolist() == [1, 1, 1, 1, 1, 0, 0]  # one more than inputs


def test_packed_rows_are_those_of_seqio():
    """The same file, packed: 7 8 5 1 -> 3 9 1 and 8 4 9 3 1 -> 4 1; every document begins anew."""
    pairs = [([7, 8, 5, 1], [3, 9, 1]), ([8, 4, 9, 3, 1], [4, 1])]
    examples = [prefix_lm(*pair, "d", 0, None) for pair in pairs]
    row = pack([(example, 0, len(example.tokens)) for example in examples], 16)
    batch = {
        name: value[0].tolist() for name, value in collate_packed([row], 0).items() if isinstance(value, torch.Tensor)
    }
    weights = [0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1, 0, 0]
    assert batch["tokens"] == [0, 7, 8, 5, 1, 3, 9, 0, 8, 4, 9, 3, 1, 4, 0, 0]
    assert [int(label != N) for label in batch["labels"]] == weights
    assert [label for label in batch["labels"] if label != N] == [3, 9, 1, 4, 1]
    assert batch["segments"] == [1] * 7 + [2] * 7 + [0, 0]
    assert batch["positions"] == [*range(7), *range(7), 0, 0]
    assert [int(seen) for seen in batch["prefix_mask"]] == [1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1, 1, 0, 0, 0]


CASES = {
    "without a start": (([5, 6], [7, 8], None, 1), [5, 6, 7, 8], [N, 7, 8, 1], [1, 1, 0, 0]),
    "nothing given but the start": (([], [7], 0, 1), [0, 7], [7, 1], [1, 0]),
    "nothing given at all": (([], [7, 8], None, None), [7], [8], [0]),
}


@pytest.mark.parametrize("case", CASES)
def test_by_hand(case):
    (prefix, rest, bos, eos), tokens, labels, seen = CASES[case]
    example = prefix_lm(prefix, rest, "d", bos, eos)
    assert (example.tokens.tolist(), example.labels.tolist()) == (tokens, labels)
    assert example.extras["prefix_mask"].astype(int).tolist() == seen


@pytest.mark.parametrize(("prefix", "rest", "bos", "eos"), [([5], [], 0, 1), ([], [7], None, None)])
def test_nothing_to_learn(prefix, rest, bos, eos):
    assert prefix_lm(prefix, rest, "d", bos, eos) is None


def test_split_points_are_even_and_a_function_of_the_key():
    points = [split_point(6, (1, number)) for number in range(5000)]
    counts = np.bincount(points)
    assert counts[0] == 0 and len(counts) == 6
    assert (np.abs(counts[1:] - 1000) < 4 * 800**0.5).all()
    assert [split_point(1000, (7, 0, number)) for number in range(4)] == [918, 198, 597, 106]  # for ever
    assert {split_point(2, (number,)) for number in range(9)} == {1}


@given(source=st.integers(1, 60), target=st.integers(1, 60), room=st.integers(2, 90))
def test_the_longer_text_is_cut(source, target, room):
    kept = tuple(map(len, cut_pair(list(range(source)), list(range(target)), room)))
    assert sum(kept) == min(source + target, room)
    assert kept[0] <= source and kept[1] <= target and min(kept) >= min(source, target, room // 2)


# Corpora, seen through the data modules ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Documents of one to 300 letters; as pairs, two texts of very different lengths."""
    directory = tmp_path_factory.mktemp("prefix")
    draw = np.random.default_rng(2)
    for split, size in (("train", 40), ("validation", 12), ("test", 4)):
        with (directory / f"{split}.jsonl").open("w") as stream:
            for number in range(size):
                one, two = ("".join(draw.choice(list("abcdeü "), int(draw.choice([1, 6, 40, 90])))) for _ in range(2))
                row = {"id": f"{split}-{number}", "text": one * int(draw.choice([1, 4])), "source": one, "target": two}
                stream.write(json.dumps(row) + "\n")
    return directory


def make(kind, texts, *, stage="fit", ranks=1, rank=0, **settings):
    settings = {"tokenizer": TokenizerConfig(kind="byte"), "max_length": 64, "seed": 5, **settings}
    data = kind(str(texts), global_batch_size=8, lanes=4, **settings)
    data.setup(stage)
    data.plan(ranks, rank)
    return data


def documents_of(batches):
    """``(name, tokens, labels, prefix)`` of every document of every row."""
    for batch in batches:
        for row, names in enumerate(batch["example_ids"]):
            for number, name in enumerate(names, 1):
                inside = batch["segments"][row] == number
                yield name, *(batch[field][row][inside].tolist() for field in ("tokens", "labels", "prefix_mask"))


def train(data, count):
    return [batch for batch, _ in zip(data.train_dataloader(), range(count), strict=False)]


@pytest.mark.parametrize("rows", ["packed", "single"])
def test_documents_are_whole_in_pieces_and_labels_follow_the_prefix(texts, rows):
    data = make(PrefixLMData, texts, rows=rows)
    known = {row["id"]: data.tokenizer.encode(row["text"]) for row in data.split("train").scan(0)}
    bos, eos, pieces, splits = data.tokenizer.bos_id, data.tokenizer.eos_id, {}, {}
    for name, tokens, labels, prefix in documents_of(train(data, 90)):
        given_ = sum(prefix)
        assert tokens[0] == bos and prefix == [True] * given_ + [False] * (len(prefix) - given_)
        assert labels[: given_ - 1] == [N] * (given_ - 1) and labels[given_ - 1 : -1] == tokens[given_:]
        document, _, offset = name.partition("@")
        piece = [*tokens[1:], *([labels[-1]] if labels[-1] != eos else [])]
        assert known[document][int(offset or 0) :][: len(piece)] == piece
        assert (labels[-1] == eos) == (int(offset or 0) + len(piece) == len(known[document]))
        pieces.setdefault(document, {})[int(offset or 0)] = len(piece)
        splits.setdefault(name, set()).add(given_)
    assert all(sum(found.values()) == len(known[name]) for name, found in pieces.items())
    assert pieces.keys() == {name for name, ids in known.items() if len(ids) > 1}
    assert sum(len(found) > 1 for found in splits.values()) > len(splits) / 2  # elsewhere in every epoch


@pytest.mark.parametrize("kind", [PrefixLMData, PrefixPairsData])
def test_evaluation_cuts_nothing_and_is_the_same_on_two_ranks(texts, kind):
    once = sorted(documents_of(make(kind, texts, stage="validate").val_dataloader()))
    assert all(prefix[0] and tokens[0] == 1 for _, tokens, _, prefix in once)
    parts = [make(kind, texts, stage="validate", seed=8, ranks=2, rank=rank).val_dataloader() for rank in (0, 1)]
    assert sorted(document for part in parts for document in documents_of(part)) == once
    assert sorted(documents_of(make(kind, texts, stage="validate", rows="single").val_dataloader())) == once


@pytest.mark.parametrize("kind", [PrefixLMData, PrefixPairsData])
def test_restores_change_nothing(texts, kind):
    whole = list(documents_of(train(make(kind, texts), 20)))
    first = make(kind, texts)
    batches = iter(first.train_dataloader())
    begun = list(documents_of([next(batches) for _ in range(9)]))
    again = make(kind, texts)
    again.load_state_dict({"train": json.loads(json.dumps(first._stream.state(9)))})
    assert begun + list(documents_of(train(again, 11))) == whole


@pytest.mark.parametrize("rows", ["packed", "single"])
def test_pairs_have_a_given_source_and_a_predicted_target(texts, rows):
    data = make(PrefixPairsData, texts, rows=rows)
    known = {row["id"]: row for row in data.split("train").scan(0)}
    bos, eos, size = data.tokenizer.bos_id, data.tokenizer.eos_id, {}
    for batch in train(data, 40):
        for row in range(len(batch["tokens"])):
            bytes_ = 0
            for name, tokens, labels, prefix in documents_of(
                [
                    {
                        key: value[row : row + 1]
                        for key, value in batch.items()
                        if key in ("tokens", "labels", "prefix_mask", "segments", "example_ids")
                    }
                ]
            ):
                given_ = sum(prefix)
                source, target = (data.tokenizer.encode(known[name][field]) for field in ("source", "target"))
                read, written = tokens[1 : given_ - 1], labels[given_ - 1 :]
                assert (tokens[0], tokens[given_ - 1], len(tokens) <= 64) == (bos, eos, True)
                assert source[: len(read)] == read and [*target, eos][: len(written)] == written
                whole = len(source) + len(target) + 2 <= 64
                assert (len(read) == len(source) and written[-1] == eos) or not whole
                bytes_ += len([token for token in written if token != eos])
                size[name] = len(tokens), whole
            assert int(batch["bytes"][row]) == bytes_
    counts = data.counts(40)
    assert counts["truncated"] > 0 and counts["tokens_cut"] > 0 and counts["split"] == 0
    assert any(whole for _, whole in size.values()) and not all(whole for _, whole in size.values())


def test_bits_per_byte_count_the_bytes_that_are_predicted(texts):
    data = make(PrefixLMData, texts)
    for batch in train(data, 10):
        for row, size in enumerate(batch["bytes"].tolist()):
            labels = batch["labels"][row].tolist()
            assert size == sum(label not in (N, data.tokenizer.eos_id) for label in labels)


@pytest.mark.parametrize("length", [(4, 9), (7, 7)])
def test_a_prompt_is_read_as_a_prefix(length):
    """Greedy text of a batch with a cache is what full passes without one choose, all of the prompt being seen."""
    torch.manual_seed(0)
    config = lightning_nlp.TransformerConfig(
        vocab_size=50, n_layers=2, d_model=32, n_heads=2, max_length=32, init_std=0.4
    )
    prompt = {"bidirectional": True}
    module = lightning_nlp.CausalLM(config, generation=lightning_nlp.GenerationConfig(max_new_tokens=6), prompt=prompt)
    module.configure_model()
    module.eval()
    head, backbone = module.head, module.backbone
    head.tokenizer = type("T", (), {"pad_id": 0, "eos_id": None, "vocab_size": 50})()
    prompts = [torch.randint(1, 50, (size,)).tolist() for size in length]
    found = head.continuations(backbone, prompts, head.generation)
    causal = type(head)(head.generation, [], head.loss_config)
    for ids, new in zip(prompts, found, strict=True):
        text, seen = list(ids), len(ids)
        for token in new:
            mask = torch.arange(len(text))[None] < seen
            best = head.scores(backbone, backbone(torch.tensor([text]), prefix_mask=mask)[0, -1]).argmax()
            assert int(best) == token
            text.append(token)
    causal.build(config)
    causal.load_state_dict(head.state_dict())
    causal.tokenizer = head.tokenizer
    assert causal.continuations(backbone, prompts, head.generation) != found  # the prefix makes a difference
    again = lightning_nlp.CausalLM(**module.plain_hyperparameters())
    assert again.head.prompt == head.prompt and again.head.prompt.bidirectional


def test_the_loss_sees_all_of_the_prefix_and_nothing_that_comes_later(texts):
    torch.manual_seed(0)
    data = make(PrefixPairsData, texts)
    config = lightning_nlp.TransformerConfig(
        vocab_size=data.tokenizer.vocab_size, n_layers=1, d_model=32, n_heads=2, max_length=64
    )
    module = lightning_nlp.CausalLM(config)
    module.configure_model()
    module.eval()
    batch = train(data, 1)[0]
    row = int((batch["prefix_mask"].sum(1) > 8).nonzero()[0])
    seen = batch["prefix_mask"][row] & (batch["segments"][row] == 1)
    last = int(seen.sum()) - 1

    def hidden(place):
        changed = batch["tokens"].clone()
        changed[row, place] += 1
        return module.head.hidden(module.backbone, {**batch, "tokens": changed})[row]

    before = module.head.hidden(module.backbone, batch)[row]
    assert not torch.equal(hidden(last)[0], before[0])  # the first token sees the last of its prefix
    assert torch.equal(hidden(last + 1)[: last + 1], before[: last + 1])  # and none behind it


def test_texts_to_go_on_from_and_sources_to_answer(texts, tmp_path):
    (tmp_path / "in.txt").write_text("abc\n\n" + "d" * 90 + "\n")
    data = make(PrefixLMData, texts, stage="validate")
    data.predict_path = str(tmp_path / "in.txt")
    (batch,) = data.predict_dataloader()
    bos, eos = data.tokenizer.bos_id, data.tokenizer.eos_id
    assert batch["tokens"][0][:4].tolist() == [bos, *data.tokenizer.encode("abc")] and batch["cut"] == [0, 28]
    assert (
        batch["prefix_mask"].sum(1).tolist() == [4, 63]
        and (batch["labels"] == N).all()
        and list(batch["failed"]) == [1]
    )
    pairs = make(PrefixPairsData, texts, stage="validate")
    pairs.predict_path = str(tmp_path / "in.txt")
    (batch,) = pairs.predict_dataloader()
    assert batch["tokens"][0][:5].tolist() == [bos, *pairs.tokenizer.encode("abc"), eos]
    data.predict_path = None
    for batch in data.predict_dataloader():
        for row, text in enumerate(batch["texts"]):
            shown = data.tokenizer.decode(batch["tokens"][row][batch["segments"][row] > 0].tolist())
            assert text.startswith(shown + batch["references"][row]) and shown and batch["references"][row]


def test_mistakes(texts):
    with pytest.raises(ConfigError, match=r"data.max_length must be at least 4, not 3"):
        make(PrefixLMData, texts, max_length=3)
    with pytest.raises(ConfigError, match="no end token"):
        make(PrefixPairsData, texts, tokenizer=TokenizerConfig(kind="byte", special_tokens=False))
    assert make(PrefixLMData, texts, tokenizer=TokenizerConfig(kind="byte", special_tokens=False)).facts()["prompt"]
