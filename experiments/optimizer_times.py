"""CPU-seconds of a step with every optimizer beside fused AdamW's: one thread, alternated.

python -m experiments.optimizer_times [--size nano] [--rounds 25] [--steps 2]

Defaults are quickstart.yaml's model and batch. A step is forward, backward and update; ratios are medians over rounds
of whole steps, and the update's share is of its own step.
"""

from __future__ import annotations

import argparse
import statistics
import time
from functools import partial

import torch
from torch import nn

from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.init import init_weights
from lightning_nlp.backbone.output import TokenOutput
from lightning_nlp.backbone.transformer import Transformer
from lightning_nlp.optim.matrices import block_matrices
from lightning_nlp.optim.optimizers import OptimizerConfig, build_optimizer

MOMENTUM = {"sgd": 0.9}


class Contestant:
    """A model of its own with one optimizer."""

    def __init__(self, name: str, config: TransformerConfig, rows: torch.Tensor) -> None:
        torch.manual_seed(0)
        self.model = nn.ModuleDict({"backbone": Transformer(config), "output": TokenOutput(config)})
        init_weights(self.model, config)
        settings = OptimizerConfig(name, lr=1e-4, momentum=MOMENTUM.get(name))
        self.optimizer = build_optimizer(self.model, settings, matrices=partial(block_matrices, config=config))
        self.rows = rows

    def steps(self, count: int) -> tuple[float, float]:
        """CPU-seconds of ``count`` steps, and of their updates alone."""
        begun, updating = time.process_time(), 0.0
        for _ in range(count):
            hidden = self.model["backbone"](self.rows[:, :-1])
            total, number = self.model["output"].loss(  # type: ignore[operator]
                hidden.flatten(0, 1), self.model["backbone"].embedding_weight, self.rows[:, 1:].flatten()
            )
            (total / number).backward()
            before = time.process_time()
            self.optimizer.step()
            updating += time.process_time() - before
            self.optimizer.zero_grad()
        return time.process_time() - begun, updating

    def state_bytes(self) -> int:
        """Of the optimizer's tensors."""
        found = (value for state in self.optimizer.state.values() for value in state.values())
        return sum(value.numel() * value.element_size() for value in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="nano")
    parser.add_argument("--vocab_size", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--steps", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = TransformerConfig(size=options.size, vocab_size=options.vocab_size, max_length=options.length)
    rows = torch.randint(options.vocab_size, (options.batch, options.length + 1))
    contestants = {name: Contestant(name, config, rows) for name in ("adamw", "sgd", "lion", "adafactor", "muon")}
    for contestant in contestants.values():
        contestant.steps(2)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for _ in range(options.rounds):
        for name, contestant in contestants.items():
            times[name].append(contestant.steps(options.steps))
    parameters = config.num_params()
    print(f"{options.size}: {parameters:,} parameters, {options.batch} x {options.length} tokens a step")
    print("| optimizer | step, beside AdamW's | update, ms | update's share of the step | state, bytes a parameter |")
    print("|---|---|---|---|---|")
    for name, found in times.items():
        ratio = statistics.median(mine[0] / base[0] for mine, base in zip(found, times["adamw"], strict=True))
        update = statistics.median(mine[1] / options.steps for mine in found)
        share = statistics.median(mine[1] / mine[0] for mine in found)
        state = contestants[name].state_bytes() / parameters
        print(f"| {name} | {ratio:.2f} | {1000 * update:.1f} | {100 * share:.1f} % | {state:.2f} |")


if __name__ == "__main__":
    main()
