"""How targets fared lately, the older the less it counts: what the choice among them goes by."""

from collections.abc import Sequence
from typing import Any

import msgspec

from schemas.errors import InvalidRequest

# What happened counts half as much after so many seconds.
HALF_LIFE = 120
# So many targets are told of at most, those with the most calls.
MOST_TARGETS = 256

_LONGEST = 1440


class TargetsParams(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far back to look, in minutes."""

    minutes: int = 30


class TargetFigures(msgspec.Struct, frozen=True, omit_defaults=True):
    """One target. Attempts and errors are weighed by their age, so they are no whole numbers;
    the latencies are such counts by bucket (`analytics/latencies.py`) of the attempts that the
    target answered: from the request to its first byte, and to its end."""

    provider: str
    engine: str
    attempts: float
    rate_limits: float = 0.0
    timeouts: float = 0.0
    denials: float = 0.0
    failures: float = 0.0
    first_byte: dict[int, float] = {}
    total: dict[int, float] = {}

    @property
    def errors(self) -> float:
        """Of the attempts, those that were the target's fault."""
        return self.rate_limits + self.timeouts + self.denials + self.failures


class TargetsReport(msgspec.Struct, frozen=True):
    """All targets that were asked lately, as of one ledger sequence."""

    targets: tuple[TargetFigures, ...]
    as_of_seq: int


def bind(params: TargetsParams, now_ns: int) -> dict[str, Any]:
    """The window in Unix seconds."""
    if not 1 <= params.minutes <= _LONGEST:
        raise InvalidRequest(f"minutes must be from 1 to {_LONGEST}", param="minutes")
    now = now_ns // 1_000_000_000
    return {
        "now": now,
        "since": now - 60 * params.minutes,
        "half_life": HALF_LIFE,
        "most": MOST_TARGETS,
    }


def shape(bound: dict[str, Any], rows: Sequence[Sequence[Any]], as_of_seq: int) -> TargetsReport:
    """Rows in the order of the fields of TargetFigures."""
    return TargetsReport(tuple(_figures(row) for row in rows), as_of_seq)


def _figures(row: Sequence[Any]) -> TargetFigures:
    provider, engine, *counts, first_byte, total = row
    attempts, rate_limits, timeouts, denials, failures = map(_short, counts)
    return TargetFigures(
        provider=provider,
        engine=engine,
        attempts=attempts,
        rate_limits=rate_limits,
        timeouts=timeouts,
        denials=denials,
        failures=failures,
        first_byte={bucket: _short(count) for bucket, count in first_byte.items()},
        total={bucket: _short(count) for bucket, count in total.items()},
    )


def _short(count: float) -> float:
    return float(f"{count:.4g}")
