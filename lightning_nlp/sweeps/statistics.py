"""Mean and interval of a few values."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

# Student's t, two-sided 95 %, for 1 to 30 degrees of freedom.
QUANTILES = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
    2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
    2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423,
)  # fmt: skip


def half_width(values: Sequence[float]) -> float | None:
    """Half of the 95 % t-interval of the mean of independent values; None for fewer than two.

    Beyond 31 values the quantile of 30 degrees of freedom is shrunk by Cornish and Fisher's first term.
    """
    count = len(values)
    if count < 2:
        return None
    freedom = count - 1
    z = statistics.NormalDist().inv_cdf(0.975)
    quantile = QUANTILES[freedom - 1] if freedom <= 30 else z + (z**3 + z) / (4 * freedom)
    return quantile * statistics.stdev(values) / math.sqrt(count)
