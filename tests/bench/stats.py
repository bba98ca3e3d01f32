"""Percentiles and medians, defined once."""

import math
import statistics
from collections.abc import Iterable, Sequence

import msgspec


class Spread(msgspec.Struct, frozen=True):
    """How a measured duration is spread; milliseconds."""

    count: int
    p50: float
    p90: float
    p99: float
    top: float

    def at(self, percent: int) -> float:
        """One of the percentiles kept: 50, 90 or 99."""
        return {50: self.p50, 90: self.p90, 99: self.p99}[percent]


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: the smallest value that `percent` of all values do not exceed.

    `ordered` is sorted and not empty; the answer is always one of its values.
    """
    rank = math.ceil(len(ordered) * percent / 100)
    return ordered[max(rank, 1) - 1]


def spread(nanoseconds: Iterable[int]) -> Spread | None:
    """The spread of durations given in ns; None when there are none."""
    ordered = [value / 1e6 for value in sorted(nanoseconds)]
    if not ordered:
        return None
    p50, p90, p99 = (percentile(ordered, percent) for percent in (50, 90, 99))
    return Spread(len(ordered), p50, p90, p99, ordered[-1])


def median(values: Iterable[float | None]) -> float | None:
    """The median of the values that are known; None when none is."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
