"""Latencies as counts by bucket: they add up to the same in any order, here as in the database.

Eight buckets for each doubling of the milliseconds, so that a quantile is right to 5 %.
"""

from collections.abc import Mapping
from math import floor, log2

_PER_DOUBLING = 8
_SHORTEST_MS = 2.0**-4


def bucket(ms: float) -> int:
    """The bucket of a latency, as `analytics/rollups/target_stats.sql` has it."""
    return floor(log2(max(ms, _SHORTEST_MS)) * _PER_DOUBLING)


def quantile(counts: Mapping[int, float], share: float) -> float | None:
    """The milliseconds that a share of what was counted took at most; None of nothing."""
    left = share * sum(counts.values())
    found: int | None = None
    for found in sorted(counts):
        left -= counts[found]
        if left <= 0:
            break
    return None if found is None else float(2 ** ((found + 0.5) / _PER_DOUBLING))
