"""Which events of calls were counted already: one that the ledger has twice counts once.

A worker that finds the end of a call writes its event again, in case that it is not stored; minutes
later the ledger knows its message id no more and stores it a second time.
"""

from array import array
from datetime import UTC, datetime
from hashlib import blake2b

from schemas.event import Event

# An answer is kept for two minutes beyond the longest deadline, and its end cannot be found later.
AFTER_DEADLINE = 180
KEPT_SECONDS = 600 + AFTER_DEADLINE
# More than a thousand calls a second would need another design; memory has to end somewhere.
_MOST = 500_000
_BYTES = 8


class Once:
    """A mark for each event of the last `kept` seconds, by the ledger's own time: the newest that
    an event has said."""

    def __init__(self, kept: int = KEPT_SECONDS, state: dict[int, bytes] | None = None) -> None:
        self._kept = kept
        self._by_second = {second: array("Q", marks) for second, marks in (state or {}).items()}
        self._marks = {mark for marks in self._by_second.values() for mark in marks}
        self._now = max(self._by_second, default=0)

    def is_new(self, event: Event) -> bool:
        """Whether the event is not one of those; from now on it is. Events of no call all are."""
        if not event.call_id:
            return True
        mark = _mark_of(event)
        if mark in self._marks:
            return False
        self._go_on(second_of(event))
        self._marks.add(mark)
        self._by_second.setdefault(self._now, array("Q")).append(mark)
        if len(self._marks) > _MOST:
            self._drop_oldest()
        return True

    def state(self) -> dict[int, bytes]:
        """The marks, eight bytes each, by the second they are of."""
        return {second: marks.tobytes() for second, marks in self._by_second.items()}

    def _go_on(self, second: int) -> None:
        if second <= self._now:
            return
        self._now = second
        while self._by_second and next(iter(self._by_second)) < second - self._kept:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        self._marks.difference_update(self._by_second.pop(next(iter(self._by_second))))


def second_of(event: Event) -> int:
    """When an event says that it was written, in seconds since 1970 UTC; 0 for a text that is no
    time."""
    try:
        time = datetime.fromisoformat(event.time)
    except ValueError:
        return 0
    return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())


def _mark_of(event: Event) -> int:
    named = f"{event.call_id} {event.event_id}".encode(errors="replace")
    return int.from_bytes(blake2b(named, digest_size=_BYTES).digest())
