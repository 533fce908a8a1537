"""The training stream of a DataModule: orders, lanes and global batches as its settings say."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from lightning_nlp.data.budget import BudgetLane
from lightning_nlp.data.bulk import BulkStream, Text
from lightning_nlp.data.bulk_lane import BulkLane
from lightning_nlp.data.documents import Documents, SourceDocuments
from lightning_nlp.data.joined import JoinedSource
from lightning_nlp.data.lanes import BucketedLane, FittedLane, Lane, PackedLane
from lightning_nlp.data.loader import BudgetStream, TrainStream
from lightning_nlp.data.mixed import HomogeneousLane, MixedDocuments
from lightning_nlp.data.mixture import Rates, batch_source
from lightning_nlp.data.order import BlockOrder
from lightning_nlp.data.permutation import fold
from lightning_nlp.data.prepared_source import PreparedSource
from lightning_nlp.data.sources import Source

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
        order += f"; {data.mixture}"
        fingerprint = f"mixture={hashlib.sha256(order.encode()).hexdigest()[:16]} lanes={data.lanes}"
    else:
        orders = {"": block_order(data, source, data.order_seed)}
        fingerprint = orders[""].fingerprint()
    batch = data.batch
    size = f"global_batch_tokens={batch.tokens}" if batch.rows is None else f"global_batch_size={batch.rows}"
    packing = f" packing={data.packing}" if data.packed and data.packing != "concatenate" else ""
    settings: dict[str, Any] = {
        "n_lanes": data.lanes,
        "global_batch": batch.rows,
        "data_ranks": data.ranks,
        "rank": data.rank,
        "micro_batches": data.accumulation,
        "fingerprint": f"{fingerprint} length={data.lengths} {size}{packing} tokenizer={data.tokenizer_hash[:12]}",
    }
    if isinstance(source, PreparedSource) and source.num_rows and data.one_text and data.packing == "concatenate":
        return bulk_stream(data, source, orders[""], settings)
    kind = TrainStream if batch.rows is not None else BudgetStream
    return kind(lane_maker(data, source, orders), **settings)


def bulk_stream(
    data: TextDataModule, source: PreparedSource, order: BlockOrder, settings: dict[str, Any]
) -> BulkStream:
    """The same rows as of packed lanes, many at a time."""
    tokenizer = data.tokenizer
    assert tokenizer is not None
    (field,) = data.tokenised
    text = Text(source, field, tokenizer.bos_id, tokenizer.eos_id, tokenizer.bytes_of)
    return BulkStream(
        text,
        task=data.task,
        length=data.max_length,
        make_lane=lambda number: BulkLane(order, source, number, field, data.max_length, text.ends),
        **settings,
    )


def block_order(data: TextDataModule, source: Source, seed: int) -> BlockOrder:
    return BlockOrder(source, seed=seed, shuffle=data.shuffle, block_rows=data.block_rows, lanes=data.lanes)


def lane_maker(data: TextDataModule, source: Source, orders: dict[str, BlockOrder]) -> Any:
    """``lane number -> lane``."""
    seed, mixture = data.order_seed, data.mixture

    def documents(number: int) -> dict[str, SourceDocuments]:
        return {name: SourceDocuments(order, number, data.lanes, data.prepare) for name, order in orders.items()}

    if not isinstance(source, JoinedSource):
        return lambda number: plain_lane(data, documents(number)[""], source.num_rows)
    rates = Rates(mixture, {name: mixture.sources[name].size or part.num_rows for name, part in source.parts.items()})
    if mixture.batches == "homogeneous":
        choose = batch_source(rates, seed)
        return lambda number: HomogeneousLane(
            {name: plain_lane(data, part, source.parts[name].num_rows) for name, part in documents(number).items()},
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
    )


def plain_lane(data: TextDataModule, documents: Documents, rows: int | None) -> Lane[Any]:
    """A lane of the kind that the settings ask for.

    Windows of neighbours are wide, which leaves little padding; but wider than a lane's epoch, an example would meet
    itself in a batch.

    Args:
        data: the settings.
        documents: of the lane.
        rows: of the source, where known.
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
        return BudgetLane(documents, budget=budget, rows_per_window=most, seed=seed)
    each = max(data.batch.rows.final // data.lanes, 1)
    window = min(GROUPS_PER_WINDOW * each, most)
    return BucketedLane(documents, rows_per_window=window, rows_per_batch=each, seed=seed)
