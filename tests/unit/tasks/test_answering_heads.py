"""Answers in evaluation: which rows are decoded, from what question, against what reference; heads by arrangement."""

from __future__ import annotations

import pytest
import torch

import lightning_nlp
from lightning_nlp import registry
from lightning_nlp.data.tokenizers.tokenizer import Tokenizer
from lightning_nlp.errors import ConfigError
from lightning_nlp.tasks.answers import decoding_signature, last_answer
from lightning_nlp.tasks.prompted import PromptedHead
from lightning_nlp.tasks.sequence_to_sequence import SequenceToSequenceHead

SHAPE = {"n_layers": 1, "d_model": 32, "n_heads": 2, "max_length": 64, "init_std": 0.4}
NAMES = ("SequenceToSequence", "SpanDenoising", "Translation", "Summarization", "Dialogue")
N = -100


def make(name="SequenceToSequence", arrangement="decoder", **more):
    tokenizer = Tokenizer.train([], lightning_nlp.TokenizerConfig(kind="byte"))
    torch.manual_seed(0)
    shape = {**SHAPE, "arrangement": arrangement, "vocab_size": tokenizer.vocab_size}
    start = {"decoder_start_id": 1} if arrangement == "encoder_decoder" else {}
    backbone = lightning_nlp.TransformerConfig(**shape, **start)
    more = {"generation": lightning_nlp.GenerationConfig(max_new_tokens=8), **more}
    module = registry.load(registry.TASKS, name)(backbone, **more)
    module.configure_model()
    module.head.tokenizer = tokenizer
    return module.eval()


def batch_of(module, pairs):
    """Prompts ``[bos] source [eos]`` and their answers, a pair a row."""
    known, rows = module.head.tokenizer, []
    for source, target in pairs:
        ids = [known.bos_id, *known.encode(source), known.eos_id, *known.encode(target), known.eos_id]
        rows.append((ids[:-1], [N] * (len(known.encode(source)) + 1) + ids[len(known.encode(source)) + 2 :]))
    length = max(len(tokens) for tokens, _ in rows)

    def field(values, fill):
        return torch.tensor([[*row, *[fill] * (length - len(row))] for row in values])

    return {
        "tokens": field([tokens for tokens, _ in rows], 0),
        "labels": field([labels for _, labels in rows], N),
        "segments": field([[1] * len(tokens) for tokens, _ in rows], 0),
        "positions": field([range(len(tokens)) for tokens, _ in rows], 0),
        "places": torch.arange(len(rows)),
        "example_ids": [[f"r{number}"] for number in range(len(rows))],
        "texts": [source for source, _ in pairs],
        "references": [target for _, target in pairs],
        "cut": [0] * len(rows),
    }


def test_the_last_run_of_labels_is_the_answer():
    assert last_answer(torch.tensor([N, N, 5, 6, N, 7, 8, N])) == (5, [7, 8])
    assert last_answer(torch.tensor([5, 6])) == (0, [5, 6])
    assert last_answer(torch.tensor([N, N])) == (2, [])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("arrangement", ["encoder_decoder", "decoder"])
def test_the_arrangement_chooses_the_head(name, arrangement):
    module = make(name, arrangement)
    kind = PromptedHead if arrangement == "decoder" else SequenceToSequenceHead
    assert type(module.head) is kind and list(module.heads) == (["lm"] if arrangement == "decoder" else ["seq2seq"])
    again = type(module)(**module.plain_hyperparameters())
    assert again.plain_hyperparameters() == module.plain_hyperparameters()
    assert module.monitors()[:3] == ["val/loss", "val/perplexity", "val/token_accuracy"]


def test_an_arrangement_that_comes_with_weights_changes_the_head():
    module = lightning_nlp.SequenceToSequence(lightning_nlp.TransformerConfig(), metrics=[], decode_examples=3)
    assert "lm" in module.heads
    module.config = module.config.replace(arrangement="encoder_decoder")
    module.choose_heads()
    assert "seq2seq" in module.heads and module.head.settings[2:6] == ([], None, "", 3)


