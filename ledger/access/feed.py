"""Keeps a process's key registry equal to the ledger's access events, for as long as it runs."""

import asyncio
import logging

from ledger.access import snapshot
from ledger.access.registry import Registry
from ledger.connection import Connection, Message
from ledger.reader import Stored, Unreadable, read_last, read_subject
from schemas import subjects
from schemas.ids import Clock

log = logging.getLogger("nexus.access")

_LOOK_EVERY = 0.4
_FRESH_FOR = 2.0
_FOLDED_AT_ONCE = 256
_DOUBT_FOR = 1.0
_FAILED_LOOKS = 5
_ONE_WITHIN = 0.5


class _Lost(Exception):
    """The event that was read last is not in the ledger."""


class Feed:
    """Run `run()` as a task from start to end; the registry stays the same object for its users.

    `loaded`: the registry was complete at least once. Without the bus it stays as it is, and
    `fresh` says that it may be behind.
    """

    def __init__(self, connection: Connection, registry: Registry, clock: Clock) -> None:
        self._connection = connection
        self._registry = registry
        self._clock = clock
        self._to_load = True
        self._read_to_end_at: float | None = None
        self._doubt_since: float | None = None
        self._failed_looks = 0
        self._asking: asyncio.Timeout | None = None
        self._complete = asyncio.Event()
        self._news = asyncio.Event()
        self._grown = asyncio.Condition()

    @property
    def loaded(self) -> bool:
        return self._complete.is_set()

    @property
    def fresh(self) -> bool:
        """Whether the ledger was read to its end less than two seconds ago."""
        read_at = self._read_to_end_at
        return read_at is not None and self._clock.monotonic() - read_at < _FRESH_FOR

    async def wait_loaded(self) -> None:
        """Return once the registry is complete; without the bus that may take for ever."""
        await self._complete.wait()

    async def reach(self, seq: int, timeout: float = 1.0) -> bool:
        """Wait until the registry has the event at `seq`; False if it does not within `timeout`."""
        self._news.set()
        try:
            async with asyncio.timeout(timeout), self._grown:
                await self._grown.wait_for(lambda: self._registry.seq >= seq)
        except TimeoutError:
            return False
        return True

    async def next_after(self, seq: int) -> Stored | None:
        """The access event that follows the one at `seq`, from the ledger. Raises Unreadable."""
        found = await read_subject(
            self._connection,
            subjects.LEDGER,
            subjects.LEDGER_ACCESS,
            from_seq=seq + 1,
            limit=1,
            timeout=_ONE_WITHIN,
        )
        return found[0] if found else None

    async def run(self) -> None:
        """Load what the ledger holds and stay up to date; runs until cancelled.

        News on the bus only wake it: what is true is what the ledger holds, and that is looked at
        after every piece of news, after every reconnect and every 400 ms.
        """
        self._connection.on_reconnect(self._on_reconnect)
        subscription = self._connection.subscribe(subjects.LIVE_ACCESS, self._on_news)
        try:
            while True:
                self._news.clear()
                await self._look()
                try:
                    async with asyncio.timeout(_LOOK_EVERY):
                        await self._news.wait()
                except TimeoutError:
                    continue
        finally:
            subscription.unsubscribe()

    def _on_news(self, _: Message) -> None:
        self._news.set()

    def _on_reconnect(self) -> None:
        """What was asked before is not answered any more."""
        self._news.set()
        if self._asking is not None and not self._asking.expired():
            self._asking.reschedule(asyncio.get_running_loop().time())

    async def _look(self) -> None:
        """Bring the registry up to date, if the bus answers."""
        began = self._clock.monotonic()
        try:
            async with asyncio.timeout(None) as self._asking:
                if self._to_load:
                    await self._load()
                else:
                    await self._read_news()
        except (Unreadable, TimeoutError) as error:
            self._failed_looks += 1
            if self._failed_looks == _FAILED_LOOKS:
                log.warning("key registry not up to date", extra={"reason": str(error)})
            return
        except _Lost:
            self._doubt(began)
            return
        finally:
            self._asking = None
        if self._failed_looks >= _FAILED_LOOKS:
            log.info("key registry up to date again", extra={"seq": self._registry.seq})
        self._failed_looks = 0
        self._doubt_since = None
        self._read_to_end_at = began
        self._complete.set()
        async with self._grown:
            self._grown.notify_all()

    def _doubt(self, now: float) -> None:
        """A replica that is behind looks like a ledger without its end for a moment: look again."""
        if self._doubt_since is None:
            self._doubt_since = now
        elif now - self._doubt_since >= _DOUBT_FOR:
            log.error("ledger.truncated", extra={"registry_seq": self._registry.seq})
            self._doubt_since = None
            self._to_load = True
            self._news.set()

    async def _load(self) -> None:
        """Fold everything anew, beside the registry in use, and then let it have all at once."""
        fresh = Registry(self._registry.configured)
        if not await snapshot.load(self._connection, fresh):
            fresh = Registry(self._registry.configured)
        await self._read_on(fresh)
        self._registry.become(fresh)
        self._to_load = False

    async def _read_news(self) -> None:
        last = await read_last(self._connection, subjects.LEDGER, subjects.LEDGER_ACCESS)
        if last is not None and last.seq > self._registry.seq:
            await self._read_on(self._registry)
        elif not (self._registry.ends_with(last) if last else self._registry.seq == 0):
            raise _Lost

    async def _read_on(self, registry: Registry) -> None:
        """Fold what follows the registry's last event; that one is read again, to see that it is
        still the same."""
        while True:
            records = await read_subject(
                self._connection,
                subjects.LEDGER,
                subjects.LEDGER_ACCESS,
                from_seq=max(registry.seq, 1),
                limit=_FOLDED_AT_ONCE,
            )
            if registry.seq and not (records and registry.ends_with(records[0])):
                raise _Lost
            for record in records:
                if record.seq > registry.seq:
                    registry.take(record)
            if len(records) < _FOLDED_AT_ONCE:
                return
