"""CPU-seconds of generation beside transformers' ``generate``, one thread each, in turns.

python -m benchmarks.decode [--json FILE] [--quick]

Greedy rows: GPT-2 with 6 layers, width 384 and 50257 tokens, random weights made by transformers and imported, prompts
of 32 tokens, 128 new ones, no end token. In float32 all tokens must agree (the row says so otherwise); in bfloat16
near-ties of random weights may fall either way, after which texts differ. Beam row: an encoder-decoder of 4 + 4 layers,
width 256 and 32000 tokens beside Marian's, sources of 32 tokens, 64 new ones; weights are random on both sides.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

SEED = 5
Generation = Callable[[], list[list[int]]]


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    row: str
    batch: int
    dtype: str
    beams: int
    new: int
    floor: float
    aim: float
    prompt: int = 32


CASES = [
    Case("greedy fp32, batch 1", 1, "float32", 1, 128, 1.1, 1.4),
    Case("greedy fp32, batch 16", 16, "float32", 1, 128, 1.5, 2.2),
    Case("greedy bf16, batch 1", 1, "bfloat16", 1, 128, 1.1, 1.4),
    Case("greedy bf16, batch 16", 16, "bfloat16", 1, 128, 1.5, 2.2),
    Case("beam 4 fp32, encoder-decoder, batch 8", 8, "float32", 4, 64, 1.3, 2.0),
]


def inputs(case: Case, vocabulary: int) -> list[list[int]]:
    """Random token ids; small ones are left to special tokens."""
    numbers = random.Random(SEED)
    return [[numbers.randrange(10, vocabulary) for _ in range(case.prompt)] for _ in range(case.batch)]


def make_models(folder: Path) -> None:
    """Write the GPT-2 that both sides read."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.manual_seed(SEED)
    config = transformers.GPT2Config(n_layer=6, n_embd=384, n_head=6, initializer_range=0.1)
    transformers.GPT2LMHeadModel(config).save_pretrained(folder)


def theirs(case: Case, folder: Path) -> Generation:
    """``generate`` of transformers; no text ends early."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    dtype = getattr(torch, case.dtype)
    if case.beams > 1:
        torch.manual_seed(SEED)
        config = transformers.MarianConfig(
            vocab_size=32000, d_model=256, encoder_layers=4, decoder_layers=4, encoder_attention_heads=4,
            decoder_attention_heads=4, encoder_ffn_dim=1024, decoder_ffn_dim=1024, pad_token_id=0, eos_token_id=1,
            bos_token_id=2, decoder_start_token_id=0, forced_eos_token_id=None, num_beams=1, max_length=128,
        )  # fmt: skip
        model = transformers.MarianMTModel(config)
    else:
        model = transformers.GPT2LMHeadModel.from_pretrained(folder)
    model = model.to(dtype).eval()
    tokens = torch.tensor(inputs(case, model.config.vocab_size))
    start = 1 if case.beams > 1 else case.prompt
    model.generation_config.eos_token_id = None
    settings = {"max_new_tokens": case.new, "num_beams": case.beams, "do_sample": False}
    mask = torch.ones_like(tokens)

    def run() -> list[list[int]]:
        found = model.generate(tokens, attention_mask=mask, pad_token_id=0, **settings)
        return [row[start:] for row in found.tolist()]

    return run


def ours(case: Case, folder: Path) -> Generation:
    """The same with this package."""
    import torch

    from lightning_nlp.backbone.config import TransformerConfig
    from lightning_nlp.backbone.init import init_weights
    from lightning_nlp.backbone.transformer import Transformer
    from lightning_nlp.decoding.config import GenerationConfig
    from lightning_nlp.decoding.generate import generate

    dtype = getattr(torch, case.dtype)
    settings = GenerationConfig(max_new_tokens=case.new, beams=case.beams)
    if case.beams > 1:
        torch.manual_seed(SEED)
        config = TransformerConfig(
            arrangement="encoder_decoder", n_layers=4, d_model=256, n_heads=4, d_ff=1024, vocab_size=32000,
            positions="sinusoidal", norm_placement="post", bias=True, feedforward="silu", max_length=128,
        )  # fmt: skip
        backbone = Transformer(config)
        init_weights(backbone, config)
        backbone = backbone.to(dtype).eval()
        tokens = torch.tensor(inputs(case, 32000))

        def run() -> list[list[int]]:
            with torch.inference_mode():
                return generate(
                    backbone,
                    lambda hidden: torch.nn.functional.linear(hidden, backbone.embedding_weight),
                    [[0]] * case.batch,
                    settings,
                    eos_id=None,
                    pad_id=0,
                    memory=backbone.encode(tokens),
                )

        return run

    from lightning_nlp.interop.convert import import_model

    task = import_model(folder).to(dtype)
    prompts = inputs(case, 50257)

    def continued() -> list[list[int]]:
        return generate(
            task.backbone,
            lambda hidden: task.head.scores(task.backbone, hidden),
            prompts,
            settings,
            eos_id=None,
            pad_id=0,
        )

    return continued


def work(side: str, case: Case, folder: Path) -> None:
    """One process: generate once for every line read, and answer with CPU-seconds and tokens."""
    import torch

    torch.set_num_threads(1)
    run = (ours if side == "ours" else theirs)(case, folder)
    run()
    for _ in sys.stdin:
        start = time.process_time()
        tokens = run()
        print(json.dumps({"seconds": time.process_time() - start, "tokens": tokens}), flush=True)


class Worker:
    """A process that measures one side."""

    def __init__(self, side: str, case: Case, folder: Path) -> None:
        command = [sys.executable, "-m", "benchmarks.decode", "--work", side, json.dumps(asdict(case)), str(folder)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )

    def measure(self) -> dict[str, Any]:
        """CPU-seconds and tokens of one generation."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a measuring process died")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """Let it end."""
        self.process.communicate("")


