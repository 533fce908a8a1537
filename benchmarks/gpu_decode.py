"""Greedy decoding for ``benchmarks.gpu``: ours, ours replayed from CUDA graphs, and transformers' ``generate``.

All rows of a batch have prompts of one length and go on to the same length; weights are random, so that no text ends.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu_tools import Emit, reason, seconds_of
from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.init import init_weights
from lightning_nlp.backbone.transformer import Transformer
from lightning_nlp.decoding.config import GenerationConfig
from lightning_nlp.decoding.generate import generate

Generation = Callable[[], Any]


class Unavailable(Exception):
    """This machine cannot go that way."""


class Graphs:
    """Greedy steps as CUDA graphs, one for every length: nothing of Python, and one launch, a token.

    What a graph reads and writes stays where it was, so that they are good for this batch and these lengths alone.

    Args:
        prompts: ``[B, T]``.
        new: tokens to add.
    """

    def __init__(self, model: Transformer, prompts: Tensor, new: int) -> None:
        self.model, self.prompts, self.prompt = model, prompts, prompts.shape[1]
        self.cache = model.new_cache(len(prompts), self.prompt + new - 1)
        self.token = torch.zeros(len(prompts), 1, dtype=torch.long, device=prompts.device)
        self.output = torch.zeros(len(prompts), new, dtype=torch.long, device=prompts.device)
        self.graphs: list[torch.cuda.CUDAGraph] = []
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # libraries plan for every length, and make workspaces, outside of graphs
            self._first()
            for number in range(1, new):
                self._step(number)
        torch.cuda.current_stream().wait_stream(side)
        pool = torch.cuda.graph_pool_handle()
        for number in range(1, new):
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool):
                self._step(number)
            self.graphs.append(graph)

    def _write(self, hidden: Tensor, number: int) -> None:
        self.token.copy_(F.linear(hidden[:, -1:], self.model.embedding_weight).argmax(-1))
        self.output[:, number : number + 1] = self.token

    def _first(self) -> None:
        self.cache.length = 0
        self._write(self.model(self.prompts, cache=self.cache), 0)

    def _step(self, number: int) -> None:
        self.cache.length = self.prompt + number - 1
        self._write(self.model(self.token, cache=self.cache), number)

    def __call__(self) -> list[list[int]]:
        """The new tokens of every row."""
        self._first()
        for graph in self.graphs:
            graph.replay()
        found: list[list[int]] = self.output.tolist()
        return found


def theirs(config: TransformerConfig, prompts: Tensor, new: int, dtype: torch.dtype) -> Generation:
    """``generate`` of transformers, with a model of the same shape.

    Raises:
        ImportError: it is not installed.
    """
    import transformers

    transformers.logging.set_verbosity_error()
    settings = {"n_layer": config.n_layers, "n_embd": config.d_model, "n_head": config.n_heads}
    shape = transformers.GPT2Config(
        **settings, vocab_size=config.vocab_size, n_positions=config.max_length, bos_token_id=None, eos_token_id=None
    )
    model = transformers.GPT2LMHeadModel(shape).to(prompts.device, dtype).eval()
    options = {"attention_mask": torch.ones_like(prompts), "max_new_tokens": new, "do_sample": False, "pad_token_id": 0}
    return lambda: model.generate(prompts, **options)


@torch.no_grad()
def run(spec: dict[str, Any], device: str, emit: Emit) -> None:
    """Every way in turn; one that fails is a row that says why."""
    torch.manual_seed(0)
    batch, prompt, new = spec["batch"], spec["prompt"], spec["new"]
    config = TransformerConfig(
        n_layers=spec["layers"], d_model=spec["width"], n_heads=spec["heads"], vocab_size=spec["vocabulary"],
        max_length=max(1024, prompt + new), positions="learned",
    )  # fmt: skip
    with torch.device(device):
        model = Transformer(config)
    init_weights(model, config)
    model.to(torch.bfloat16).eval()
    prompts = torch.randint(spec["vocabulary"], (batch, prompt), generator=torch.Generator().manual_seed(0))
    rows, on_device = prompts.tolist(), prompts.to(device)
    settings = GenerationConfig(max_new_tokens=new)

    def eager() -> list[list[int]]:
        scores = lambda hidden: F.linear(hidden, model.embedding_weight)  # noqa: E731
        return generate(model, scores, rows, settings, eos_id=None, pad_id=0)

    def graphs() -> Generation:
        if device != "cuda":
            raise Unavailable("CUDA graphs need a CUDA device")
        return Graphs(model, on_device, new)

    label = f"{spec['row']} B{batch}, {prompt} + {new} tokens"
    ways: list[tuple[str, str, Callable[[], Generation]]] = [
        (label, "generate", lambda: eager),
        (label, "CUDA graphs", graphs),
        ("transformers", "generate", lambda: theirs(config, on_device, new, torch.bfloat16)),
    ]
    tokens: dict[str, Any] = {}
    for name, how, make in ways:
        common = {"part": "decode", "row": name, "try": how}
        try:
            step = make()
            found = step()
            each = median(seconds_of(step, device, 1) for _ in range(3))
        except (ImportError, Unavailable) as error:
            emit({**common, "status": "skipped", "note": reason(error)})
        except Exception as error:
            emit({**common, "status": "failed", "note": reason(error)})
        else:
            note = ""
            if name == label:
                tokens[how] = found
                if len(tokens) == 2:
                    pairs = [pair for ours in zip(*tokens.values(), strict=True) for pair in zip(*ours, strict=True)]
                    note = f"{sum(a == b for a, b in pairs)} of {len(pairs)} tokens are those of generate"
            emit({**common, "tokens_per_second": batch * new / each, "ms_per_token": each / new * 1e3, "note": note})
