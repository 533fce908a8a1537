"""What batch settings mean: rows or tokens, ramps, micro-batches; numbers that do not divide are named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_nlp.data.order.arithmetic import BatchSize, accumulation, batch_size
from lightning_nlp.data.order.ramp import BatchRamp
from lightning_nlp.errors import ConfigError

NOTHING = (None, None, None, None, None)


def asked(**settings):
    names = ("rows", "tokens", "ramp", "micro_rows", "micro_tokens", "length")
    return batch_size(**{name: settings.get(name) for name in names})


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({}, BatchSize(BatchRamp(((0, 32),)), None, None)),
        ({"rows": 8, "micro_rows": 2}, BatchSize(BatchRamp(((0, 8),)), None, 2)),
        ({"tokens": 512, "micro_tokens": 128, "length": 64}, BatchSize(BatchRamp(((0, 8),)), None, 2)),
        ({"tokens": 512, "micro_tokens": 128}, BatchSize(None, 512, 128)),
        ({"ramp": {0: 4, 10: 16}}, BatchSize(BatchRamp(((0, 4), (10, 16))), None, None)),
        ({"rows": 16, "ramp": {10: 16, 0: 4}}, BatchSize(BatchRamp(((0, 4), (10, 16))), None, None)),
    ],
    ids=str,
)
def test_settings(settings, size):
    assert asked(**settings) == size


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"rows": 8, "tokens": 512}, "global_batch_size and data.global_batch_tokens say the same"),
        ({"micro_rows": 8, "micro_tokens": 512}, "micro_batch_size and data.micro_batch_tokens say the same"),
        ({"rows": 0}, "data.global_batch_size must be at least 1, not 0"),
        ({"tokens": 100, "length": 64}, "data.global_batch_tokens 100 is no multiple of data.max_length 64"),
        ({"tokens": 100, "micro_rows": 4}, "give data.micro_batch_tokens"),
        ({"rows": 8, "micro_tokens": 4}, "give data.micro_batch_size"),
        ({"tokens": 100, "ramp": {0: 4}}, "data.batch_ramp counts rows"),
        ({"rows": 8, "ramp": {0: 4}}, "ends with 4 rows, data.global_batch_size is 8"),
        ({"ramp": {5: 4}}, "starts at step 5"),
        ({"ramp": {0: 0, 5: 4}}, "a batch of no rows"),
    ],
    ids=str,
)
def test_contradictions(settings, text):
    with pytest.raises(ConfigError, match=text):
        asked(**settings)


@pytest.mark.parametrize(
    ("settings", "ranks", "lanes", "parts"),
    [
        ({"rows": 8}, 2, 4, 1),
        ({"rows": 8, "micro_rows": 2}, 1, 4, 4),
        ({"rows": 8, "micro_rows": 2}, 2, 4, 2),
        ({"ramp": {0: 4, 5: 8}, "micro_rows": 2}, 2, 4, 2),
        ({"tokens": 800}, 2, 4, 1),
        ({"tokens": 800, "micro_tokens": 200}, 1, 4, 4),
        ({"tokens": 800, "micro_tokens": 300}, 1, 6, 3),
        ({"tokens": 800, "micro_tokens": 200}, 2, 4, 2),
    ],
    ids=str,
)
def test_accumulation(settings, ranks, lanes, parts):
    assert accumulation(asked(**settings), ranks, lanes) == parts


@pytest.mark.parametrize(
    ("settings", "ranks", "lanes", "text"),
    [
        ({"rows": 8}, 3, 6, "data.global_batch_size 8 is not divisible by 3 data ranks"),
        ({"rows": 8}, 2, 1, "data.lanes 1 is not divisible by 2 data ranks"),
        ({"rows": 8, "micro_rows": 3}, 1, 4, "not divisible by data.micro_batch_size 3"),
        ({"rows": 6}, 1, 4, "data.global_batch_size 6 and data.lanes 4: one must divide the other"),
        ({"ramp": {0: 2, 5: 8}, "micro_rows": 2}, 1, 4, "data.batch_ramp: 2 is not divisible into 4 micro-batches"),
        ({"ramp": {0: 6, 5: 8}}, 1, 4, "data.batch_ramp: 6 and data.lanes 4"),
        ({"tokens": 800, "micro_tokens": 300}, 1, 4, "to which data.lanes 4 cannot be dealt evenly"),
    ],
    ids=str,
)
def test_sizes_that_do_not_divide(settings, ranks, lanes, text):
    with pytest.raises(ConfigError, match=text):
        accumulation(asked(**settings), ranks, lanes)


def test_a_lane_must_hold_the_longest_row():
    size = asked(tokens=800)
    assert accumulation(size, 1, 4, (100, 90)) == 1  # 104 + 96 = 800 / 4
    with pytest.raises(ConfigError, match="leaves 200 for a lane, and the longest row may need 208"):
        accumulation(size, 1, 4, (100, 97))


ramps = st.dictionaries(st.integers(1, 60), st.integers(1, 9), max_size=4).map(lambda found: {0: 3, **found})


@given(ramps, st.integers(0, 400))
def test_a_ramp_adds_up(stages, rows):
    ramp = BatchRamp.of(max(stages.items())[1], stages)
    firsts = [0]
    for step in range(200):
        firsts.append(firsts[-1] + ramp.size(step))
    assert [ramp.first(step) for step in range(200)] == firsts[:-1]
    assert ramp.steps(rows) == next((step for step, first in enumerate(firsts) if first >= rows), ramp.steps(rows))
