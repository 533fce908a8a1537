"""A plan as a person reads it."""

from __future__ import annotations

from typing import Any

from lightning_nlp.run.units import clock, compact, duration, flops, size

Plan = dict[str, Any]


def shown(plan: Plan) -> list[str]:
    """All lines."""
    held = [plan["precision"], plan["optimizer"], *([] if plan["strategy"] == "none" else [plan["strategy"]])]
    lines = [
        ("model", model(plan)),
        ("vocabulary", f"{plan['vocabulary']['size']:,} ({plan['vocabulary']['known']})"),
        ("parameters", parameters(plan)),
        ("FLOPs", work(plan)),
        ("batch", batch(plan)),
        ("", f"= {plan['rows_per_step']:g} rows, {most(plan)}{plan['tokens_per_step']:,.0f} tokens a step"),
        ("run", run(plan)),
        ("time", time(plan)),
        ("memory", f"{', '.join(held)}; of a rank at most"),
        *memory(plan),
        ("checkpoint", f"{size(plan['checkpoint'])}; up to {plan['checkpoints']} are kept"),
        *([("micro-batch", micro_batch(plan["micro_batch"]))] if "micro_batch" in plan else []),
        *(("note", note) for note in plan["notes"]),
    ]
    return [f"{name:<13}{text}" for name, text in lines]


def most(plan: Plan) -> str:
    """Before a number of tokens that is a bound: rows may be shorter."""
    return "" if plan["row_tokens"]["full"] else "at most "


def model(plan: Plan) -> str:
    about = plan["model"]
    layers = f"{about['layers']}" if about["encoder_layers"] is None else f"{about['encoder_layers']}+{about['layers']}"
    return f"{plan['task']}, {about['arrangement']}, {layers} layers, {about['d_model']} wide, {about['heads']} heads"


def parameters(plan: Plan) -> str:
    total = sum(plan["parameters"].values())
    parts = ", ".join(f"{name} {number:,}" for name, number in plan["parameters"].items())
    return f"{total:,}: {parts}" + ("" if plan["trained"] == total else f"; {plan['trained']:,} are trained")


def work(plan: Plan) -> str:
    each = plan["flops_per_token"]
    once = "" if each["palm"] == each["causal"] else f" ({flops(each['causal'])} with causal attention counted once)"
    whole = "" if plan["flops"] is None else f", {most(plan)}{flops(plan['flops'])} for the run"
    token = "target token, with its source" if plan["row_tokens"]["source"] else "token"
    return f"{flops(each['palm'])} a {token}{once}{whole}"


def batch(plan: Plan) -> str:
    row, parts = plan["row_tokens"], plan["micro_batches"]
    tensor = "" if plan["tensor_ranks"] == 1 else f" of {plan['tensor_ranks']} tensor-parallel ranks"
    ranks = f"{plan['data_ranks']} data rank{'s' * (plan['data_ranks'] > 1)}{tensor}"
    source = f" and sources of {row['source']}" if row["source"] else ""
    rows = f"{plan['micro_batch_rows']:g} rows of {most(plan)}{row['length']} tokens{source}"
    return f"{ranks} x {parts} micro-batch{'es' * (parts > 1)} x {rows}"


def run(plan: Plan) -> str:
    if plan["steps"] is None:
        return "steps not known"
    return f"{plan['steps']:,} steps, {most(plan)}{compact(plan['tokens'])} tokens"


def time(plan: Plan) -> str:
    """Hours and minutes, and what they are reckoned with."""
    measured = plan.get("measured")
    how = "at the rate given"
    if measured is not None and plan["rate"] is None:
        how = f"{duration(measured['step_seconds'])} a step, the fastest that was measured"
    if plan["seconds"] is None:
        return how if measured else "not known: --measure tries some steps, --tokens_per_second takes a rate"
    return f"{clock(plan['seconds'])} ({how}); validation and checkpoints come on top"


def memory(plan: Plan) -> list[tuple[str, str]]:
    lines = [(f"  {name}", number) for name, number in plan["memory"].items()]
    lines.append(("  together", sum(plan["memory"].values())))
    if (measured := plan.get("measured")) is not None:
        lines.append(("  measured", measured["memory"]))
    found = [("", f"{name:<20}{size(number):>9}") for name, number in lines]
    if plan["memory_limit"] is not None:
        found[-1] = ("", f"{found[-1][1]} of {size(plan['memory_limit'])}")
    return found


def micro_batch(found: Plan) -> str:
    how = "tried" if found["tried"] else "by arithmetic"
    text = f"--{found['key']} {found['value']} is the largest that fits {size(found['limit'])} "
    text += f"({how}: {size(found['needs'])}"
    if (larger := found["next"]) is not None:
        needs = "does not fit" if larger["needs"] is None else f"needs {size(larger['needs'])}"
        text += f"; {larger['value']} {needs}"
    return f"{text})"
