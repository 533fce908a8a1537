"""The training stream of a DataModule: orders, lanes and global batches as its settings say."""

from __future__ import annotations

import functools
import hashlib
from itertools import islice
from typing import TYPE_CHECKING, Any

from lightning_nlp.data.objectives import Example
from lightning_nlp.data.order.blocks import BlockOrder
from lightning_nlp.data.order.budget import GROUPS, BudgetLane, cost
from lightning_nlp.data.order.bulk import BulkStream
from lightning_nlp.data.order.bulk_lane import BulkLane
from lightning_nlp.data.order.bulk_text import Text
from lightning_nlp.data.order.documents import Documents, SourceDocuments, with_keys
from lightning_nlp.data.order.joined import JoinedSource, rows_in_turn
from lightning_nlp.data.order.lanes import BucketedLane, FittedLane, Lane, PackedLane
from lightning_nlp.data.order.mixed import HomogeneousLane, MixedDocuments
from lightning_nlp.data.order.mixture import Rates, batch_source
from lightning_nlp.data.order.stream import BudgetStream, TrainStream
from lightning_nlp.data.order.workers import Workers
from lightning_nlp.data.permutation import fold
from lightning_nlp.data.prepared.source import PreparedSource
from lightning_nlp.data.sources.bad_rows import examine, policy_of
from lightning_nlp.data.sources.source import Source

if TYPE_CHECKING:
    from lightning_nlp.data.module import TextDataModule

GROUPS_PER_WINDOW = 512
"""Batches a lane sorts by length at a time."""
FITTED_WINDOW = 1000
"""Documents from which rows are put together at a time: enough to leave about 1 % of padding."""
LARGEST_WINDOW = 1 << 17


def training_stream(data: TextDataModule) -> TrainStream:
    """The stream that ``data`` describes, at its beginning."""
    source = data.split("train")
    if isinstance(source, JoinedSource):
        seeds = {name: int(fold((data.order_seed, number))) >> 1 for number, name in enumerate(source.parts)}
        orders = {name: block_order(data, part, seeds[name]) for name, part in source.parts.items()}
        order = "; ".join(f"{name}: {part.fingerprint()}" for name, part in orders.items())
        order += f"; {data.mixture.choices}"
        fingerprint = f"mixture={hashlib.sha256(order.encode()).hexdigest()[:16]} lanes={data.lanes}"
    else:
        orders = {"": block_order(data, source, data.order_seed)}
        fingerprint = orders[""].fingerprint()
    batch = data.batch
    size = f"global_batch_tokens={batch.tokens}" if batch.rows is None else f"global_batch_size={batch.rows}"
    packing = f" packing={data.packing}" if data.packed and data.packing != "concatenate" else ""
    fingerprint += f" length={data.lengths} {size}{packing} tokenizer={data.tokenizer_hash[:12]}"
    make_lane: Any = lane_maker(data, source, orders)
    kind: Any = TrainStream if batch.rows is not None else BudgetStream
    bulk = False
    if isinstance(source, PreparedSource) and draws_in_bulk(data, source):
        bulk, (kind, make_lane) = True, bulk_stream(data, source, orders[""])

    def stream(ranks: int, rank: int) -> TrainStream:
        made: TrainStream = kind(
            make_lane,
            n_lanes=data.lanes,
            global_batch=batch.rows,
            data_ranks=ranks,
            rank=rank,
            micro_batches=data.accumulation,
            fingerprint=fingerprint,
        )
        return made

    whole = stream(data.ranks, data.rank)
    if data.workers and not bulk:  # to a worker, the others are further ranks
        ranks, rank, count = data.ranks, data.rank, data.workers
        whole.spawn = lambda state: Workers(lambda number: stream(ranks * count, rank + ranks * number), count, state)
    return whole


def draws_in_bulk(data: TextDataModule, source: PreparedSource) -> bool:
    """Whether rows follow from lengths alone: packed texts, end to end, none of which could turn out to be bad."""
    plain = data.one_text and data.packing == "concatenate" and "long" not in policy_of(source).also
    return plain and source.num_rows is not None and not source.bad


