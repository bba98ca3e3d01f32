"""What people write behind the options of `nexus keys` and `nexus budget`: good and bad."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from compose import arguments

NOW = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("0s", timedelta()),
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("12h", timedelta(hours=12)),
        ("30d", timedelta(days=30)),
        ("36500d", timedelta(days=36_500)),
    ],
)
def test_durations(text: str, meant: timedelta) -> None:
    assert arguments.duration(text) == meant


@pytest.mark.parametrize(
    "text",
    ["", "1", "h", "-1h", "+1h", "1.5h", "1 h", "1h30m", "1w", "1H", "٣d", "1h\n", "36501d",
     "999999999d", "9999999999999999d", "nan"],
)  # fmt: skip
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|hundred years"):
        arguments.duration(text)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("90s", "2026-11-20T10:01:30Z"),
        ("30d", "2026-12-20T10:00:00Z"),
        ("2027-01-01", "2027-01-01T00:00:00Z"),
        ("2027-01-01T08:00Z", "2027-01-01T08:00:00Z"),
        ("2027-01-01T08:00:00Z", "2027-01-01T08:00:00Z"),
        ("2027-01-01T08:00:00.25Z", "2027-01-01T08:00:00Z"),
        ("2027-01-01T00:30:00+02:00", "2026-12-31T22:30:00Z"),
    ],
)
def test_moments_that_a_key_may_expire_at(text: str, meant: str) -> None:
    assert arguments.expiry(text, NOW) == meant


@pytest.mark.parametrize(
    "text",
    ["", "tomorrow", "2027", "2027-01", "2027-13-01", "2027-02-30", "20270101", "2027-W01-1",
     "2027-01-01T08:00:00", "2027-01-01 08:00:00Z", "2027-01-01T25:00:00Z", "2027-01-01T08Z",
     "01.01.2027", "9999-12-31T23:59:59-10:00", "0001-01-01T00:00:00+10:00", "1700000000"],
)  # fmt: skip
def test_what_is_no_moment_is_refused_with_what_is_one(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected 30d, 12h, 2027-01-01 or"):
        arguments.expiry(text, NOW)


@pytest.mark.parametrize("text", ["0s", "2026-11-20", "2026-11-20T10:00:00Z", "1999-01-01"])
def test_a_key_does_not_expire_in_the_past(text: str) -> None:
    with pytest.raises(ValueError, match="not in the future"):
        arguments.expiry(text, NOW)


@pytest.mark.parametrize(
    ("texts", "meant"),
    [
        (["requests_per_minute=60"], {"requests_per_minute": 60}),
        (["requests_per_second=0.5", "burst=3"], {"requests_per_second": 0.5, "burst": 3}),
        (["tokens_per_hour=1000000000000"], {"tokens_per_hour": 1_000_000_000_000}),
        (["concurrent=4", "tokens_per_minute=9"], {"concurrent": 4, "tokens_per_minute": 9}),
    ],
)
def test_limits(texts: list[str], meant: dict[str, float]) -> None:
    assert arguments.limits(texts) == meant


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["60"], "expected requests_per_minute=60"),
        (["=60"], "expected requests_per_minute=60"),
        (["rpm=60"], "no limit 'rpm'; there are: requests_per_second, burst"),
        (["requests_per_minute="], "expected 1, 2, 3 or more, got ''"),
        (["requests_per_minute=0"], "expected 1, 2, 3 or more"),
        (["requests_per_minute=-1"], "expected 1, 2, 3 or more"),
        (["requests_per_minute=1.5"], "expected 1, 2, 3 or more"),
        (["requests_per_minute=null"], "expected 1, 2, 3 or more"),
        (["requests_per_minute=many"], "expected 1, 2, 3 or more"),
        (["concurrent=1000000000001"], "expected 1, 2, 3 or more"),
        (["requests_per_second=0"], "expected a number above 0"),
        (["requests_per_second=nan"], "expected a number above 0"),
        (["requests_per_second=inf"], "expected a number above 0"),
        (["burst=1", "burst=2"], "burst is given twice"),
    ],
)
def test_what_is_no_limit_is_refused_with_what_is_one(texts: list[str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        arguments.limits(texts)


@pytest.mark.parametrize(
    ("texts", "meant"),
    [
        (["month=100"], [{"period": "month", "limit_usd": 100}]),
        (["day=0.5", "total=0"],
         [{"period": "day", "limit_usd": 0.5}, {"period": "total", "limit_usd": 0}]),
    ],
)  # fmt: skip
def test_budgets_of_a_record(texts: list[str], meant: list[dict[str, Any]]) -> None:
    assert arguments.budgets(texts) == meant


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["100"], "expected month=100"),
        (["year=1"], "no period 'year'; there are: day, week, month, total"),
        (["month="], "expected dollars"),
        (["month=$5"], "expected dollars"),
        (["month=-1"], "expected dollars"),
        (["month=nan"], "expected dollars"),
        (["month=inf"], "expected dollars"),
        (["month=1000000001"], "expected dollars"),
        (["day=1", "day=2"], "day is given twice"),
    ],
)
def test_what_is_no_budget_is_refused(texts: list[str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        arguments.budgets(texts)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("global", ("global", "")),
        ("project:shop", ("project", "shop")),
        ("user:auth0|17", ("user", "auth0|17")),
        ("team:a:b", ("team", "a:b")),
        ("key:key_01", ("key", "key_01")),
    ],
)
def test_scopes_of_a_budget(text: str, meant: tuple[str, str]) -> None:
    assert arguments.budget_scope(text) == meant


@pytest.mark.parametrize("text", ["", "global:x", "project", "project:", "shop", "org:x", ":x"])
def test_what_is_no_scope_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected global, team:ID, project:ID, user:ID, key:ID"):
        arguments.budget_scope(text)


def test_metadata_keeps_whatever_stands_behind_the_first_equals_sign() -> None:
    assert arguments.metadata(["a=b=c", "d="]) == {"a": "b=c", "d": ""}
    with pytest.raises(ValueError, match="expected owner=ana"):
        arguments.metadata(["owner"])
