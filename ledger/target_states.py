"""Which targets are left alone: what the ledger says of their circuits, heard by whoever asks."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator

from ledger.connection import Connection, Message
from ledger.reader import Stored, Unreadable, read_subject
from schemas import subjects
from schemas.events import decode_event
from schemas.ids import Clock, rfc3339
from schemas.target_events import TargetState

log = logging.getLogger("nexus.ledger")

_REMEMBERED_NS = 3600 * 1_000_000_000
_MOST = 4096
_LOOK_EVERY = 5.0
_LOOK_AGAIN = 0.25

Key = tuple[str, str]


class TargetStates:
    """A fold of `provider.state`: the last one of each circuit stands.

    A circuit is named by provider and engine; with an empty engine it is that of all the provider's
    targets.
    """

    def __init__(self, known: Iterable[TargetState] = ()) -> None:
        self._last: dict[Key, TargetState] = {}
        self._troubled: dict[Key, TargetState] = {}
        for event in known:
            self.fold(event)

    def __iter__(self) -> Iterator[TargetState]:
        """Every circuit that is known of, closed ones too."""
        return iter(self._last.values())

    @property
    def all_closed(self) -> bool:
        return not self._troubled

    def fold(self, event: TargetState) -> None:
        """Take the next event, in the ledger's order."""
        key = event.provider, event.engine
        self._last.pop(key, None)
        self._last[key] = event
        if event.state == "closed":
            self._troubled.pop(key, None)
        else:
            self._troubled[key] = event
        if len(self._last) > _MOST:
            oldest = next(iter(self._last))
            del self._last[oldest]
            self._troubled.pop(oldest, None)

    def of(self, provider: str, engine: str) -> tuple[TargetState, ...]:
        """The circuits of a target that are not closed, its provider's first: none, one or two."""
        if not self._troubled:
            return ()
        found = (self._troubled.get((provider, "")), self._troubled.get((provider, engine)))
        return tuple(state for state in found if state is not None)

    def clear(self) -> None:
        self._last.clear()
        self._troubled.clear()


class StateFeed:
    """Keeps TargetStates equal to the ledger: run `run()` as a task from start to end.

    News on the bus only wake it; what is true is what the ledger holds. That is looked at after
    every piece of news and every five seconds, and from the last hour on at the start and after a
    reconnect: an older circuit counts as closed. `on_change` is called after each change.
    """

    def __init__(
        self,
        connection: Connection,
        states: TargetStates,
        clock: Clock,
        on_change: Callable[[], None] | None = None,
    ) -> None:
        self._connection = connection
        self._states = states
        self._clock = clock
        self._on_change = on_change
        self._next_seq = 0
        self._since = ""
        self._news = asyncio.Event()
        self._loaded = asyncio.Event()

    async def wait_loaded(self, within: float) -> bool:
        """Whether the ledger's states are known, or become so `within` so many seconds."""
        try:
            async with asyncio.timeout(within):
                await self._loaded.wait()
        except TimeoutError:
            return False
        return True

    async def run(self) -> None:
        """Load what the ledger holds and stay up to date; runs until cancelled."""
        self._connection.on_reconnect(self._on_reconnect)
        subscription = self._connection.subscribe(subjects.LIVE_STATES, self._on_news)
        try:
            while True:
                self._news.clear()
                pause = _LOOK_EVERY
                try:
                    await self._look()
                except Unreadable:
                    pause = _LOOK_AGAIN
                try:
                    async with asyncio.timeout(pause):
                        await self._news.wait()
                except TimeoutError:
                    continue
        finally:
            subscription.unsubscribe()

    def _on_news(self, _: Message) -> None:
        self._news.set()

    def _on_reconnect(self) -> None:
        """The ledger may have lost its end, and what was asked before is not answered any more."""
        self._next_seq = 0
        self._since = ""
        self._news.set()

    async def _look(self) -> None:
        begin = self._next_seq
        if not begin:
            self._since = self._since or rfc3339(self._clock.now_ns() - _REMEMBERED_NS)
        records = await read_subject(
            self._connection,
            subjects.LEDGER,
            subjects.LEDGER_STATES,
            from_seq=begin,
            since="" if begin else self._since,
            timeout=1.0,
        )
        if self._next_seq != begin:
            return
        if not begin:
            self._states.clear()
        for record in records:
            self._take(record)
            self._next_seq = record.seq + 1
        if self._on_change is not None and (records or not self._loaded.is_set()):
            self._on_change()
        self._loaded.set()

    def _take(self, record: Stored) -> None:
        try:
            event = decode_event(record.data)
        except ValueError:
            event = None
        if isinstance(event, TargetState):
            self._states.fold(event)
        else:
            log.warning("state of a target not readable", extra={"seq": record.seq})
