"""Imported models against transformers: scores, losses, gradients, padding, the cache, and the way back."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from benchmarks import tiny_models
from lightning_nlp.backbone.loss import IGNORED
from lightning_nlp.interop.convert import export_model, import_model, registry

CLOSE = {"rtol": 0.0, "atol": 1e-5}
"""Single precision: scores are of size 1 to 4."""
UNREAD = {"bart": 2, "roberta": 2}
"""Rows of tables of positions that no token uses: they come back as zeros."""


def inputs(pair, rows=2, length=17):
    source = tiny_models.draw(rows, length - 4, seed=1) if tiny_models.sources(pair.peer) else None
    return tiny_models.draw(rows, length), source


def test_every_family_has_a_peer():
    assert {tiny_models.PEERS[name][0] for name in tiny_models.PEERS} == {
        registry.load(registry.FAMILIES, name).architecture for name in registry.FAMILIES
    }


@torch.no_grad()
def test_scores(pair):
    tokens, source = inputs(pair)
    wanted = tiny_models.theirs(pair.peer, tokens, source)
    assert wanted.std() > 0.3
    torch.testing.assert_close(tiny_models.ours(pair.module, tokens, source), wanted, **CLOSE)


def test_loss_and_gradients(pair):
    """Each gradient by the table of names, so that a weight in the wrong place shows twice."""
    tokens, source = inputs(pair)
    labels = tiny_models.draw(*tokens.shape, seed=2)
    labels[0, :5] = IGNORED
    causal = pair.module.config.arrangement == "decoder"
    given = {"source_tokens": source} if source is not None else {}

    def our_loss():
        hidden = pair.module.backbone(tokens, **given)
        if causal:  # transformers moves labels by one
            hidden = hidden[:, :-1]
        shifted = labels[:, 1:] if causal else labels
        embedding = pair.module.backbone.embedding_weight
        total, count = pair.module.head.output.loss(hidden.flatten(0, 1), embedding, shifted.flatten())
        return total / count

    def their_loss():
        more = {} if source is None else {"decoder_input_ids": tokens}
        return pair.peer(input_ids=tokens if source is None else source, labels=labels, **more).loss

    torch.testing.assert_close(our_loss(), their_loss(), rtol=1e-6, atol=1e-6)
    found, wanted = tiny_models.gradients(pair.module, our_loss), tiny_models.gradients(pair.peer, their_loss)
    family = registry.load(registry.FAMILIES, pair.family)()
    table = [weight for weight in family.weights(pair.module.config) if "final_logits_bias" not in weight.theirs]
    assert {weight.ours for weight in table} | {"heads.seq2seq.output.bias"} >= found.keys()
    for weight in table:
        gradient = weight.read(family.tidy({**wanted}, {"tie_embeddings": pair.module.config.tie_embeddings}))
        assert gradient.abs().max() > 0, weight.ours
        scale = max(1.0, float(gradient.abs().max()))
        torch.testing.assert_close(
            found[weight.ours] / scale, gradient / scale, **CLOSE, msg=lambda m, w=weight: f"{w.ours}: {m}"
        )


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_padded_rows_are_as_alone(pair, side):
    """Ours against ours and transformers alone, whatever stands in the padding; and transformers padded, if it can."""
    lengths = (11, 6, 9)
    rows = [tiny_models.draw(1, length, seed=length) for length in lengths]
    sources = [tiny_models.draw(1, length - 2, seed=7 + length) for length in lengths]

    def padded(parts):
        longest = max(part.shape[1] for part in parts)
        fill = [torch.full((1, longest - part.shape[1]), pair.pad) for part in parts]
        both = [((f, part) if side == "left" else (part, f)) for f, part in zip(fill, parts, strict=True)]
        mask = torch.cat(
            [torch.cat([torch.full_like(x, x is part) for x in row], 1) for row, part in zip(both, parts, strict=True)]
        )
        return torch.cat([torch.cat(row, 1) for row in both]), mask

    tokens, mask = padded(rows)
    given = {"segments": mask}
    source = None
    if tiny_models.sources(pair.peer):
        source, source_mask = padded(sources)
        given["source_segments"] = source_mask
    found = tiny_models.ours(pair.module, tokens, source, **given)
    other = tiny_models.ours(pair.module, torch.where(mask == 1, tokens, 3), source, **given)
    for row, alone in enumerate(rows):
        own_source = sources[row] if source is not None else None
        wanted = tiny_models.theirs(pair.peer, alone, own_source)[0]
        torch.testing.assert_close(found[row][mask[row] == 1], wanted, **CLOSE)
        torch.testing.assert_close(other[row][mask[row] == 1], wanted, **CLOSE)
    if source is None:
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        more = {} if pair.family == "roberta" else {"position_ids": positions}  # it counts by itself
        theirs = tiny_models.theirs(pair.peer, tokens, attention_mask=mask, **more)
    elif side == "right" or pair.family == "t5":  # the others count padding as positions
        theirs = tiny_models.theirs(pair.peer, tokens, source, attention_mask=source_mask, decoder_attention_mask=mask)
    else:
        return
    torch.testing.assert_close(found[mask == 1], theirs[mask == 1], **CLOSE)


@torch.no_grad()
def test_token_types(pair_of):
    pair = pair_of("bert")
    tokens, types = tiny_models.draw(2, 12), tiny_models.draw(2, 12, seed=3) % 2
    wanted = tiny_models.theirs(pair.peer, tokens, token_type_ids=types)
    torch.testing.assert_close(tiny_models.ours(pair.module, tokens, token_types=types), wanted, **CLOSE)


@torch.no_grad()
def test_token_by_token_with_a_cache(pair):
    """A prompt at once, then one token at a time, against transformers without any cache."""
    if pair.module.config.arrangement == "encoder":
        assert pair.module.backbone.decoder is None
        return
    tokens, source = inputs(pair, length=14)
    wanted = tiny_models.theirs(pair.peer, tokens, source)
    cache = pair.module.backbone.new_cache(len(tokens), tokens.shape[1])
    memory = {} if source is None else {"memory": pair.module.backbone.encode(source)}
    steps = [tokens[:, :6], *tokens[:, 6:].split(1, dim=1)]
    found = torch.cat([tiny_models.ours(pair.module, step, cache=cache, **memory) for step in steps], dim=1)
    torch.testing.assert_close(found, wanted, **CLOSE)


@torch.no_grad()
def test_there_and_back(pair, tmp_path):
    """Import, export, from_pretrained: the same tensors and the same scores."""
    export_model(pair.module, tmp_path / "out", pair.family)
    before, after = load_file(pair.folder / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        unread = UNREAD.get(pair.family, 0) if "position" in name else 0
        assert torch.equal(tensor[unread:], after[name][unread:]), name
        assert not after[name][:unread].any()
    peer, loading = type(pair.peer).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(loading.values()), loading
    tokens, source = inputs(pair)
    assert torch.equal(tiny_models.theirs(peer, tokens, source), tiny_models.theirs(pair.peer, tokens, source))
    again = import_model(tmp_path / "out")
    assert again.config == pair.module.config
