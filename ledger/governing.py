"""The time in which one governor leads: from the lead it won until another one takes it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from ledger.access.feed import Feed
from ledger.access.registry import Registry
from ledger.access.snapshot import Snapshots
from ledger.budgets.desk import RECALLED_WITHIN, Desk
from ledger.budgets.legacy import Legacy
from ledger.budgets.lessor import Lessor
from ledger.budgets.rates import Rates
from ledger.budgets.recalls import Recalls
from ledger.closer import Closer
from ledger.connection import Connection
from ledger.fenced import Fenced
from ledger.fold import Fold
from ledger.leading import Deposed, Leadership
from ledger.publisher import Publisher, Refused
from schemas.budget_events import GovernorStarted
from schemas.ids import Clock, rfc3339

log = logging.getLogger("nexus.governor")

_SAVE_EVERY = 5.0


class Folding(Protocol):
    """The governor that may lead: its name, what it knows, and how it is kept."""

    id: str
    fold: Fold

    def save(self) -> Awaitable[None]: ...


class Reign:
    """Run `run()` as a task from start to end, then `end()`."""

    def __init__(
        self,
        connection: Connection,
        publisher: Publisher,
        governor: Folding,
        registry: Registry,
        feed: Feed,
        clock: Clock,
    ) -> None:
        self._connection = connection
        self._publisher = publisher
        self._governor = governor
        self._registry = registry
        self._feed = feed
        self._clock = clock
        self._leadership = Leadership(connection, publisher, governor.id, clock)
        self._ledger = Fenced(connection, publisher)
        self._began = False

    async def run(
        self, fatal: Callable[[str], None], zone: str, close_after: float, expire_after: float
    ) -> None:
        """Wait for the lead, then lead until cancelled; `fatal` when another one took it: what is
        known here may be wrong then, and whoever starts anew knows better."""
        try:
            await self._leadership.win()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._leadership.keep())
                await self._begin()
                tasks.create_task(self._keep_checkpoint())
                tasks.create_task(self._closer(close_after).run())
                tasks.create_task(self._snapshots().keep())
                await self._feed.wait_loaded()
                lessor = Lessor(self._desk(zone), lambda: self._leadership.holds, expire_after)
                tasks.create_task(lessor.run())
        except* Deposed as errors:
            self._began = False
            fatal(f"{_first(errors)}; started anew, this one stands by")

    async def end(self) -> None:
        """Save, and let a standby lead at once."""
        if self._began:
            await self._governor.save()
        if self._leadership.holds:
            await self._leadership.resign()

    async def _begin(self) -> None:
        """End the time of all governors before, and know all that they have appended."""
        event = GovernorStarted(
            event_id=self._clock.new_id(),
            time=rfc3339(self._clock.now_ns()),
            v=1,
            governor=self._governor.id,
        )
        try:
            await self._ledger.begin(event, lambda: self._leadership.holds)
        except Refused as error:
            raise Deposed(f"the ledger refused the governor: {error}") from error
        await self._governor.fold.reach(self._ledger.began)
        self._began = True
        log.info("governor leads", extra={"seq": self._ledger.began})

    async def _keep_checkpoint(self) -> None:
        while True:
            await asyncio.sleep(_SAVE_EVERY)
            await self._governor.save()

    def _closer(self, close_after: float) -> Closer:
        return Closer(self._connection, self._ledger, self._governor.fold, close_after, self._clock)

    def _snapshots(self) -> Snapshots:
        return Snapshots(self._connection, self._publisher, self._registry, self._clock)

    def _desk(self, zone: str) -> Desk:
        fold = self._governor.fold
        legacy = Legacy(fold.recent, fold.open_calls, fold.seq, self._clock.now_ns())
        return Desk(
            connection=self._connection,
            ledger=self._ledger,
            fold=fold,
            catalog=self._registry,
            rates=Rates(legacy),
            recalls=Recalls(self._connection, self._clock, RECALLED_WITHIN),
            clock=self._clock,
            zone=zone,
        )


def _first(errors: BaseExceptionGroup[Deposed]) -> BaseException:
    first: BaseException = errors
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first
