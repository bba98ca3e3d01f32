"""When the periods of a budget begin and end: days, weeks from Monday and months of one time zone.

A local day begins at its first instant, so it has 23 to 25 hours where clocks change; a midnight
that does not exist is the instant of the change, of one that comes twice it is the first.
"""

from bisect import bisect_left
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from schemas.access import Period

_SECOND = 1_000_000_000


class Window(NamedTuple):
    """One period: the instants from `starts_ns` up to `ends_ns`, which is not in it any more.

    Nanoseconds since 1970 UTC; `ends_ns` None is never. `label` is its first local day, `all` for
    the period `total`.
    """

    label: str
    starts_ns: int
    ends_ns: int | None


_ALWAYS = Window("all", 0, None)
# The window asked for last, by period and zone: a decision asks for the same one every time.
_recent: dict[tuple[Period, str], tuple[int, int, Window]] = {}


def window_at(period: Period, now_ns: int, zone: str = "UTC") -> Window:
    """The window that an instant is in. Raises ValueError for a zone that nobody knows."""
    if period == "total":
        return _ALWAYS
    recent = _recent.get((period, zone))
    if recent is not None and recent[0] <= now_ns < recent[1]:
        return recent[2]
    window, ends_ns = _window(period, now_ns, zone_named(zone))
    _recent[period, zone] = window.starts_ns, ends_ns, window
    return window


def zone_named(zone: str) -> ZoneInfo:
    """A time zone by its name, such as `Europe/Berlin`. Raises ValueError."""
    try:
        return ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(
            f"There is no time zone '{zone}' here; a name is like 'Europe/Berlin' or 'UTC'."
        ) from error


@lru_cache(1024)
def is_long_over(period: str, label: str, now_ns: int) -> bool:
    """Whether a period is neither the current one nor one of the two before it, in any zone."""
    try:
        first = date.fromisoformat(label)
    except ValueError:
        return False
    for _ in range(3):
        first = _next_first_day(period, first)
    today = datetime.fromtimestamp(now_ns // _SECOND, UTC).date()
    return first < today


def _first_day(period: str, day: date) -> date:
    if period == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if period == "month" else day


def _next_first_day(period: str, first: date) -> date:
    if period == "month":
        return (first + timedelta(days=31)).replace(day=1)
    return first + timedelta(days=7 if period == "week" else 1)


def _window(period: Period, now_ns: int, zone: ZoneInfo) -> tuple[Window, int]:
    now = now_ns // _SECOND
    first = _first_day(period, datetime.fromtimestamp(now, zone).date())
    following = _next_first_day(period, first)
    # Where clocks went back over midnight, an instant of the day that began may be told as one of
    # the day before: what counts is that the day has begun.
    while _begins(following, zone) <= now:
        first, following = following, _next_first_day(period, following)
    ends_ns = _begins(following, zone) * _SECOND
    return Window(first.isoformat(), _begins(first, zone) * _SECOND, ends_ns), ends_ns


def _begins(day: date, zone: ZoneInfo) -> int:
    """The first instant of a local day, in seconds since 1970."""
    midnight = datetime.combine(day, time(), zone)
    begins = int(midnight.timestamp())
    if datetime.fromtimestamp(begins, zone).replace(tzinfo=None) == datetime.combine(day, time()):
        return begins
    # There is no such midnight. Told by the offset after the change it comes before the change,
    # told by that before the change it comes after: the day begins in between.
    earliest = int(midnight.replace(fold=1).timestamp())
    return earliest + bisect_left(
        range(earliest, begins),
        True,
        key=lambda at: datetime.fromtimestamp(at, zone).date() >= day,
    )
