"""Periods of budgets: what an instant belongs to, in any zone and where clocks change."""

from datetime import UTC, date, datetime, timedelta
from typing import get_args
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.budgets.windows import Window, is_long_over, window_at
from schemas.access import Period

SECOND = 1_000_000_000
HOUR = 3600 * SECOND
FIRST = int(datetime(1970, 1, 8, tzinfo=UTC).timestamp())
LAST = int(datetime(2150, 1, 1, tzinfo=UTC).timestamp())
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "America/Havana",
    "America/St_Johns",
    "America/Toronto",
    "Africa/Cairo",
    "Africa/Monrovia",
    "Asia/Kathmandu",
    "Asia/Beirut",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Kwajalein",
    "Pacific/Kiritimati",
)
WINDOWED: tuple[Period, ...] = ("day", "week", "month")
instants = st.integers(FIRST * SECOND, LAST * SECOND)
zones = st.sampled_from(ZONES)
windowed = st.sampled_from(WINDOWED)


def at(text: str, zone: str = "UTC", fold: int = 0) -> int:
    """Nanoseconds of a local time; `fold` 1 is the second of two."""
    when = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return int(when.timestamp()) * SECOND


def span(window: Window) -> tuple[str, str]:
    """A window's bounds as UTC, to the minute."""
    assert window.ends_ns is not None
    bounds = (window.starts_ns, window.ends_ns)
    first, last = (datetime.fromtimestamp(ns // SECOND, UTC).isoformat()[:16] for ns in bounds)
    return first, last


@given(windowed, instants, zones)
def test_every_instant_is_in_the_window_it_is_given_and_its_neighbours_are_in_the_next(
    period: Period, now_ns: int, zone: str
) -> None:
    window = window_at(period, now_ns, zone)
    assert window.ends_ns is not None
    assert window.starts_ns <= now_ns < window.ends_ns
    for inside in (window.starts_ns, (window.starts_ns + window.ends_ns) // 2, window.ends_ns - 1):
        assert window_at(period, inside, zone) == window
    after, before = (
        window_at(period, window.ends_ns, zone),
        window_at(period, window.starts_ns - 1, zone),
    )
    assert after.starts_ns == window.ends_ns
    assert before.ends_ns == window.starts_ns
    assert before.label < window.label < after.label


@given(windowed, instants, zones)
def test_the_label_is_the_first_local_day_of_the_window(
    period: Period, now_ns: int, zone: str
) -> None:
    window = window_at(period, now_ns, zone)
    first = datetime.fromtimestamp(window.starts_ns // SECOND, ZoneInfo(zone)).date()
    named = date.fromisoformat(window.label)
    assert named == first
    assert period != "week" or named.weekday() == 0
    assert period != "month" or named.day == 1


@given(windowed, instants, instants, zones)
def test_two_instants_share_a_label_exactly_when_they_share_a_window(
    period: Period, one: int, other: int, zone: str
) -> None:
    first, second = window_at(period, one, zone), window_at(period, other, zone)
    assert (first.label == second.label) == (first == second)
    assert (first.label < second.label) == (first.starts_ns < second.starts_ns)


@pytest.mark.parametrize(
    ("period", "now", "zone", "label", "bounds"),
    [
        ("day", "2026-11-21T12:00", "UTC", "2026-11-21", ("2026-11-21T00:00", "2026-11-22T00:00")),
        ("week", "2026-11-21T12:00", "UTC", "2026-11-16", ("2026-11-16T00:00", "2026-11-23T00:00")),
        ("week", "2026-11-16T00:00", "UTC", "2026-11-16", ("2026-11-16T00:00", "2026-11-23T00:00")),
        ("week", "2026-01-01T09:00", "UTC", "2025-12-29", ("2025-12-29T00:00", "2026-01-05T00:00")),
        (
            "month",
            "2026-12-31T23:59",
            "UTC",
            "2026-12-01",
            ("2026-12-01T00:00", "2027-01-01T00:00"),
        ),
        (
            "month",
            "2028-02-29T12:00",
            "UTC",
            "2028-02-01",
            ("2028-02-01T00:00", "2028-03-01T00:00"),
        ),
        ("day", "2028-02-29T12:00", "UTC", "2028-02-29", ("2028-02-29T00:00", "2028-03-01T00:00")),
        # In Berlin it is one or two hours later.
        (
            "month",
            "2026-11-01T00:30",
            "Europe/Berlin",
            "2026-11-01",
            ("2026-10-31T23:00", "2026-11-30T23:00"),
        ),
        # 23 hours, then 25.
        (
            "day",
            "2026-03-29T12:00",
            "Europe/Berlin",
            "2026-03-29",
            ("2026-03-28T23:00", "2026-03-29T22:00"),
        ),
        (
            "day",
            "2026-10-25T12:00",
            "Europe/Berlin",
            "2026-10-25",
            ("2026-10-24T22:00", "2026-10-25T23:00"),
        ),
        # There was no midnight: the clocks went from 0:00 to 1:00.
        (
            "day",
            "2018-11-04T12:00",
            "America/Sao_Paulo",
            "2018-11-04",
            ("2018-11-04T03:00", "2018-11-05T02:00"),
        ),
        # Midnight came twice: the clocks went from 1:00 to 0:00.
        (
            "day",
            "2025-11-02T12:00",
            "America/Havana",
            "2025-11-02",
            ("2025-11-02T04:00", "2025-11-03T05:00"),
        ),
        # One minute after midnight the clocks went back to 23:01 of the day before.
        (
            "day",
            "2010-11-07T12:00",
            "America/St_Johns",
            "2010-11-07",
            ("2010-11-07T02:30", "2010-11-08T03:30"),
        ),
        # Samoa went over the date line and had no 30th of December.
        (
            "day",
            "2011-12-31T12:00",
            "Pacific/Apia",
            "2011-12-31",
            ("2011-12-30T10:00", "2011-12-31T10:00"),
        ),
    ],
)
def test_known_windows(
    period: Period, now: str, zone: str, label: str, bounds: tuple[str, str]
) -> None:
    window = window_at(period, at(now, zone), zone)
    assert (window.label, span(window)) == (label, bounds)


def test_the_hour_that_comes_again_on_the_day_before_belongs_to_the_day_that_has_begun() -> None:
    """In St. John's the first minute of a day was followed by an hour told as the day before."""
    begun = at("2010-11-07T00:00:30", "America/St_Johns")
    again = at("2010-11-06T23:30", "America/St_Johns", fold=1)
    before = at("2010-11-06T23:30", "America/St_Johns")
    assert before < begun < again
    labels = [window_at("day", now, "America/St_Johns").label for now in (before, begun, again)]
    assert labels == ["2010-11-06", "2010-11-07", "2010-11-07"]


def test_a_day_whose_midnight_lies_within_the_time_left_out_begins_when_clocks_change() -> None:
    """Toronto went from half past eleven to half past midnight in the spring of 1919."""
    change = at("1919-03-31T00:30", "America/Toronto")
    window = window_at("day", change, "America/Toronto")
    assert (window.label, window.starts_ns) == ("1919-03-31", change)
    assert window_at("day", change - 1, "America/Toronto").label == "1919-03-30"


@given(instants)
def test_a_total_has_one_window_without_an_end(now_ns: int) -> None:
    assert window_at("total", now_ns, "Asia/Beirut") == Window("all", 0, None)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../etc/passwd", "Europe", "/UTC", "a\0b"])
def test_a_zone_that_nobody_knows_is_an_error_in_words(zone: str) -> None:
    with pytest.raises(ValueError, match="There is no time zone"):
        window_at("day", 0, zone)


@given(windowed, instants, zones, st.integers(0, 5))
def test_the_current_period_and_the_two_before_it_are_never_long_over(
    period: Period, now_ns: int, zone: str, back: int
) -> None:
    window = window_at(period, now_ns, zone)
    for _ in range(back):
        window = window_at(period, window.starts_ns - 1, zone)
    long_over = is_long_over(period, window.label, now_ns)
    if back <= 2:
        assert not long_over
    elif back == 5:
        assert long_over


def test_what_has_no_first_day_is_never_over() -> None:
    century = int(timedelta(days=36_500).total_seconds()) * SECOND
    assert not is_long_over("total", "all", century)
    assert set(get_args(Period)) == {*WINDOWED, "total"}