def test_a_decoder_answers_from_the_prompt_alone():
    module = make()
    head, backbone = module.head, module.backbone
    batch = batch_of(module, [("one", "eins"), ("twenty", "x")])
    for row, source in enumerate(("one", "twenty")):
        known = head.tokenizer
        assert head.question(batch, row) == [known.bos_id, *known.encode(source), known.eos_id]
    prompts = [head.question(batch, row) for row in (0, 1)]
    asked = {**batch, "labels": torch.full_like(batch["labels"], N)}
    asked["segments"] = torch.tensor(
        [[1] * len(prompt) + [0] * (batch["tokens"].shape[1] - len(prompt)) for prompt in prompts]
    )
    records = list(head.predict(backbone, asked))
    said = [head.write(backbone, [prompt], head.generation)[0] for prompt in prompts]
    assert [record["prediction"] for record in records] == said and len(set(said)) == 2
    assert [(record["source"], record["target"]) for record in records] == [("one", "eins"), ("twenty", "x")]


@pytest.mark.parametrize("thorough", [False, True])
def test_references_set_to_what_is_written_are_matched(thorough):
    """Of three rows the third is wrong; training decodes the first two rows, commands all."""
    sampled = lightning_nlp.GenerationConfig(max_new_tokens=4, beams=2)
    module = make(decode_examples=2, generation=sampled)
    head, backbone = module.head, module.backbone
    sources = ["one", "two", "three"]
    head.thorough = thorough
    how = head.evaluated_generation
    assert how.beams == (2 if thorough else 1)
    batch = batch_of(module, [(source, "a") for source in sources])
    batch["references"] = [head.write(backbone, [head.question(batch, row)], how)[0] for row in range(3)]
    batch["references"][2] += "!"
    head.update(backbone, batch)
    head.update(backbone, batch)  # padding of a distributed sampler: ids count once
    assert head.compute()["exact_match"] == pytest.approx(2 / 3 if thorough else 1.0)
    assert ("beam:2" if thorough else "greedy") in head.signatures()["exact_match"]
    assert head.signatures()["exact_match"].endswith("rows:all" if thorough else "rows:first 2")
    assert "val/exact_match" in module.monitors()
    head.reset()
    head.thorough = False
    assert "exact_match" not in head.compute()
    assert list(head.samples(backbone)) == ["sample_0", "sample_1", "sample_2"]


def test_data_that_does_not_fit_is_named():
    with pytest.raises(ConfigError, match=r"a decoder alone answers prompts: give PrefixPairsData or DialogueData"):
        make().head.resolve({"decoder_start_id": 1, "prompt": {"before": [5]}})
    with pytest.raises(ConfigError, match=r"a decoder alone answers prompts"):
        make().head.resolve({"vocab_size": 5})
    with pytest.raises(ConfigError, match=r"an encoder_decoder reads sources: give SequenceToSequenceData"):
        make(arrangement="encoder_decoder").head.resolve({"prompt": {"before": [5]}})
    with pytest.raises(ConfigError, match=r"unknown metric 'blue'; did you mean 'bleu'\?"):
        make(metrics=["blue"])


def test_signatures_of_decoding():
    config = lightning_nlp.GenerationConfig
    assert decoding_signature(config(max_new_tokens=9)) == "greedy|max_new_tokens:9"
    beams = config(max_new_tokens=9, beams=4, length_norm="gnmt", length_penalty=0.6, no_repeat_ngram_size=3)
    assert decoding_signature(beams) == "beam:4|norm:gnmt^0.6|no_repeat_ngram_size:3|max_new_tokens:9"
    sampled = config(max_new_tokens=9, temperature=0.5, top_k=4, seed=1)
    assert decoding_signature(sampled) == "sampled|temperature:0.5|top_k:4|seed:1|max_new_tokens:9"
