"""Numbers as people read them."""

from __future__ import annotations

import pytest

from lightning_nlp.run import units

CASES = [
    (units.compact, 999, "999"),
    (units.compact, 1234, "1.23k"),
    (units.compact, 2.5e6, "2.5M"),
    (units.compact, -3e9, "-3G"),
    (units.clock, 59.6, "1:00"),
    (units.clock, 3725, "1:02:05"),
    (units.clock, -1, "0:00"),
    (units.duration, 0.0451, "45.1 ms"),
    (units.duration, 2.0, "2 s"),
    (units.flops, 9.89e14, "989 TFLOP"),
    (units.flops, 94.66e9, "94.7 GFLOP"),
    (units.flops, 1.5e15, "1.5 PFLOP"),
    (units.flops, 5e3, "0.005 MFLOP"),
    (units.size, 641728512, "612 MiB"),
    (units.size, 1023 * 2**20, "1023 MiB"),
    (units.size, 8 * 2**30, "8 GiB"),
    (units.size, 100, "100 bytes"),
    (units.size, 0, "0 bytes"),
]


@pytest.mark.parametrize(("show", "number", "text"), CASES)
def test_units(show, number, text):
    assert show(number) == text
