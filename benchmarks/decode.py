"""Generation on one CPU core beside ``generate`` of transformers, with the same random weights.

python -m benchmarks.decode [--json FILE] [--quick]

Greedy: GPT-2 with 6 layers, width 384 and 50257 tokens, prompts of 32 tokens, 128 new ones. Beam search: Marian with
4 + 4 layers, width 256 and 32000 tokens, sources of 32 tokens, 64 new ones; the source is encoded within the measured
step. No text ends early. Notes say how many of all tokens agree: in float32 every one must; in bfloat16 near-ties of
random weights fall either way, after which texts differ.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.harness import Row, alternate, compare, report

CASES: list[dict[str, Any]] = [
    {"model": "gpt2", "batch": 1, "dtype": "float32", "beams": 1, "wanted": (1.1, 1.4)},
    {"model": "gpt2", "batch": 16, "dtype": "float32", "beams": 1, "wanted": (1.5, 2.2)},
    {"model": "gpt2", "batch": 1, "dtype": "bfloat16", "beams": 1, "wanted": (1.1, 1.4)},
    {"model": "gpt2", "batch": 16, "dtype": "bfloat16", "beams": 1, "wanted": (1.5, 2.2)},
    {"model": "marian", "batch": 8, "dtype": "float32", "beams": 4, "wanted": (1.3, 2.0)},
]
SIZES = {"gpt2": (6, 384, 50257, 32, 128), "marian": (4, 256, 32000, 32, 64)}
"""Layers, width, vocabulary, tokens of a prompt or source, new tokens."""
QUICK = (1, 32, 1200, 4, 6)

Generation = Callable[[], list[list[int]]]


def save(model: str, sizes: tuple[int, ...], folder: Path) -> None:
    """Write the model that both sides read."""
    import torch
    import transformers

    layers, width, vocabulary, prompt, new = sizes
    heads, length = max(width // 64, 1), prompt + new
    torch.manual_seed(5)
    if model == "gpt2":
        settings = {
            "n_layer": layers,
            "n_embd": width,
            "n_head": heads,
            "n_positions": length,
            "initializer_range": 0.1,
        }
        made = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(**settings, vocab_size=vocabulary, bos_token_id=None, eos_token_id=None)
        )
    else:
        stacks = {f"{side}_{what}": value for side in ("encoder", "decoder") for what, value in (
            ("layers", layers), ("attention_heads", heads), ("ffn_dim", 4 * width)
        )}  # fmt: skip
        config = transformers.MarianConfig(
            **stacks, vocab_size=vocabulary, d_model=width, max_position_embeddings=length, scale_embedding=True,
            activation_function="swish", init_std=0.1, pad_token_id=0, decoder_start_token_id=0, bos_token_id=None,
            eos_token_id=None, forced_eos_token_id=None,
        )  # fmt: skip
        made = transformers.MarianMTModel(config)
    made.save_pretrained(folder)


def inputs(spec: dict[str, Any]) -> list[list[int]]:
    """Random token ids but the first, which is padding."""
    numbers = random.Random(5)
    _, _, vocabulary, prompt, _ = spec["sizes"]
    return [[numbers.randrange(1, vocabulary) for _ in range(prompt)] for _ in range(spec["batch"])]


def theirs(spec: dict[str, Any]) -> Generation:
    """``generate`` of transformers."""
    import torch
    import transformers

    kind = {"gpt2": transformers.GPT2LMHeadModel, "marian": transformers.MarianMTModel}[spec["model"]]
    model = kind.from_pretrained(spec["folder"]).to(getattr(torch, spec["dtype"])).eval()
    tokens = torch.tensor(inputs(spec))
    mask = torch.ones_like(tokens)
    settings = {"max_new_tokens": spec["sizes"][-1], "num_beams": spec["beams"], "do_sample": False, "pad_token_id": 0}
    start = tokens.shape[1] if spec["model"] == "gpt2" else 1

    def run() -> list[list[int]]:
        found: list[list[int]] = model.generate(tokens, attention_mask=mask, **settings)[:, start:].tolist()
        return found

    return run


def ours(spec: dict[str, Any]) -> Generation:
    """The same here."""
    import torch

    from lightning_nlp.decoding.config import GenerationConfig
    from lightning_nlp.decoding.generate import generate
    from lightning_nlp.interop.convert import import_model

    task = import_model(spec["folder"]).to(getattr(torch, spec["dtype"]))
    backbone, head = task.backbone, task.head
    settings = GenerationConfig(max_new_tokens=spec["sizes"][-1], beams=spec["beams"])
    rows = inputs(spec)

    @torch.no_grad()
    def run() -> list[list[int]]:
        sourced = spec["model"] == "marian"
        prompts = [[task.config.decoder_start_id]] * len(rows) if sourced else rows
        source = {"memory": backbone.encode(torch.tensor(rows))} if sourced else {}
        return generate(
            backbone,
            lambda hidden: head.scores(backbone, hidden),
            prompts,
            settings,
            eos_id=None,
            pad_id=0,
            **source,
        )

    return run


def contestant(spec: dict[str, Any]) -> None:
    """Write down the tokens, then generate them again and again."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    run = {"ours": ours, "transformers": theirs}[spec["kind"]](spec)
    Path(spec["folder"], f"{spec['kind']}.json").write_text(json.dumps(run()))
    harness.repeat(run, warm_up=1)


def agreement(folder: Path) -> str:
    """How many of the tokens both sides wrote down are equal."""
    mine, peer = (json.loads((folder / f"{kind}.json").read_text()) for kind in ("ours", "transformers"))
    pairs = [pair for rows in zip(mine, peer, strict=True) for pair in zip(*rows, strict=True)]
    return f"{sum(a == b for a, b in pairs)} of {len(pairs)} tokens agree"


def main(arguments: list[str] | None = None) -> list[Row]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--rounds", type=int, default=harness.ROUNDS)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, three rounds: does it run?")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.contestant:
        contestant(json.loads(options.contestant))
    rounds = 3 if options.quick else options.rounds
    rows: list[Row] = []
    for case in CASES:
        sizes = QUICK if options.quick else SIZES[case["model"]]
        with tempfile.TemporaryDirectory() as folder:
            save(case["model"], sizes, Path(folder))
            spec = {**case, "sizes": sizes, "folder": folder}
            kinds = {kind: json.dumps({**spec, "kind": kind}) for kind in ("ours", "transformers")}
            seconds = alternate({k: ["-m", "benchmarks.decode", "--contestant", s] for k, s in kinds.items()}, rounds)
            way = "greedy" if case["beams"] == 1 else f"beam {case['beams']}"
            floor, aim = case["wanted"]
            label = f"{way} {case['model']} {sizes[0]}L/{sizes[1]}d B{case['batch']} {case['dtype']}"
            note = f"{sizes[-1]} new tokens; {agreement(Path(folder))}"
            rows += compare(seconds, "ours", "transformers", label, "generate", floor=floor, aim=aim, note=note)
    report(rows, options.json)
    return rows


if __name__ == "__main__":
    main()
