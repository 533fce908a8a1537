"""Models of transformers beside what we read of them, and beside what we write again: scores, gradients, tokens.

python -m benchmarks.parity [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from benchmarks import tiny_models
from lightning_nlp import registry
from lightning_nlp.decoding.config import GenerationConfig
from lightning_nlp.decoding.generate import generate
from lightning_nlp.interop.convert import export_model, import_model

NEW, BATCH, LENGTH = 24, 4, 20


def pair(name: str, folder: Path, lively: bool = False) -> tuple[Any, Any]:
    """A peer, and what we read of it."""
    peer = tiny_models.make(name, lively)
    peer.save_pretrained(folder)
    return peer, import_model(folder)


def inputs(peer: Any) -> tuple[Tensor, Tensor | None]:
    source = tiny_models.draw(BATCH, LENGTH - 3, seed=1) if tiny_models.sources(peer) else None
    return tiny_models.draw(BATCH, LENGTH), source


@torch.no_grad()
def score_error(peer: Any, module: Any) -> float:
    """Largest difference of two scores."""
    tokens, source = inputs(peer)
    return float((tiny_models.ours(module, tokens, source) - tiny_models.theirs(peer, tokens, source)).abs().max())


def gradient_error(peer: Any, module: Any) -> float:
    """Largest difference of two gradients, over the largest gradient of the same tensor where that is above 1.

    Of the mean score of random tokens, so that every parameter has one.
    """
    tokens, source = inputs(peer)
    picked = tiny_models.draw(BATCH, LENGTH, seed=2)[..., None]
    scored = tiny_models.gradients(
        module, lambda: tiny_models.ours(module, tokens, source).log_softmax(-1).gather(-1, picked).mean()
    )
    wanted = tiny_models.gradients(
        peer, lambda: tiny_models.theirs(peer, tokens, source).log_softmax(-1).gather(-1, picked).mean()
    )
    family = registry.load(registry.FAMILIES, peer.config.model_type)()
    wanted = family.tidy(wanted, {"tie_embeddings": module.config.tie_embeddings})
    worst = 0.0
    for weight in family.weights(module.config):
        if weight.theirs == ("final_logits_bias",):  # a buffer there, a parameter here
            continue
        theirs = weight.read(wanted)
        scale = max(1.0, float(theirs.abs().max()))
        worst = max(worst, float((scored[weight.ours] - theirs).abs().max()) / scale)
    return worst


@torch.no_grad()
def same_tokens(peer: Any, module: Any, beams: int) -> str:
    """``"96/96"``: new tokens of a batch that are those of ``generate``."""
    if module.config.arrangement == "encoder":
        return "-"
    tokens, source = inputs(peer)
    pad = peer.config.pad_token_id or 0
    more: dict[str, Any] = {}
    prompts = tokens[:, :6]
    if source is not None:
        more["memory"] = module.backbone.encode(source)
        prompts = torch.full((BATCH, 1), module.config.decoder_start_id)
    config = GenerationConfig(max_new_tokens=NEW, beams=beams)
    output, embedding = module.head.output, module.backbone.embedding_weight
    found = generate(
        module.backbone, lambda h: output(h, embedding), prompts.tolist(), config, eos_id=None, pad_id=pad, **more
    )
    given = prompts if source is None else source
    wanted = peer.generate(
        given, attention_mask=torch.ones_like(given), max_new_tokens=NEW, num_beams=beams, do_sample=False,
        eos_token_id=None, pad_token_id=pad,
    )[:, prompts.shape[1] :].tolist()  # fmt: skip
    equal = sum(a == b for ours, theirs in zip(found, wanted, strict=True) for a, b in zip(ours, theirs, strict=True))
    return f"{equal}/{BATCH * NEW}"


def again(peer: Any, module: Any, folder: Path) -> float:
    """:func:`score_error` of the peer and what it reads of our export."""
    export_model(module, folder, peer.config.model_type)
    second = type(peer).from_pretrained(folder).eval()
    tokens, source = inputs(peer)
    with torch.no_grad():
        return float(
            (tiny_models.theirs(second, tokens, source) - tiny_models.theirs(peer, tokens, source)).abs().max()
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    rows = []
    print(f"transformers {transformers.__version__}, torch {torch.__version__}, float32, CPU\n")
    columns = (
        "| model | largest error of a score | of a gradient | greedy tokens | beam-4 tokens | exported and read back |"
    )
    print(columns, "|-|-|-|-|-|-|", sep="\n")
    for name in tiny_models.PEERS:
        with tempfile.TemporaryDirectory() as root:
            peer, module = pair(name, Path(root) / "calm")
            scores, gradients = score_error(peer, module), gradient_error(peer, module)
            back = again(peer, module, Path(root) / "out")
            lively = pair(name, Path(root) / "lively", lively=True)
            greedy, beams = (same_tokens(*lively, number) for number in (1, 4))
        print(f"| {name} | {scores:.1e} | {gradients:.1e} | {greedy} | {beams} | {back:.1e} |", flush=True)
        note = f"gradients {gradients:.1e}, greedy {greedy}, beam 4 {beams}, exported {back:.1e}"
        common = {"peer": "transformers", "low": scores, "high": scores, "floor": 1e-5, "aim": 1e-5, "unit": "score"}
        rows.append({"row": f"parity {name}", "ratio": scores, **common, "note": note})
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
