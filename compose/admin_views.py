"""What the admin API answers, and how a person sees it in a terminal."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Generic, TypeVar

import msgspec

from compose import show
from schemas.money import format_usd, nano_from_usd

_KEY_COLUMNS = (
    "id", "name", "hint", "status", "project", "team", "user", "models", "expires", "source",
)  # fmt: skip
_SPARE = ("hint", "source", "tier", "budgets", "team", "user", "limits")
_SCOPE_COLUMNS = ("id", "name", "team", "models", "tier", "limits", "budgets", "source")
_BUDGET_COLUMNS = (
    "name", "limit", "spent", "held", "left", "resets", "stop", "warns at", "source",
)  # fmt: skip
NOT_KNOWN = "(what is spent is not known now: the governor does not answer)"
_EACH = {"day": "a day", "week": "a week", "month": "a month", "total": "in all"}

T = TypeVar("T")


class Budget(msgspec.Struct):
    """A budget."""

    name: str
    period: str
    limit_usd: float
    hard_stop: bool
    warning_threshold: float
    spent_usd: float | None = None
    held_usd: float | None = None
    remaining_usd: float | None = None
    resets_at: datetime | None = None
    source: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


class Secret(msgspec.Struct):
    """What is shown of a secret; `until` is the end of its grace."""

    hint: str
    until: datetime | None = None


class Record(msgspec.Struct):
    """A key, a project or a team: each has those fields that fit it, and null is not set."""

    id: str
    name: str | None = None
    hint: str | None = None
    status: str | None = None
    project: str | None = None
    team: str | None = None
    user: str | None = None
    allowed_models: list[str] | None = None
    tier: str | None = None
    limits: dict[str, int | float | None] | None = None
    budgets: list[Budget] = []
    metadata: dict[str, str] | None = None
    on_disconnect: str | None = None
    payloads: str | None = None
    expires_at: datetime | None = None
    queue: bool | None = None
    secrets: list[Secret] = []
    source: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    revoked_at: datetime | None = None


class Opened(Record, kw_only=True):
    """A key together with its secret, which is told only when it is made."""

    key: str


class Page(msgspec.Struct, Generic[T]):
    """A part of a list; `next` is what the following part begins after."""

    data: list[T]
    has_more: bool = False
    next: str | None = None
    as_of_seq: int | None = None


def title(one: Record) -> str:
    """`key_01 (my app)`, safe to print."""
    return show.printable(f"{one.id} ({one.name})" if one.name else one.id)


def record(one: Record) -> str:
    """All that is set of a key, project or team, in lines."""
    return show.record(_told(one))


def keys(found: Sequence[Record], room: int | None) -> str:
    """Keys as a table."""
    return _table(found, _KEY_COLUMNS, room)


def scopes(found: Sequence[Record], room: int | None) -> str:
    """Projects or teams as a table."""
    return _table(found, _SCOPE_COLUMNS, room)


def _table(found: Sequence[Record], columns: Sequence[str], room: int | None) -> str:
    cells = [[told[column] for column in columns] for told in map(_told, found)]
    return show.table(columns, cells, room, _SPARE)


def grace(one: Record) -> str:
    """How long the secrets still open that a key had before; a sentence, or nothing."""
    ends = [secret.until for secret in one.secrets if secret.until is not None]
    return f"The one before opens until {time(max(ends))}. " if ends else ""


def budget(one: Budget) -> str:
    """All of a budget, in lines."""
    return show.record(_budget_told(one))


def budgets(found: Sequence[Budget], room: int | None) -> str:
    """Budgets as a table, and why it has nothing to say of what was spent."""
    cells = [[_budget_told(one)[column] for column in _BUDGET_COLUMNS] for one in found]
    is_known = all(one.spent_usd is not None for one in found)
    return show.table(_BUDGET_COLUMNS, cells, room) + ("" if is_known else f"{NOT_KNOWN}\n")


def _told(one: Record) -> dict[str, str]:
    limits = (one.limits or {}).items()
    replaced = [secret for secret in one.secrets if secret.until is not None]
    return {
        "id": one.id,
        "name": one.name or "",
        "hint": one.hint or "",
        "status": one.status or "",
        "project": one.project or "",
        "team": one.team or "",
        "user": one.user or "",
        "models": ", ".join(one.allowed_models or ()),
        "tier": one.tier or "",
        "limits": ", ".join(f"{name}={value}" for name, value in limits if value is not None),
        "budgets": ", ".join(f"{_limit(each)} ({_stop(each)})" for each in one.budgets),
        "metadata": ", ".join(f"{name}={text}" for name, text in (one.metadata or {}).items()),
        "on disconnect": one.on_disconnect or "",
        "payloads": one.payloads or "",
        "expires": time(one.expires_at),
        "at a limit": "waits for its turn" if one.queue else "",
        "replaced": ", ".join(f"{old.hint}, opens until {time(old.until)}" for old in replaced),
        "source": _source(one),
        "created": time(one.created_at),
        "updated": time(one.updated_at),
        "revoked": time(one.revoked_at),
    }


def _budget_told(one: Budget) -> dict[str, str]:
    return {
        "name": one.name,
        "limit": _limit(one),
        "spent": dollars(one.spent_usd),
        "held": dollars(one.held_usd),
        "left": dollars(one.remaining_usd),
        "resets": time(one.resets_at),
        "stop": _stop(one),
        "warns at": f"{one.warning_threshold * 100:g} %",
        "source": _source(one),
        "created": time(one.created_at),
        "updated": time(one.updated_at),
    }


def _source(one: Record | Budget) -> str:
    """What was made by API or command needs no word; what cannot be changed here does."""
    return one.source if one.source and one.source != "ledger" else ""


def _limit(budget: Budget) -> str:
    return f"{dollars(budget.limit_usd)} {_EACH.get(budget.period, budget.period)}"


def _stop(budget: Budget) -> str:
    return "hard" if budget.hard_stop else "soft"


def dollars(usd: float | None) -> str:
    """`$12.5`; nothing for an amount that nobody knows."""
    return "" if usd is None else f"${format_usd(nano_from_usd(usd))}"


def time(when: datetime | None) -> str:
    """A time in UTC, to the minute."""
    return "" if when is None else when.astimezone(UTC).strftime("%Y-%m-%d %H:%MZ")
