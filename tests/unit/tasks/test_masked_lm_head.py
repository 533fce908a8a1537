"""The masked-LM head: scores of hidden tokens against float64 arithmetic, documents that do not see each other, fills."""

from __future__ import annotations

import math

import pytest
import torch

import lightning_nlp
from lightning_nlp.data.tokenizers.tokenizer import Tokenizer
from lightning_nlp.errors import ConfigError

N = -100
SHAPE = {"arrangement": "encoder", "n_layers": 2, "d_model": 32, "n_heads": 2, "max_length": 32, "init_std": 0.5}


def make(**more):
    settings = lightning_nlp.TokenizerConfig(vocab_size=300, mask_token=True)
    tokenizer = Tokenizer.train(["the cat sat on the mat"] * 3, settings)
    torch.manual_seed(0)
    backbone = lightning_nlp.TransformerConfig(**SHAPE, vocab_size=tokenizer.vocab_size)
    module = lightning_nlp.MaskedLM(backbone, **more)
    module.configure_model()
    module.head.tokenizer = tokenizer
    return module.eval()


def batch_of(module, segments, labels):
    size = torch.tensor(segments).shape
    tokens = torch.randint(5, module.config.vocab_size, size, generator=torch.Generator().manual_seed(1))
    positions = torch.tensor([[row[:place].count(number) for place, number in enumerate(row)] for row in segments])
    return {
        "tokens": tokens,
        "segments": torch.tensor(segments),
        "labels": torch.tensor(labels),
        "positions": positions,
    }


def test_loss_and_metrics_are_those_of_the_labels_alone():
    module = make()
    head, backbone = module.head, module.backbone
    batch = batch_of(module, [[1, 1, 1, 2, 2, 0], [1, 1, 1, 1, 1, 1]], [[N, 9, N, 20, N, N], [N, N, 30, N, N, 7]])
    scores = backbone(batch["tokens"], positions=batch["positions"], segments=batch["segments"])
    scores = (scores @ backbone.embedding_weight.T).double()
    places = [(0, 1, 9), (0, 3, 20), (1, 2, 30), (1, 5, 7)]
    batch["labels"][0, 1] = int(scores[0, 1].argmax())  # one of four right
    places[0] = (0, 1, int(scores[0, 1].argmax()))
    losses = [scores[row, place].logsumexp(0) - scores[row, place, label] for row, place, label in places]
    total, count = head(backbone, batch)["loss"]
    assert (float(total), int(count)) == (pytest.approx(float(sum(losses)), rel=1e-5), 4)
    for _ in range(2):
        head.update(backbone, batch)
    mean = float(sum(losses)) / 4
    assert head.compute() == pytest.approx(
        {"loss": mean, "pseudo_perplexity": math.exp(mean), "accuracy": 0.25}, rel=1e-5
    )
    head.reset()
    assert head.compute()["accuracy"] == 0.0
    assert set(head.compute()) == set(head.metric_names)


def test_documents_of_a_row_do_not_see_each_other():
    module = make()
    labels = [[N, 9, 8, 20, N, 6]]
    batch = batch_of(module, [[1, 1, 1, 2, 2, 2]], labels)
    alone = {name: torch.cat((value[:, :3], value[:, 3:])) for name, value in batch.items()}
    torch.testing.assert_close(module.head(module.backbone, batch)["loss"], module.head(module.backbone, alone)["loss"])
    changed = {**batch, "tokens": batch["tokens"].clone(), "labels": torch.tensor([[N, 9, 8, N, N, N]])}
    before = module.head(module.backbone, changed)["loss"][0]
    changed["tokens"][0, 3:] += 1
    assert torch.equal(module.head(module.backbone, changed)["loss"][0], before)


def test_a_batch_without_labels_is_no_error():
    module = make()
    batch = batch_of(module, [[1, 1, 0]], [[N, N, N]])
    total, count = module.head(module.backbone, batch)["loss"]
    total.backward()
    assert (float(total), float(count)) == (0.0, 0.0)
    module.head.update(module.backbone, batch)
    assert module.head.compute()["loss"] == 0.0


def test_fills_are_the_likeliest_tokens():
    module = make(top_k=3, sample_texts=["the <mask> sat on <mask>", "no mask"])
    head, backbone, tokenizer = module.head, module.backbone, module.head.tokenizer
    ids = [tokenizer.bos_id, *tokenizer.encode_masked("the <mask> sat"), tokenizer.eos_id]
    batch = {
        "tokens": torch.tensor([[*ids, 0, 0]]),
        "segments": torch.tensor([[1] * len(ids) + [0, 0]]),
        "positions": torch.tensor([[*range(len(ids)), 0, 0]]),
        "labels": torch.full((1, len(ids) + 2), N),
        "example_ids": [["a"]],
        "texts": ["the <mask> sat"],
        "cut": [7],
    }
    (record,) = head.predict(backbone, batch)
    place = ids.index(tokenizer.mask_id)
    probabilities = head.scores(backbone, backbone(torch.tensor([ids]))[0, place]).softmax(-1)
    best = probabilities.topk(3)
    guesses = record["masks"][0]["guesses"]
    assert [guess["token"] for guess in guesses] == [tokenizer.decode([token]) for token in best.indices.tolist()]
    assert [guess["score"] for guess in guesses] == pytest.approx(best.values.tolist(), rel=1e-4)
    filled = [*ids[:place], int(best.indices[0]), *ids[place + 1 :]]
    assert (record["id"], record["text"], record["tokens_cut"]) == ("a", "the <mask> sat", 7)
    assert record["prediction"] == tokenizer.decode(filled)
    batch["labels"][0, place] = 50  # a split of one's own: what stood there is known
    assert next(iter(head.predict(backbone, batch)))["masks"][0]["target"] == tokenizer.decode([50])
    samples = head.samples(backbone)
    assert samples["sample_0"].startswith("    the <mask> sat on <mask>\n    the")
    assert samples["sample_1"] == "    no mask\n    no mask"


def test_a_module_is_built_again_from_its_own_values():
    module = make(top_k=2, sample_texts=["a <mask>"])
    again = lightning_nlp.MaskedLM(**module.plain_hyperparameters())
    assert again.plain_hyperparameters() == module.plain_hyperparameters()
    with pytest.raises(ConfigError, match=r"model.top_k must be at least 1, not 0"):
        lightning_nlp.MaskedLM(module.config, top_k=0)
    with pytest.raises(ConfigError, match=r"backbone.arrangement is decoder, this task needs encoder"):
        lightning_nlp.MaskedLM(lightning_nlp.TransformerConfig(vocab_size=9)).configure_model()
