"""What the governor knows: every fold of the ledger, kept at one and the same sequence."""

import asyncio
import heapq
import logging
from collections.abc import Callable
from itertools import count

import msgspec

from ledger.budgets import trails
from ledger.budgets.alerts import Alerts
from ledger.budgets.book import Book
from ledger.budgets.once import KEPT_SECONDS
from ledger.budgets.recent import Recent
from ledger.checkpoint import Checkpoint, digest_of, pack, unpack
from ledger.health import Health
from ledger.open_calls import OpenCalls
from ledger.reader import Stored
from ledger.target_states import TargetStates
from ledger.telemetry import Telemetry
from schemas import subjects
from schemas.event import type_of
from schemas.events import WRITERS, LedgerEvent, decode_event
from schemas.target_events import TargetState

log = logging.getLogger("nexus.governor")

_PARKED_TYPES = 100


class Fold:
    """Feed it the records of the ledger in order, from the checkpoint's `fold_from` on.

    An event of a call that the ledger has twice counts the first time. `on_event` is called with
    every event that is new, once everything here has it.
    """

    def __init__(self, checkpoint: Checkpoint, kept: int = KEPT_SECONDS) -> None:
        """`kept` is for how many seconds an event may be stored a second time."""
        self.open_calls = OpenCalls()
        self.health = Health()
        self.telemetry = Telemetry(checkpoint.numbers)
        self.book = Book.restore(unpack(checkpoint.book), kept)
        self.alerts = Alerts(checkpoint.alerts)
        self.targets = TargetStates(checkpoint.targets)
        self.recent = Recent(trails.unpack(checkpoint.rates))
        self.on_event: Callable[[LedgerEvent], None] | None = None
        self._start = checkpoint
        self._last = Stored(seq=checkpoint.fold_from - 1, subject="", data=b"")
        self._parked: set[str] = set()
        self._awaited: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = count()

    @property
    def seq(self) -> int:
        """The last sequence that is in everything here."""
        return self._last.seq

    def take(self, record: Stored) -> None:
        """Fold one record; what is no event of ours is parked: counted, said once, passed over."""
        self._last = record
        event = _event_of(record)
        if event is None:
            self._park(record)
        else:
            self._fold(record.seq, event)
        while self._awaited and self._awaited[0][0] <= record.seq:
            _, _, reached = heapq.heappop(self._awaited)
            if not reached.done():
                reached.set_result(None)

    async def reach(self, seq: int, within: float | None = None) -> bool:
        """Wait until the event at `seq` is in everything here; False if it is not `within` so many
        seconds."""
        if self.seq >= seq:
            return True
        reached = asyncio.get_running_loop().create_future()
        heapq.heappush(self._awaited, (seq, next(self._numbers), reached))
        try:
            async with asyncio.timeout(within):
                await reached
        except TimeoutError:
            return False
        return True

    def _fold(self, seq: int, event: LedgerEvent) -> None:
        start = self.open_calls.start_of(event.call_id)
        is_end = self.open_calls.fold(seq, event)
        self.health.fold(event)
        if isinstance(event, TargetState):
            self.targets.fold(event)
        counts = self.book.fold(seq, event)
        if seq <= self._start.seq:
            if not self._start.rates:
                self.recent.fold(event, start)
            return
        if not counts:
            return
        self.telemetry.fold(event, is_end)
        self.alerts.fold(event, start)
        self.recent.fold(event, start)
        if self.on_event is not None:
            self.on_event(event)

    def _park(self, record: Stored) -> None:
        if record.seq > self._start.seq:
            self.telemetry.park()
        if record.subject not in self._parked and len(self._parked) < _PARKED_TYPES:
            self._parked.add(record.subject)
            log.warning("event parked", extra={"seq": record.seq, "subject": record.subject})

    async def checkpoint(self) -> Checkpoint:
        """Where a successor can go on from now: the own beginning, until all that was counted then
        has been folded again. The fold may go on meanwhile."""
        if self.seq < self._start.seq or not self._last.data:
            return self._start
        now = Checkpoint(
            fold_from=self.open_calls.first_seq() or self.seq + 1,
            seq=self.seq,
            digest=digest_of(self._last),
            numbers=self.telemetry.snapshot(),
            book=pack(self.book.snapshot()),
            alerts=self.alerts.snapshot(),
            targets=tuple(self.targets),
        )
        return msgspec.structs.replace(now, rates=await self.recent.packed())


def _event_of(record: Stored) -> LedgerEvent | None:
    """The event in a record; None for a type we do not know, or from a role that may not write it,
    or what is no event at all."""
    try:
        role, event_type = subjects.ledger_parts(record.subject)
        event = decode_event(record.data)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    if event is None or type_of(event) != event_type:
        return None
    return event if event_type in WRITERS.get(role, frozenset()) else None
