"""The plain reading of the ledger that everything derived from it is verified against.

It shares nothing with the governor's fold or with the projection but the meaning of an event.
"""

import asyncio
from collections import Counter
from datetime import UTC, datetime
from typing import TypeVar, get_args

import msgspec

from ledger.connection import Connection
from ledger.reader import Stored, read_subject
from schemas import subjects
from schemas.access import moment
from schemas.event import type_of
from schemas.events import WRITERS, LedgerEvent, Outcome, RequestStart, Terminal, decode_event

T = TypeVar("T")

OVERDUE_SECONDS = 90.0

_AT_ONCE = 4096
_READ_SECONDS = 10.0
# An event may be stored again while its answer is kept, which is minutes: far fewer events ago.
# An end comes before its start by moments.
_REMEMBERED_EVENTS = 1_000_000
_REMEMBERED_ENDS = 100_000
_TERMINAL = get_args(Terminal)


class Tally:
    """Feed it the records of the ledger in order.

    `spent` is nano-dollars by account, without what clients paid with keys of their own; an event
    that is stored again counts once, each of several ends of a call counts its money. `open` holds
    the starts of calls without an end, `parked` is how many records were no events of ours, and
    `missing` how many sequences between the first and the last record the ledger does not have.
    """

    def __init__(self) -> None:
        self.first = 0
        self.last = 0
        self.records = 0
        self.parked = 0
        self.missing = 0
        self.spent: Counter[str] = Counter()
        self.open: dict[str, RequestStart] = {}
        self._ended: dict[str, None] = {}
        self._seen: dict[int, None] = {}

    def take(self, record: Stored) -> None:
        """Count one record."""
        if self.records:
            self.missing += record.seq - self.last - 1
        else:
            self.first = record.seq
        self.last = record.seq
        self.records += 1
        event = _event_of(record)
        if event is None:
            self.parked += 1
        elif isinstance(event, RequestStart):
            # An end may be stored before the start that nobody saw acknowledged.
            if event.call_id not in self._ended:
                self.open[event.call_id] = event
        elif isinstance(event, Outcome) and self._is_new(event):
            self._count(event)

    def overdue(self, now_ns: int, grace: float = OVERDUE_SECONDS) -> list[RequestStart]:
        """The open calls whose deadline is over since `grace` seconds."""
        limit = moment(now_ns - int(grace * 1e9))
        return [start for start in self.open.values() if _time(start.deadline) <= limit]

    def _is_new(self, event: Outcome) -> bool:
        mark = hash((event.call_id, event.event_id))
        if event.call_id and mark in self._seen:
            return False
        _remember(self._seen, mark, _REMEMBERED_EVENTS)
        return True

    def _count(self, event: Outcome) -> None:
        if isinstance(event, _TERMINAL):
            self.open.pop(event.call_id, None)
            _remember(self._ended, event.call_id, _REMEMBERED_ENDS)
        if event.billed_to != "client":
            for account in dict.fromkeys(event.accounts):
                self.spent[account] += event.cost_nano or 0


async def read_tally(connection: Connection, through: int, tally: Tally | None = None) -> Tally:
    """The tally of all that the ledger holds up to a sequence; one that was begun goes on.

    Raises reader.Unreadable.
    """
    tally = tally or Tally()
    from_seq = tally.last + 1
    while from_seq <= through:
        records = await read_subject(
            connection,
            subjects.LEDGER,
            subjects.LEDGER_SUBJECTS,
            from_seq=from_seq,
            limit=min(_AT_ONCE, through - from_seq + 1),
            timeout=_READ_SECONDS,
        )
        if not records:
            break
        for record in records:
            if record.seq <= through:
                tally.take(record)
        from_seq = records[-1].seq + 1
        await asyncio.sleep(0)
    return tally


def _remember(marks: dict[T, None], mark: T, most: int) -> None:
    marks[mark] = None
    if len(marks) > most:
        del marks[next(iter(marks))]


def _time(text: str) -> datetime:
    """A call without a readable deadline is as good as overdue."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)


def _event_of(record: Stored) -> LedgerEvent | None:
    try:
        role, event_type = subjects.ledger_parts(record.subject)
        event = decode_event(record.data)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    if event is None or type_of(event) != event_type:
        return None
    return event if event_type in WRITERS.get(role, frozenset()) else None