def bulk_stream(data: TextDataModule, source: PreparedSource, order: BlockOrder) -> tuple[Any, Any]:
    """What makes a stream, and a lane, of the same rows as packed lanes give."""
    tokenizer = data.tokenizer
    assert tokenizer is not None
    (field,) = data.tokenised
    text = Text(source, field, tokenizer.bos_id, tokenizer.eos_id, tokenizer.bytes_of)
    return (
        functools.partial(BulkStream, text, data.task, data.max_length),
        lambda number: BulkLane(order, source, number, field, data.max_length, text.ends),
    )


def block_order(data: TextDataModule, source: Source, seed: int) -> BlockOrder:
    return BlockOrder(source, seed=seed, shuffle=data.shuffle, block_rows=data.block_rows, lanes=data.lanes)


def lane_maker(data: TextDataModule, source: Source, orders: dict[str, BlockOrder]) -> Any:
    """``lane number -> lane``."""
    seed, mixture = data.order_seed, data.mixture
    mean = mean_cost(data) if data.batch.rows is None else 0.0

    prepare = data.checked_prepare

    def documents(number: int) -> dict[str, SourceDocuments]:
        return {name: SourceDocuments(order, number, data.lanes, prepare) for name, order in orders.items()}

    if not isinstance(source, JoinedSource):
        return lambda number: plain_lane(data, documents(number)[""], source.num_rows, mean)
    rates = Rates(mixture, {name: mixture.sources[name].size or part.num_rows for name, part in source.parts.items()})
    if mixture.batches == "homogeneous":
        choose = batch_source(rates, seed)
        return lambda number: HomogeneousLane(
            {
                name: plain_lane(data, part, source.parts[name].num_rows, mean)
                for name, part in documents(number).items()
            },
            choose,
        )
    return lambda number: plain_lane(
        data,
        MixedDocuments(
            documents(number),
            rates,
            seed=seed,
            lane=number,
            unit=mixture.unit,
            exhaustion=mixture.exhaustion,
            passes=mixture.passes,
        ),
        source.num_rows,
        mean,
    )


def plain_lane(data: TextDataModule, documents: Documents, rows: int | None, mean: float) -> Lane[Any]:
    """A lane of the kind that the settings ask for.

    Windows of neighbours are wide, which leaves little padding; but wider than a lane's epoch, an example would meet
    itself in a batch.

    Args:
        data: the settings.
        documents: of the lane.
        rows: of the source, where known.
        mean: positions of a row, where batches are measured in them.
    """
    most = LARGEST_WINDOW if rows is None else max(rows // data.lanes, 1)
    seed = data.order_seed
    if data.packed and data.packing == "first_fit":
        return FittedLane(documents, rows_per_window=min(FITTED_WINDOW, most), length=data.max_length, seed=seed)
    if data.packed:
        return PackedLane(documents, data.max_length)
    if data.batch.rows is None:
        assert data.batch.tokens is not None
        budget = data.batch.tokens // data.lanes
        return BudgetLane(
            documents,
            budget=budget,
            groups=groups_of_window(None if rows is None else rows * mean / data.lanes, budget),
            seed=seed,
        )
    each = max(data.batch.rows.final // data.lanes, 1)
    window = min(GROUPS_PER_WINDOW * each, most)
    return BucketedLane(documents, rows_per_window=window, rows_per_batch=each, seed=seed)


SAMPLE = 256
"""Rows from which the length of all is estimated."""


def groups_of_window(epoch: float | None, budget: int) -> int:
    """Groups of a token budget that a lane sorts at a time: as many as its epoch surely holds, up to ``GROUPS``.

    It must be the same in all lanes, whose epochs differ a little.

    Args:
        epoch: positions that a lane's epoch has, about; None for a stream.
        budget: of a group.
    """
    return GROUPS if epoch is None else max(min(int(0.8 * epoch / budget), GROUPS), 1)


def mean_cost(data: TextDataModule) -> float:
    """Positions of a row and its source, on average over the first rows of the training data."""
    source = data.split("train")
    examples = examine(data.checked_prepare, with_keys(list(islice(rows_in_turn(source), SAMPLE)), 0), source)
    good = [example for example in examples if isinstance(example, Example)]
    costs = [sum(cost(1, part.lengths) for part in example.parts) for example in good]
    return sum(costs) / max(len(costs), 1)
