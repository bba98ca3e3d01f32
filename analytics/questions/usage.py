"""Usage of a period: requests, cost by provider, the most used models, average latency."""

from calendar import monthrange
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from schemas.errors import InvalidRequest
from schemas.ids import rfc3339
from schemas.money import usd

_PERIODS = ("hour", "day", "week", "month")
_TOP = 10
_HOUR = timedelta(hours=1)
_YEARS = range(1971, 2105)


class UsageParams(msgspec.Struct, frozen=True, omit_defaults=True):
    """The query string of `GET /api/v1/analytics/usage`, as the client wrote it.

    `period` is hour, day, week or month; `start` and `end` are dates or RFC 3339 times.
    """

    period: str = "day"
    start: str | None = None
    end: str | None = None


class ModelUsage(msgspec.Struct, frozen=True):
    """One line of `top_models`; cost in dollars."""

    model: str
    usage_count: int
    cost: float


class UsageReport(msgspec.Struct, frozen=True):
    """Calls that ended within [start_time, end_time), costs in dollars.

    The average is over the calls that completed; None without any.
    """

    period: str
    start_time: str
    end_time: str
    total_requests: int
    total_cost: float
    avg_latency_ms: float | None
    cost_by_provider: dict[str, float]
    top_models: list[ModelUsage]
    as_of_seq: int


def bind(params: UsageParams, now_ns: int) -> dict[str, Any]:
    """The window in Unix seconds, widened to whole hours, the grain of the statistics.

    By default the current period; with one end given, one period from there.
    """
    if params.period not in _PERIODS:
        raise InvalidRequest(
            f"period must be one of {', '.join(_PERIODS)}, not {params.period!r}", param="period"
        )
    start = _time(params.start, "start")
    end = _time(params.end, "end")
    if start is None and end is None:
        start = _begin(params.period, datetime.fromtimestamp(now_ns // 1_000_000_000, UTC))
    if start is None:
        assert end is not None
        start = _shift(end, params.period, -1)
    if end is None:
        end = _shift(start, params.period, 1)
    if end <= start:
        raise InvalidRequest("end must be after start", param="end")
    first = start.replace(minute=0, second=0, microsecond=0)
    last = end.replace(minute=0, second=0, microsecond=0)
    if last < end:
        last += _HOUR
    return {
        "period": params.period,
        "start": int(first.timestamp()),
        "end": int(last.timestamp()),
    }


def shape(bound: dict[str, Any], rows: Sequence[Sequence[Any]], as_of_seq: int) -> UsageReport:
    """Rows of (model, provider, requests, cost_nano, latency_us, latency_count)."""
    by_provider: defaultdict[str, int] = defaultdict(int)
    by_model: defaultdict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    requests = cost = latency_us = latency_count = 0
    for model, provider, row_requests, row_cost, row_latency, row_count in rows:
        requests += row_requests
        cost += row_cost
        latency_us += row_latency
        latency_count += row_count
        if provider:
            by_provider[provider] += row_cost
        used, spent = by_model[model]
        by_model[model] = used + row_requests, spent + row_cost
    ranked = sorted(by_model.items(), key=lambda item: (-item[1][0], -item[1][1], item[0]))
    return UsageReport(
        period=bound["period"],
        start_time=_text(bound["start"]),
        end_time=_text(bound["end"]),
        total_requests=requests,
        total_cost=usd(cost),
        avg_latency_ms=latency_us / latency_count / 1_000 if latency_count else None,
        cost_by_provider={name: usd(spent) for name, spent in sorted(by_provider.items())},
        top_models=[
            ModelUsage(model, used, usd(spent)) for model, (used, spent) in ranked[:_TOP] if used
        ],
        as_of_seq=as_of_seq,
    )


def _time(text: str | None, param: str) -> datetime | None:
    """A date (its midnight) or a time, in UTC unless it says otherwise."""
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
        time = time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
        if time.year not in _YEARS:
            raise ValueError
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(
            f"{param} must be a date such as 2026-01-31 or an RFC 3339 time such as "
            f"2026-01-31T12:00:00Z, from 1971 to 2104, not {text[:40]!r}",
            param=param,
        ) from error
    return time


def _begin(period: str, now: datetime) -> datetime:
    hour = now.replace(minute=0, second=0, microsecond=0)
    if period == "hour":
        return hour
    day = hour.replace(hour=0)
    if period == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if period == "month" else day


def _shift(time: datetime, period: str, by: int) -> datetime:
    if period != "month":
        return time + by * {"hour": _HOUR, "day": 24 * _HOUR, "week": 168 * _HOUR}[period]
    years, month = divmod(time.month - 1 + by, 12)
    year, month = time.year + years, month + 1
    day = min(time.day, monthrange(year, month)[1])
    return time.replace(year=year, month=month, day=day)


def _text(seconds: int) -> str:
    return rfc3339(seconds * 1_000_000_000).replace(".000000", "")