def interval(ratios: list[float], draws: int = 2000) -> tuple[float, float]:
    """95 % bootstrap interval of the median."""
    numbers = random.Random(SEED)
    medians = sorted(median(numbers.choices(ratios, k=len(ratios))) for _ in range(draws))
    return medians[int(0.025 * draws)], medians[int(0.975 * draws)]


def compare(case: Case, folder: Path, rounds: int) -> dict[str, Any]:
    """One row: both sides in turns."""
    workers = [Worker(side, case, folder) for side in ("ours", "theirs")]
    ratios, seconds = [], []
    for _ in range(rounds):
        mine, peer = (worker.measure() for worker in workers)
        ratios.append(peer["seconds"] / mine["seconds"])
        seconds.append((mine["seconds"], peer["seconds"]))
    for worker in workers:
        worker.close()
    pairs = [
        (a, b)
        for x, y in zip(mine["tokens"], peer["tokens"], strict=True)
        for a, b in zip(x, y, strict=True)
    ]  # fmt: skip
    same = sum(a == b for a, b in pairs) / len(pairs)
    agreement = "weights differ" if case.beams > 1 else f"{100 * same:.4g} % of tokens equal"
    if case.dtype == "float32" and case.beams == 1 and same < 1:
        agreement += ": NOT IDENTICAL"
    low, high = interval(ratios)
    own, peer_seconds = (median(values) for values in zip(*seconds, strict=True))
    return {
        "row": case.row, "peer": "transformers generate", "ratio": median(ratios), "low": low, "high": high,
        "floor": case.floor, "aim": case.aim, "unit": "x",
        "note": f"{own:.3f} and {peer_seconds:.3f} CPU-s, 1 thread, {rounds} rounds; {agreement}",
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows there")
    parser.add_argument("--quick", action="store_true", help="3 rounds instead of 9")
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        side, case, folder = options.work
        work(side, Case(**json.loads(case)), Path(folder))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        make_models(Path(folder) / "gpt2")
        for case in CASES:
            if options.only in case.row:
                rows.append(compare(case, Path(folder) / "gpt2", 3 if options.quick else 9))
                row = rows[-1]
                bounds = f"[{row['low']:.2f}, {row['high']:.2f}]"
                print(f"{row['row']:<40} {row['ratio']:5.2f} x {bounds}  {row['note']}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
