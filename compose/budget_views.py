"""How budgets stand and why a call was admitted, as a person reads it in a terminal."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from compose import admin_views, show
from compose.admin_views import NOT_KNOWN, dollars, time
from schemas.access import budget_name
from schemas.money import format_usd

_STATS_COLUMNS = ("budget", "limit", "spent", "held", "left", "resets", "stop")
_SPARE = ("stop", "held")
_END = ("finish_reason", "usage_status", "billed_to", "price_id", "reason")


class Budget(admin_views.Budget):
    """What `/admin/budgets/{name}` answers; `record` names the budget that stands for this one."""

    record: str | None = None


class Scope(msgspec.Struct):
    """A budget and how it stands."""

    scope: str
    period: str
    limit_usd: float
    hard_stop: bool
    id: str | None = None
    spent_usd: float | None = None
    held_usd: float | None = None
    remaining_usd: float | None = None
    resets_at: datetime | None = None


class Stats(msgspec.Struct):
    """What `/budget/stats` answers."""

    scopes: list[Scope]
    as_of_seq: int | None = None


class Move(msgspec.Struct):
    """A movement of a lease."""

    seq: int
    time: str
    amount_nano: int


class Account(msgspec.Struct):
    """An account of a call before its start."""

    account: str
    spent_nano: int
    held_nano: int
    leased_nano: int
    holder_nano: int
    hold_nano: int
    cost_nano: int
    limit_nano: int | None = None
    hard_stop: bool | None = None
    limit_seq: int | None = None
    remaining_nano: int | None = None
    moves: list[Move] = []


class Recorded(msgspec.Struct):
    """An event of the call."""

    seq: int
    event: dict[str, Any]


class RefusedBy(msgspec.Struct):
    """A budget that had not enough left."""

    seq: int
    account: str
    limit_nano: int
    spent_nano: int
    held_nano: int
    needed_nano: int
    together: int = 1


class Explanation(msgspec.Struct):
    """What `/admin/calls/{id}/budget` answers."""

    call_id: str
    as_of_seq: int
    start_seq: int | None = None
    time: str | None = None
    model: str | None = None
    plan: list[str] = []
    holder: str | None = None
    hold_nano: int | None = None
    prompt_estimate: int | None = None
    accounts: list[Account] = []
    events: list[Recorded] = []
    refused_by: list[RefusedBy] = []


def budget(one: Budget) -> str:
    """All of a budget, in lines; of one that was just set there is no account to be told."""
    told = admin_views.budget(one)
    if one.record is None:
        return told
    if one.record != one.name:
        told += f"(as {show.printable(one.record)} has it)\n"
    return told if one.spent_usd is not None else f"{told}{NOT_KNOWN}\n"


def question(one: Budget) -> str:
    """What to ask before a reset."""
    spent = "" if one.spent_usd is None else f" Spent are {dollars(one.spent_usd)}."
    return f"Let budget {show.printable(one.name)} count from zero?{spent}"


def begun(name: str, one: Scope) -> str:
    """What a reset has left, as a sentence."""
    until = f" until {time(one.resets_at)}" if one.resets_at is not None else ""
    return f"Budget {name} counts from zero again: {dollars(one.remaining_usd)} left{until}."


def stats(found: Stats, room: int | None) -> str:
    """Budgets as a table."""
    if not found.scopes:
        return "No budget is set for these calls."
    cells = [
        [
            budget_name(one.scope, one.id or "", one.period),
            dollars(one.limit_usd),
            dollars(one.spent_usd),
            dollars(one.held_usd),
            dollars(one.remaining_usd),
            time(one.resets_at),
            "hard" if one.hard_stop else "soft",
        ]
        for one in found.scopes
    ]
    end = NOT_KNOWN if found.as_of_seq is None else f"(ledger sequence {found.as_of_seq})"
    return show.table(_STATS_COLUMNS, cells, room, _SPARE) + end


def explanation(found: Explanation) -> str:
    """The call, its accounts one beside the other, and its events."""
    head = show.record(
        {
            "call": found.call_id,
            "model": found.model or "",
            "plan": " > ".join(found.plan),
            "admitted": f"{found.time} (sequence {found.start_seq})" if found.start_seq else "",
            "held": _usd(found.hold_nano),
            "holder": found.holder or "",
            "prompt estimate": _tokens(found.prompt_estimate),
        }
    )
    parts = [
        head,
        _accounts(found.accounts, found),
        _refusals(found.refused_by),
        _events(found.events),
    ]
    return "\n".join(part for part in parts if part) + f"(ledger sequence {found.as_of_seq})"


def _accounts(accounts: Sequence[Account], found: Explanation) -> str:
    if found.start_seq is None:
        return "It was refused before it started, so nothing was held for it.\n"
    if not accounts:
        return "No budget applied to it.\n"
    before = f"before {found.start_seq}"
    rows = [
        ["limit", *(_limit(one) for one in accounts)],
        ["limit from", *(_origin(one) for one in accounts)],
        [f"spent {before}", *(_usd(one.spent_nano) for one in accounts)],
        [f"held for open calls {before}", *(_usd(one.held_nano) for one in accounts)],
        [f"leased, not yet held {before}", *(_usd(one.leased_nano) for one in accounts)],
        ["of these with the holder", *(_usd(one.holder_nano) for one in accounts)],
        ["left for others", *(_usd(one.remaining_nano) for one in accounts)],
        ["held for this call", *(_usd(one.hold_nano) for one in accounts)],
        ["charged for this call", *(_usd(one.cost_nano) for one in accounts)],
        ["last moves of the holder", *(_moves(one) for one in accounts)],
    ]
    return show.table(["", *(one.account for one in accounts)], rows, None)


def _refusals(refusals: Sequence[RefusedBy]) -> str:
    if not refusals:
        return ""
    columns = ("refused by", "limit", "spent", "held", "needed", "told at")
    cells = [
        [
            one.account,
            _usd(one.limit_nano),
            _usd(one.spent_nano),
            _usd(one.held_nano),
            _usd(one.needed_nano),
            f"sequence {one.seq}" + (f", with {one.together} in all" if one.together > 1 else ""),
        ]
        for one in refusals
    ]
    return show.table(columns, cells, None)


def _events(events: Sequence[Recorded]) -> str:
    cells = [
        [str(one.seq), str(one.event.get("event_type", "")), _money(one.event), _facts(one.event)]
        for one in events
    ]
    return show.table(("sequence", "event", "cost", "facts"), cells, None)


def _money(event: Mapping[str, Any]) -> str:
    if event.get("event_type") == "model.request.start":
        return ""
    cost = event.get("cost_nano")
    return "" if cost is None else f"${format_usd(cost)}"


def _facts(event: Mapping[str, Any]) -> str:
    """Provider, tokens by class, price, and what else decided about the money."""
    told = [str(event.get("provider", ""))]
    usage = event.get("usage") or {}
    told += [f"{kind}={count}" for kind, count in usage.items() if kind != "status"]
    told += [f"{name}={event[name]}" for name in _END if event.get(name)]
    if event.get("hold_nano"):
        told.append(f"hold=${format_usd(event['hold_nano'])}")
    error = event.get("error")
    if isinstance(error, Mapping):
        told.append(f"{error.get('status')} {error.get('code') or error.get('type')}")
    return "  ".join(filter(None, told))


def _limit(one: Account) -> str:
    if one.limit_nano is None:
        return "none"
    return f"{_usd(one.limit_nano)} ({'hard' if one.hard_stop else 'soft'})"


def _origin(one: Account) -> str:
    if one.limit_nano is None:
        return ""
    return "configuration" if one.limit_seq is None else f"sequence {one.limit_seq}"


def _moves(one: Account) -> str:
    return ", ".join(
        f"{'+' if move.amount_nano > 0 else '-'}${format_usd(abs(move.amount_nano))} at {move.seq}"
        for move in one.moves
    )


def _usd(nano: int | None) -> str:
    return "" if nano is None else f"${format_usd(nano)}"


def _tokens(count: int | None) -> str:
    return "" if count is None else f"{count} tokens"
