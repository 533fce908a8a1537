"""`lightning-nlp plan -c CONFIG`: what a run would cost, before any is started."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any

from lightning_nlp.cli.listing import Arguments
from lightning_nlp.errors import ConfigError, nearest

if TYPE_CHECKING:
    from lightning_nlp.cli.plan_config import Asked
    from lightning_nlp.cli.plan_trial import Trial

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def main(argv: list[str]) -> int:
    """Print the plan of a configuration."""
    about = "What a run of a configuration would cost: parameters, FLOPs, memory of a rank, steps, time, checkpoints."
    parser = Arguments(
        prog="lightning-nlp plan", description=f"{about} What is not listed here is as for fit.", allow_abbrev=False
    )
    parser.add_argument("-c", "--config", action="append", default=[], help="as for fit; may be repeated")
    parser.add_argument("--measure", type=int, nargs="?", const=6, help="take time and memory of so many steps (6)")
    parser.add_argument("--tokens_per_second", type=float, help="of all ranks, to reckon time with")
    parser.add_argument("--memory", help="of a rank, such as 8GiB (default: what this machine, or its GPU, has)")
    parser.add_argument("--fit_micro_batch", action="store_true", help="find the largest micro-batch that fits it")
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    options, rest = parser.parse_known_args(argv)
    for name in ("measure", "tokens_per_second"):
        if (value := getattr(options, name)) is not None and not value > 0:
            raise ConfigError(f"--{name} must be above 0, not {value}")
    limit = None if options.memory is None else bytes_of(options.memory)
    args = [part for file in options.config for part in ("-c", file)] + rest
    if not options.config and not any(arg.partition("=")[0] == "--run" for arg in rest):
        raise ConfigError("plan needs -c CONFIG, or --run RUN")
    from lightning_nlp.cli.plan_config import asked_of
    from lightning_nlp.cli.plan_text import shown
    from lightning_nlp.cli.quiet import quieten

    quieten()
    try:
        asked = asked_of(args)
    except ConfigError as mistake:
        unknown = re.match(r"unknown key '(\w+)'", str(mistake))
        own = [flag for action in parser._actions for flag in action.option_strings]
        if unknown and (hint := nearest(f"--{unknown[1]}", own)):  # an option of this command, misspelt
            raise ConfigError(f"plan: unknown option '--{unknown[1]}'{hint}") from None
        raise
    plan = planned(asked, options, args, limit)
    print(json.dumps(plan, indent=2) if options.json else "\n".join(shown(plan)))
    return 0


def bytes_of(text: str) -> int:
    """``8GiB``, ``8GB``, ``8G`` -> bytes, in powers of 1024.

    Raises:
        ConfigError: not of that form, or nothing.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", text, re.IGNORECASE)
    if not match or not float(match[1]):
        raise ConfigError(f"--memory '{text}' is no size: write 8GiB or 500MiB")
    return int(float(match[1]) * UNITS[match[2].upper()])


def planned(asked: Asked, options: Any, args: list[str], limit: int | None) -> dict[str, Any]:
    """The plan as plain values: bytes, FLOPs and seconds."""
    from lightning_nlp.callbacks.utilization import resident
    from lightning_nlp.cli import plan_numbers as numbers
    from lightning_nlp.cli.plan_trial import trial

    config, batch, work = asked.task.config, numbers.batch_of(asked), numbers.step_work(asked)
    of_step = numbers.flops(asked)
    memory = numbers.memory(asked)
    if asked.layout.on_cpu:
        memory["process"] = resident().get("resident_bytes", 0)  # this one has imported what a run imports
    full, whole = asked.data.packed and asked.data.packing == "concatenate", numbers.steps_in_full(asked)
    found: dict[str, Any] = {
        "task": type(asked.task).__name__,
        "model": {
            "arrangement": config.arrangement,
            "layers": config.n_layers,
            "encoder_layers": config.n_encoder_layers if config.arrangement == "encoder_decoder" else None,
            "d_model": config.d_model,
            "heads": config.n_heads,
        },
        "vocabulary": {"size": config.vocab_size, "known": asked.vocabulary},
        "parameters": numbers.parameters(asked.task),
        "trained": sum(weight.numel() for weight in asked.task.parameters() if weight.requires_grad),
        "flops_per_token": {name: value / work.tokens for name, value in of_step.items()},
        "flops": None if whole is None else whole * of_step["palm"],
        "strategy": asked.layout.strategy,
        "data_ranks": asked.layout.data,
        "tensor_ranks": asked.layout.tensor,
        "micro_batches": batch.micro_batches,
        "micro_batch_rows": batch.rows,
        "row_tokens": {"length": batch.length, "source": batch.source, "full": full},
        "rows_per_step": work.rows,
        "tokens_per_step": work.tokens,
        "steps": asked.steps,
        "tokens": None if whole is None else whole * work.tokens,
        "precision": asked.precision,
        "optimizer": asked.task.optimizer_config.name,
        "memory": memory,
        "memory_limit": limit,
        "checkpoint": numbers.checkpoint_bytes(asked),
        "checkpoints": asked.checkpoints,
        "notes": asked.notes,
    }
    measured: Trial | None = None
    if options.measure is not None:
        measured = trial(args, options.measure)
        if measured is None:
            found["notes"].append("the steps that were tried did not fit into memory")
        else:
            found["measured"] = {"step_seconds": measured.seconds, "tokens": measured.tokens, "memory": measured.memory}
    found["rate"] = options.tokens_per_second
    # Steps are measured from the first on, where a batch that grows is small.
    first = 1.0 if asked.data.batch.rows is None else asked.data.batch.rows.size(0) / asked.data.batch.rows.final
    alike = None if whole is None else whole / first
    found["seconds"] = seconds(found, alike, measured, options.tokens_per_second)
    if options.fit_micro_batch:
        found["micro_batch"] = largest(asked, args, limit, tried=options.measure is not None)
        found["memory_limit"] = found["micro_batch"]["limit"]
    return found


