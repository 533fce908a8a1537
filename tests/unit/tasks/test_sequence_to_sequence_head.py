"""The sequence-to-sequence head: teacher forcing by hand, answers alone and in a batch, exact match of chosen rows."""

from __future__ import annotations

import math

import pytest
import torch

import lightning_nlp
from lightning_nlp.data.collate import collate_pairs, with_texts
from lightning_nlp.data.objectives import sequence_to_sequence
from lightning_nlp.data.order.lanes import single
from lightning_nlp.data.tokenizers.tokenizer import Tokenizer
from lightning_nlp.errors import ConfigError

SHAPE = {
    "arrangement": "encoder_decoder",
    "n_layers": 1,
    "d_model": 32,
    "n_heads": 2,
    "max_length": 32,
    "init_std": 0.4,
}
PAIRS = [("one", "eins"), ("twenty-one", "einundzwanzig"), ("a", "b"), ("seven hundred", "x")]


def make(**more):
    tokenizer = Tokenizer.train([], lightning_nlp.TokenizerConfig(kind="byte"))
    torch.manual_seed(0)
    start = more.pop("decoder_start_id", 1)
    more = {"generation": lightning_nlp.GenerationConfig(max_new_tokens=12), **more}
    backbone = lightning_nlp.TransformerConfig(**SHAPE, vocab_size=tokenizer.vocab_size, decoder_start_id=start)
    module = lightning_nlp.SequenceToSequence(backbone, **more)
    module.configure_model()
    module.head.tokenizer = tokenizer
    return module.eval()


def batch_of(module, pairs=PAIRS):
    encode, rows = module.head.tokenizer.encode, []
    for place, (source, target) in enumerate(pairs):
        example = sequence_to_sequence(encode(source), encode(target), f"p{place}", 30, 30, 1, 2)
        example.place, example.text, example.reference = place, source, target
        rows.append(single(example))
    return with_texts(collate_pairs(rows, 0), rows)


def test_loss_and_accuracy_are_those_of_each_pair_alone():
    module = make()
    head, backbone = module.head, module.backbone
    losses, right = [], 0
    for source, target in PAIRS:
        read = torch.tensor([[*head.tokenizer.encode(source), 2]])
        written = [1, *head.tokenizer.encode(target), 2]
        hidden = backbone(torch.tensor([written[:-1]]), source_tokens=read)[0]
        scores = (hidden @ backbone.embedding_weight.T).double()
        for place, label in enumerate(written[1:]):
            losses.append(float((scores[place].logsumexp(0) - scores[place, label]).detach()))
            right += int(scores[place].argmax()) == label
    batch = batch_of(module)
    total, count = head(backbone, batch)["loss"]
    assert (float(total), int(count)) == (pytest.approx(sum(losses), rel=1e-5), len(losses))
    head.update(backbone, batch)
    mean = sum(losses) / len(losses)
    expected = {"loss": mean, "perplexity": math.exp(mean), "token_accuracy": right / len(losses)}
    assert head.compute() == pytest.approx(expected, rel=1e-5)


def test_answers_in_a_batch_are_those_of_each_source_alone():
    module = make()
    head, backbone = module.head, module.backbone
    batch = batch_of(module)
    together = [record["prediction"] for record in head.predict(backbone, batch)]
    alone = [head.write(backbone, [head.encode_source(source)], head.generation)[0] for source, _ in PAIRS]
    assert together == alone and len(set(together)) > 1
    records = list(head.predict(backbone, {**batch, "references": ["eins", None, "b", "x"], "cut": [0, 3, 0, 0]}))
    assert [record["source"] for record in records] == [source for source, _ in PAIRS]
    assert [record.get("target") for record in records] == ["eins", None, "b", "x"]
    assert [record.get("tokens_cut") for record in records] == [None, 3, None, None]
    assert list(head.predict(backbone, {**batch, "example_ids": [[]] * 4})) == []


def test_exact_match_is_of_the_first_rows_of_the_split():
    """References are set to what the model writes, but for one: of rows 0 to 2, the third is wrong."""
    module = make(
        decode_examples=3, generation=lightning_nlp.GenerationConfig(max_new_tokens=4, temperature=1.0, seed=0)
    )
    head, backbone = module.head, module.backbone
    sources = [source for source, _ in PAIRS]
    greedy = lightning_nlp.GenerationConfig(max_new_tokens=4)
    said = [head.write(backbone, [head.encode_source(text)], greedy)[0] for text in sources]
    said[2] += "!"
    batch = batch_of(module, list(zip(sources, said, strict=True)))
    batch["labels"] = torch.full((4, 32), -100)
    for row, text in enumerate(said):
        ids = [*head.tokenizer.encode(text), 2]
        batch["labels"][row, : len(ids)] = torch.tensor(ids)
    batch |= {
        name: torch.nn.functional.pad(batch[name], (0, 32 - batch[name].shape[1]))
        for name in ("tokens", "positions", "segments")
    }
    for rows in ([3, 1], [0, 2]):  # in any order, over any batches
        head.update(
            backbone,
            {
                name: value[rows] if isinstance(value, torch.Tensor) else [value[row] for row in rows]
                for name, value in batch.items()
                if name != "padding"
            },
        )
    assert head.compute()["exact_match"] == pytest.approx(2 / 3)
    assert module.monitors() == ["val/loss", "val/perplexity", "val/token_accuracy", "val/exact_match"]
    head.reset()
    assert "exact_match" not in head.compute()  # nothing was decoded: no number rather than 0
    shown = head.samples(backbone)
    assert list(shown) == ["sample_0", "sample_1", "sample_2", "sample_3"]
    assert shown["sample_0"].split("\n")[0] == "    source     one"
    assert shown["sample_2"].endswith(f"\n    target     {said[2]}")
    assert "val/exact_match" not in make().monitors()


def test_a_module_is_built_again_from_its_own_values():
    module = make(decode_examples=2)
    assert module.plain_hyperparameters()["backbone"]["decoder_start_id"] == 1
    again = lightning_nlp.SequenceToSequence(**module.plain_hyperparameters())
    assert again.plain_hyperparameters() == module.plain_hyperparameters()


def test_mistakes():
    module = make(decoder_start_id=None)
    with pytest.raises(ConfigError, match=r"backbone.decoder_start_id is not set"):
        module.head.write(module.backbone, [[5, 2]], module.head.generation)
    with pytest.raises(ConfigError, match=r"backbone.decoder_start_id is 1, the data starts targets with 0"):
        make().resolve({"decoder_start_id": 0})
    with pytest.raises(ConfigError, match=r"the source is empty"):
        module.head.encode_source("")
    with pytest.raises(ConfigError, match=r"model.decode_examples must be 0 or more"):
        make(decode_examples=-1)
    module.resolve({"decoder_start_id": 7})
    assert module.plain_hyperparameters()["backbone"]["decoder_start_id"] == 7
