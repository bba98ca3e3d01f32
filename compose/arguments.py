"""What people write behind the options of `nexus keys` and `nexus budget`, for the admin API.

Each reader raises ValueError with what would be right.
"""

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click

PERIODS = ("day", "week", "month", "total")
SCOPES = ("global", "team", "project", "user", "key")

_DURATION = re.compile(r"([0-9]{1,9})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_LONGEST = timedelta(days=36_500)
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME = re.compile(_DAY.pattern + r"T[0-9:]{5,8}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})")
_MOST_DOLLARS = 1_000_000_000

_Given = TypeVar("_Given")


def read_by(
    reader: Callable[[_Given], Any],
) -> Callable[[click.Context, click.Parameter, _Given], Any]:
    """The callback of an option or argument that is read so; what was not given is None."""

    def callback(_: click.Context, __: click.Parameter, given: _Given) -> Any:
        if given is None or given == ():
            return None
        try:
            return reader(given)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None

    return callback


def id(text: str) -> str:
    """An id; an empty one would ask for the list."""
    if not text:
        raise ValueError("an id is not empty")
    return text


def duration(text: str) -> timedelta:
    """`90s`, `15m`, `12h`, `30d`."""
    parts = _DURATION.fullmatch(text)
    if parts is None:
        raise ValueError(f"expected a duration such as 90s, 15m, 12h or 30d, got {text!r}")
    found = timedelta(**{_UNITS[parts[2]]: int(parts[1])})
    if found > _LONGEST:
        raise ValueError(f"{text} is longer than a hundred years")
    return found


def expiry(text: str, now: datetime) -> str:
    """A duration from now, a day (it ends as the day begins, UTC) or a time: RFC 3339 in UTC."""
    when = now + duration(text) if _DURATION.fullmatch(text) else _moment(text)
    if when <= now:
        raise ValueError(f"{text} is not in the future; `nexus keys revoke` ends a key now")
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def _moment(text: str) -> datetime:
    try:
        if _DAY.fullmatch(text):
            return datetime.fromisoformat(text).replace(tzinfo=UTC)
        if _TIME.fullmatch(text):
            return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"expected 30d, 12h, 2027-01-01 or 2027-01-01T08:00:00Z, got {text!r}")


def limits(texts: Iterable[str]) -> dict[str, float]:
    """`requests_per_minute=60` and so on."""
    import msgspec

    from schemas.access import Limits

    names = [field.name for field in msgspec.structs.fields(Limits)]
    found: dict[str, Any] = {}
    for name, value in _pairs(texts, "requests_per_minute=60").items():
        if name not in names:
            raise ValueError(f"there is no limit {name!r}; there are: {', '.join(names)}")
        try:
            found[name] = getattr(msgspec.convert({name: value}, Limits, strict=False), name)
        except msgspec.ValidationError:
            found[name] = None
        if found[name] is None:
            wanted = "a number above 0" if name == "requests_per_second" else "1, 2, 3 or more"
            raise ValueError(f"{name}: expected {wanted}, got {value!r}")
    return found


def metadata(texts: Iterable[str]) -> dict[str, str]:
    """`owner=ana` and so on."""
    return _pairs(texts, "owner=ana")


def budgets(texts: Iterable[str]) -> list[dict[str, Any]]:
    """`month=100` and so on: dollars by period."""
    found = []
    for period, value in _pairs(texts, "month=100").items():
        if period not in PERIODS:
            raise ValueError(f"there is no period {period!r}; there are: {', '.join(PERIODS)}")
        found.append({"period": period, "limit_usd": dollars(value)})
    return found


def dollars(text: str) -> float:
    """An amount of at most a billion US dollars."""
    try:
        amount = float(text)
    except ValueError:
        amount = -1
    if not 0 <= amount <= _MOST_DOLLARS:
        raise ValueError(f"expected dollars such as 100 or 0.5, got {text!r}")
    return amount


def budget_scope(text: str) -> tuple[str, str]:
    """`global`, `project:shop`, `user:ana@example.com`: the scope, and whose."""
    scope, _, whose = text.partition(":")
    if scope not in SCOPES or (scope == "global") == bool(whose):
        others = ", ".join(f"{one}:ID" for one in SCOPES[1:])
        raise ValueError(f"expected global, {others}; got {text!r}")
    return scope, whose


def _pairs(texts: Iterable[str], example: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise ValueError(f"expected {example}, got {text!r}")
        if name in found:
            raise ValueError(f"{name} is given twice")
        found[name] = value
    return found