def seconds(plan: dict[str, Any], steps: float | None, measured: Trial | None, rate: float | None) -> float | None:
    """Of the training steps; by a rate that was given, else of so many ``steps`` as were measured."""
    if plan["steps"] is None:
        return None
    if rate is not None:
        return float(plan["tokens"]) / rate
    return None if measured is None or steps is None else steps * measured.seconds


def largest(asked: Asked, args: list[str], limit: int | None, tried: bool) -> dict[str, Any]:
    """The largest micro-batch that fits: by arithmetic on a CPU, by trying on a GPU, or wherever steps are measured.

    Raises:
        ConfigError: none fits.
    """
    import torch

    from lightning_nlp.callbacks.utilization import resident
    from lightning_nlp.cli import plan_numbers as numbers
    from lightning_nlp.cli.plan_trial import trial

    key = "data.micro_batch_size" if asked.data.batch.rows is not None else "data.micro_batch_tokens"
    needs: dict[int, float | None] = {}
    real = tried or (not asked.layout.on_cpu and torch.cuda.is_available())
    if limit is None:
        limit = memory_here(asked)
    base = resident().get("resident_bytes", 0) if asked.layout.on_cpu else 0

    def fits(parts: int) -> bool:
        if not real:
            needs[parts] = base + sum(numbers.memory(asked, parts).values())
        else:
            name, value = key.replace(".", "__"), numbers.micro_of(asked, parts)
            print(f"trying {key} {value}", file=sys.stderr, flush=True)
            done = trial(args, 2, **{name: value})
            needs[parts] = None if done is None else done.memory
        needed = needs[parts]
        return needed is not None and needed <= limit

    choices = numbers.accumulations(asked)
    low, high = 0, len(choices)  # what fits with fewer and larger micro-batches fits with more and smaller ones
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(choices[middle]) else (middle + 1, high)
    if low == len(choices):
        from lightning_nlp.run.units import size

        needed = needs.get(choices[-1])
        told = "memory ran out" if needed is None else f"it needs {size(needed)}"
        micro = numbers.micro_of(asked, choices[-1])
        raise ConfigError(f"--fit_micro_batch: {key} {micro} is the smallest, and {told} of {size(limit)}")
    chosen, larger = choices[low], choices[low - 1] if low else None
    following = None if larger is None else {"value": numbers.micro_of(asked, larger), "needs": needs[larger]}
    return {
        "key": key,
        "value": numbers.micro_of(asked, chosen),
        "micro_batches": chosen,
        "needs": needs[chosen],
        "limit": limit,
        "next": following,
        "tried": real,
    }


def memory_here(asked: Asked) -> int:
    """Bytes that a rank has on this machine.

    Raises:
        ConfigError: it is planned for a GPU, and there is none.
    """
    import os

    import torch

    if not asked.layout.on_cpu:
        if not torch.cuda.is_available():
            raise ConfigError("--memory is needed: there is no GPU here to ask how much it has")
        return int(torch.cuda.get_device_properties(0).total_memory)
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return whole // (asked.layout.data * asked.layout.tensor)
