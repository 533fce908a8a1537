"""Beam search over imported encoder-decoders against ``generate`` of transformers."""

from __future__ import annotations

import pytest
import torch

from benchmarks import tiny_models
from lightning_nlp.decoding.config import GenerationConfig
from lightning_nlp.decoding.generate import generate

PAIRS = [name for name, (kind, _) in tiny_models.PEERS.items() if kind.endswith(("Generation", "MTModel"))]
BEAMS, NEW, EOS = 3, 12, 9


@pytest.mark.parametrize("name", PAIRS)
@torch.no_grad()
def test_beams(pair_of, name):
    """Sources of different lengths in one batch; some texts end, others are cut."""
    pair = pair_of(name, lively=True)
    sources = [tiny_models.draw(1, length, seed=length)[0].tolist() for length in (9, 4, 6, 7)]
    longest = max(map(len, sources))
    tokens = torch.tensor([source + [pair.pad] * (longest - len(source)) for source in sources])
    mask = torch.tensor([[1] * len(source) + [0] * (longest - len(source)) for source in sources])
    backbone, output = pair.module.backbone, pair.module.head.output
    found = generate(
        backbone,
        lambda hidden: output(hidden, backbone.embedding_weight),
        [[pair.module.config.decoder_start_id]] * len(sources),
        GenerationConfig(max_new_tokens=NEW, beams=BEAMS, n_best=BEAMS),
        eos_id=EOS,
        pad_id=pair.pad,
        memory=backbone.encode(tokens, mask),
        memory_segments=mask,
    )
    wanted = pair.peer.generate(
        tokens, attention_mask=mask, max_new_tokens=NEW, num_beams=BEAMS, eos_token_id=EOS, pad_token_id=pair.pad
    )
    rows = [row[: row.index(EOS)] if EOS in row else row for row in wanted[:, 1:].tolist()]
    assert len({tuple(row) for row in rows}) > 1
    assert found == rows
