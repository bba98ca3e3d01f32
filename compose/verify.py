"""`nexus ledger verify`: the same sums from the ledger, the database and the governor.

All three are looked at as of one sequence of the ledger. Differences are told, never corrected.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import click
import msgspec

from analytics.accounts import Spent, Totals, TotalsParams
from analytics.client import Analytics
from compose import show
from compose.commands import Failed
from ledger.budgets.messages import StateAsk, States, decode_states, encode
from ledger.connection import (
    BusRefused,
    Connection,
    Disconnected,
    NoResponders,
    RequestTimeout,
)
from ledger.log import last_sequence
from ledger.permissions import OPERATOR
from ledger.reader import Unreadable
from ledger.tally import Tally, read_tally
from schemas import subjects
from schemas.config import BusConfig
from schemas.errors import NexusError, Unavailable
from schemas.ids import Clock
from schemas.money import format_usd

_GOVERNOR_SECONDS = 5.0
_LOOK_AGAIN = 0.25
_EQUAL_SHOWN = 50
_CALLS_SHOWN = 20


class Account(msgspec.Struct, frozen=True):
    """What an account was charged, by each of them; None is not compared. The governor tells only
    those of the present periods."""

    account: str
    ledger_nano: int
    events_nano: int | None
    rollup_nano: int | None
    governor_nano: int | None
    equal: bool


class Report(msgspec.Struct, frozen=True):
    """What was found at sequence `seq`; without `differences` everything is equal.

    `running` are the calls without an end that may still have one, `overdue` those that should
    have been ended.
    """

    seq: int
    equal: bool
    differences: list[str]
    events: int
    parked: int
    accounts: list[Account]
    running: list[str]
    overdue: list[str]


class Facts(NamedTuple):
    """What each of the three says; None is one that did not answer, for the reason in `away`.

    `governed` is nano-dollars by account, all at `seq`.
    """

    seq: int
    tally: Tally
    totals: Totals | None
    spent: Sequence[Spent]
    governed: Mapping[str, int]
    away: Sequence[str]


def verify(bus: BusConfig, patience: float, as_json: bool) -> int:
    """Compare, print what was found, and give the exit code: 0 where everything is equal.

    `patience` is how many seconds the database may need to be there. Raises Failed.
    """
    clock = Clock()
    try:
        facts = asyncio.run(_gather(bus, patience, clock))
    except (Disconnected, BusRefused, Unreadable) as error:
        raise Failed(f"the ledger cannot be read: {error} (NEXUS_NATS_URL says where)") from error
    report = compare(facts, clock.now_ns())
    click.echo(msgspec.json.encode(report).decode() if as_json else _told(report), nl=as_json)
    return 0 if report.equal else 1


def compare(facts: Facts, now_ns: int) -> Report:
    """Every difference between what was gathered; pure."""
    tally = facts.tally
    overdue = [start.call_id for start in tally.overdue(now_ns)]
    late = set(overdue)
    accounts = _accounts(facts)
    differences = [
        *facts.away,
        *_of_events(facts),
        *(_of_account(one) for one in accounts if not one.equal),
        *(f"call {call_id} has no end" for call_id in overdue),
    ]
    return Report(
        seq=facts.seq,
        equal=not differences,
        differences=differences,
        events=tally.records,
        parked=tally.parked,
        accounts=accounts,
        running=[call_id for call_id in tally.open if call_id not in late],
        overdue=overdue,
    )


def _accounts(facts: Facts) -> list[Account]:
    stored = {one.account: one for one in facts.spent}
    known, spent = facts.governed, facts.tally.spent
    return [
        _account(name, spent[name], stored.get(name), known.get(name), facts.totals is not None)
        for name in sorted({*spent, *stored, *known})
    ]


def _account(
    name: str, ledger: int, stored: Spent | None, governor: int | None, has_stored: bool
) -> Account:
    none = Spent(name, 0, 0) if has_stored else None
    there = stored or none
    events, rollup = (there.events_nano, there.rollup_nano) if there else (None, None)
    told = {ledger, events, rollup, governor} - {None}
    return Account(name, ledger, events, rollup, governor, len(told) == 1)


def _of_account(one: Account) -> str:
    told = {
        "the ledger": one.ledger_nano,
        "the events in the database": one.events_nano,
        "their rollup": one.rollup_nano,
        "the governor": one.governor_nano,
    }
    words = [f"{who} says ${format_usd(nano)}" for who, nano in told.items() if nano is not None]
    return f"{one.account}: {', '.join(words)}"


def _of_events(facts: Facts) -> list[str]:
    """Sequences: the ledger has each of them once, and the database the same ones."""
    tally, totals = facts.tally, facts.totals
    found = []
    if tally.first > 1:
        found.append(f"the ledger begins at sequence {tally.first}")
    if tally.missing or tally.last < facts.seq:
        found.append(f"sequences that the ledger lacks: {tally.missing + facts.seq - tally.last}")
    if totals is None:
        return found
    if totals.sequences != tally.records or totals.first_missing is not None:
        where = f"; the first that it lacks is {totals.first_missing}"
        found.append(
            f"the database has {totals.sequences} of the ledger's {tally.records} events"
            f"{where if totals.first_missing is not None else ''}"
        )
    if totals.rows != totals.sequences:
        found.append(f"the database has sequences twice: {totals.rows - totals.sequences}")
    return found


async def _gather(bus: BusConfig, patience: float, clock: Clock) -> Facts:
    connection = await Connection.connect(bus, name=OPERATOR, on_fatal=_to_be_raised)
    try:
        away: list[str] = []
        pages = await _pages(connection)
        if pages is None:
            away.append("the governor does not answer, so it was not compared")
        seq = pages[-1].seq if pages else await last_sequence(connection)
        tally, above = await _read_beside(connection, pages or ())
        tally = await read_tally(connection, seq, tally)
        # What an account was charged behind its page is what the ledger says.
        governed = {account: tally.spent[account] + nano for account, nano in above.items()}
        totals: Totals | None = None
        spent: list[Spent] = []
        try:
            totals = await _totals(connection, seq, patience, clock)
            spent = await _spent(connection, totals)
        except NexusError as error:
            away.append(f"the database was not compared: {error.info.message}")
            totals = None
        return Facts(seq, tally, totals, spent, governed, away)
    finally:
        await connection.close()


async def _pages(connection: Connection) -> list[States] | None:
    """All budgets as the governor tells them, each page as of a sequence of its own; None if it
    does not."""
    pages: list[States] = []
    after: str | None = ""
    while after is not None:
        try:
            answer = await connection.request(
                subjects.GOVERNOR_BUDGETS,
                encode(StateAsk(after=after)),
                timeout=_GOVERNOR_SECONDS,
            )
        except (NoResponders, RequestTimeout):
            return None
        pages.append(decode_states(answer.data))
        after = pages[-1].next
    return pages


async def _read_beside(
    connection: Connection, pages: Sequence[States]
) -> tuple[Tally, dict[str, int]]:
    """How far the governor is above (or below zero) the ledger in each account, at its page's own
    sequence; and the tally up to the last of them."""
    tally, above = Tally(), dict[str, int]()
    for page in pages:
        tally = await read_tally(connection, page.seq, tally)
        for state in page.budgets:
            above[state.account] = state.spent_nano - tally.spent[state.account]
    return tally, above


async def _totals(connection: Connection, seq: int, patience: float, clock: Clock) -> Totals:
    """What the database holds once it has reached a sequence. Raises NexusError."""
    analytics = Analytics(connection)
    until = clock.monotonic() + patience
    while True:
        found = await analytics.totals(TotalsParams(seq))
        if found.as_of_seq >= seq:
            return found
        if clock.monotonic() > until:
            raise Unavailable(
                f"it is at sequence {found.as_of_seq} of {seq}; --wait says how long to wait"
            )
        await asyncio.sleep(_LOOK_AGAIN)


async def _spent(connection: Connection, first: Totals) -> list[Spent]:
    """All accounts, from their first part on. Raises NexusError."""
    analytics = Analytics(connection)
    spent, part = list(first.accounts), first
    while part.next is not None:
        part = await analytics.totals(TotalsParams(first.through, part.next))
        spent += part.accounts
    return spent


def _to_be_raised(_: str) -> None:
    """What the bus forbids to an operator ends the request that it concerns."""


def _told(report: Report) -> str:
    parked = f", {report.parked} of them no events of ours" if report.parked else ""
    lines = [
        f"As of ledger sequence {report.seq}: {report.events} events{parked}, "
        f"{len(report.accounts)} accounts, {len(report.running)} calls running.",
        *_listed("running", report.running),
        "",
    ]
    if shown := _shown(report.accounts):
        lines += [_table(shown)]
    if hidden := len(report.accounts) - len(shown):
        lines += [f"({hidden} more accounts are equal; --json has them)", ""]
    if report.equal:
        return "\n".join([*lines, "Everything is equal.\n"])
    count = len(report.differences)
    lines += [f"{count} difference{'' if count == 1 else 's'}:"]
    lines += [f"  {show.printable(one)}" for one in report.differences]
    return "\n".join(lines) + "\n"


def _listed(what: str, calls: Sequence[str]) -> list[str]:
    more = f" and {len(calls) - _CALLS_SHOWN} more" if len(calls) > _CALLS_SHOWN else ""
    if not calls:
        return []
    return [f"  {what}: {show.printable(', '.join(calls[:_CALLS_SHOWN]))}{more}"]


def _shown(accounts: Sequence[Account]) -> list[Account]:
    """All that differ, and the first of the others."""
    equal = [one for one in accounts if one.equal][:_EQUAL_SHOWN]
    return [*(one for one in accounts if not one.equal), *equal]


def _table(accounts: Sequence[Account]) -> str:
    header = ("account", "ledger", "events", "budget_spend", "governor", "")
    cells = [
        [
            one.account,
            format_usd(one.ledger_nano),
            _amount(one.events_nano),
            _amount(one.rollup_nano),
            _amount(one.governor_nano),
            "" if one.equal else "DIFFERENT",
        ]
        for one in accounts
    ]
    return show.table(header, cells, None)


def _amount(nano: int | None) -> str:
    return "-" if nano is None else format_usd(nano)
