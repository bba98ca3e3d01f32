"""What the governor knows: every fold of the ledger, kept at one and the same sequence."""

import logging

import msgspec

from ledger.checkpoint import Checkpoint, digest_of
from ledger.health import Health
from ledger.open_calls import OpenCalls
from ledger.reader import Stored
from ledger.telemetry import Telemetry
from schemas import subjects
from schemas.event import type_of
from schemas.events import WRITERS, LedgerEvent, decode_event

log = logging.getLogger("nexus.governor")

_PARKED_TYPES = 100


class Fold:
    """Feed it the records of the ledger in order, from the checkpoint's `fold_from` on."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.open_calls = OpenCalls()
        self.health = Health()
        self.telemetry = Telemetry(checkpoint.numbers)
        self._start = checkpoint
        self._last = Stored(seq=checkpoint.fold_from - 1, subject="", data=b"")
        self._parked: set[str] = set()

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
            return
        is_end = self.open_calls.fold(record.seq, event)
        self.health.fold(event)
        if record.seq > self._start.seq:
            self.telemetry.fold(event, is_end)

    def _park(self, record: Stored) -> None:
        if record.seq > self._start.seq:
            self.telemetry.park()
        if record.subject not in self._parked and len(self._parked) < _PARKED_TYPES:
            self._parked.add(record.subject)
            log.warning("event parked", extra={"seq": record.seq, "subject": record.subject})

    def checkpoint(self) -> Checkpoint:
        """Where a successor can go on: the own beginning, until all that was counted then has been
        folded again."""
        if self.seq < self._start.seq or not self._last.data:
            return self._start
        return Checkpoint(
            fold_from=self.open_calls.first_seq() or self.seq + 1,
            seq=self.seq,
            digest=digest_of(self._last),
            numbers=self.telemetry.snapshot(),
        )


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
