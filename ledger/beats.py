"""Signs of life: every process says on the bus how it fares; the governor adds up what it hears.

What never reaches the ledger (a request refused for a wrong key, say, or that a call's rates were
not asked) is counted here.
"""

import asyncio
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable

import msgspec

from ledger.connection import Connection, Disconnected
from schemas import subjects
from schemas.ids import Clock

EVERY = 2.0
# Among the refusals, what is none: calls that passed because no governor answered for their rates.
LET_THROUGH = "rate_let_through"
_SILENT = 10.0
_REMEMBERED = 1000
_KINDS = 64


class Beat(msgspec.Struct, frozen=True):
    """One process at one moment; `refusals` counts errors by type since that process started, and
    `LET_THROUGH`."""

    role: str
    id: str
    refusals: dict[str, int] = {}
    in_flight: int = 0
    rss_bytes: int = 0
    cpu_seconds: float = 0.0


class Beats:
    """The signs of life of this process: run `run()` as a task from start to end.

    `in_flight` gives how many calls the process has in hand, `let_through` how many passed unasked.
    """

    def __init__(
        self,
        connection: Connection,
        role: str,
        clock: Clock,
        in_flight: Callable[[], int] = lambda: 0,
        let_through: Callable[[], int] = lambda: 0,
    ) -> None:
        self.id = clock.new_token()
        self._connection = connection
        self._role = role
        self._in_flight = in_flight
        self._let_through = let_through
        self._refusals: Counter[str] = Counter()

    def count_refusal(self, error_type: str) -> None:
        """A client got an error of this type and the ledger will not hear of it."""
        self._refusals[error_type] += 1

    async def run(self) -> None:
        """Beat every two seconds, and once more when cancelled."""
        try:
            while True:
                self._publish()
                await asyncio.sleep(EVERY)
        finally:
            self._publish()

    def _publish(self) -> None:
        """Beats that nobody can hear are not kept: the next one says all there is to say."""
        if not self._connection.connected:
            return
        counts = dict(self._refusals)
        if let_through := self._let_through():
            counts[LET_THROUGH] = let_through
        beat = measure(self._role, self.id, counts, self._in_flight())
        try:
            self._connection.publish(subjects.GOVERNOR_BEAT, msgspec.json.encode(beat))
        except Disconnected:
            return


def measure(role: str, process_id: str, refusals: dict[str, int], in_flight: int) -> Beat:
    """A beat of this process, now."""
    return Beat(
        role=role,
        id=process_id,
        refusals=refusals,
        in_flight=in_flight,
        rss_bytes=_resident_bytes(),
        cpu_seconds=round(time.process_time(), 3),
    )


def _resident_bytes() -> int:
    """Memory in use; where the system does not say (not Linux), the most there ever was."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


class Refusals(msgspec.Struct, frozen=True):
    """The refusals of all processes by type, and what of each process is in them, by its id."""

    total: dict[str, int] = {}
    counted: dict[str, dict[str, int]] = {}


_NONE = Refusals()


class Processes:
    """What the beats of all processes add up to.

    Processes come and go: the counts of each are added by their growth, so that a sum never goes
    down. What was counted of the last thousand processes is remembered for that.
    """

    def __init__(self, clock: Clock, refusals: Refusals = _NONE) -> None:
        self._clock = clock
        self._total = dict(refusals.total)
        self._counted = dict(refusals.counted)
        self._heard: dict[str, tuple[float, Beat]] = {}

    def fold(self, beat: Beat) -> None:
        """Take one beat."""
        counted = self._counted.pop(beat.id, {})
        for kind, count in beat.refusals.items():
            known = counted.get(kind, 0)
            if count > known and (kind in self._total or len(self._total) < _KINDS):
                self._total[kind] = self._total.get(kind, 0) + count - known
        self._counted[beat.id] = beat.refusals
        if len(self._counted) > _REMEMBERED:
            del self._counted[next(iter(self._counted))]
        now = self._clock.monotonic()
        self._heard[beat.id] = now, beat
        for silent in [key for key, (at, _) in self._heard.items() if now - at > _SILENT]:
            del self._heard[silent]

    def alive(self) -> list[Beat]:
        """The last beat of every process that was heard within ten seconds."""
        since = self._clock.monotonic() - _SILENT
        return [beat for at, beat in self._heard.values() if at >= since]

    def refusals(self) -> Refusals:
        """The sums, and what a successor needs to go on with them."""
        return Refusals(dict(self._total), {k: v for k, v in self._counted.items() if v})
