"""Which calls are open: a pure fold of starts and ends."""

from collections.abc import Iterator
from typing import NamedTuple

from schemas.events import LedgerEvent, RequestRejected, RequestStart, Terminal
from schemas.ids import rfc3339

_EARLY_ENDS = 4096


class OpenCall(NamedTuple):
    """A call without an end: the sequence of its start, and the start itself."""

    seq: int
    start: RequestStart


class OpenCalls:
    """Feed it the ledger in order; it holds the calls that have a start and no end.

    An end may come without a start (a call refused at the door) and, after a publish that nobody
    acknowledged, before it: such ends are remembered for a while, so that the start which follows
    opens nothing.
    """

    def __init__(self) -> None:
        self._open: dict[str, OpenCall] = {}
        self._early: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[OpenCall]:
        """In the order in which they began."""
        return iter(self._open.values())

    def fold(self, seq: int, event: LedgerEvent) -> bool:
        """Take one event; False when it is a further end of a call that has ended already.

        Of two ends the lower sequence counts. Only a refusal ends a call that was never started.
        """
        if isinstance(event, RequestStart):
            self._start(seq, event)
        elif isinstance(event, Terminal) and self._open.pop(event.call_id, None) is None:
            self._remember(event.call_id)
            return isinstance(event, RequestRejected)
        return True

    def _start(self, seq: int, start: RequestStart) -> None:
        if start.call_id in self._early:
            del self._early[start.call_id]
        else:
            self._open.setdefault(start.call_id, OpenCall(seq, start))

    def _remember(self, call_id: str) -> None:
        self._early[call_id] = None
        if len(self._early) > _EARLY_ENDS:
            del self._early[next(iter(self._early))]

    def start_of(self, call_id: str) -> RequestStart | None:
        """The start of an open call."""
        call = self._open.get(call_id)
        return call.start if call else None

    def first_seq(self) -> int | None:
        """The lowest sequence that must be read again to know these calls; None if none is open."""
        oldest = next(iter(self._open.values()), None)
        return oldest.seq if oldest else None

    def overdue(self, now_ns: int, grace: float) -> list[RequestStart]:
        """The starts of all calls still open `grace` seconds after their deadline."""
        # All times have one width and one zone, so that their text sorts as they do.
        limit = rfc3339(now_ns - int(grace * 1e9))
        return [call.start for call in self._open.values() if call.start.deadline <= limit]
