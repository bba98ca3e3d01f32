"""A bus with a lessor, and ingresses that ask it for leases on budgets."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from ingress.budgeting import Budgeting
from ingress.lease_client import LeaseClient, Pace
from ingress.purse import Taken
from ledger.connection import Connection
from schemas.access import Budget, BudgetScope, Period
from schemas.budget_events import BudgetExceeded
from schemas.config import BusConfig
from schemas.errors import RateLimited
from schemas.ids import Clock
from tests import sample_events as sample
from tests.governed_bus import until
from tests.lessor import Lessor

PACE = Pace(pulse=0.1, trust=0.6, answer=0.1, idle=0.3, closed=0.2)
CLOCK = Clock()
ACCOUNT = "project:shop:total@all.0"


def budget(
    limit: int = 1000,
    scope: BudgetScope = "project",
    id: str = "shop",
    period: Period = "total",
    hard: bool = True,
) -> Budget:
    return Budget(scope=scope, id=id, period=period, limit_nano=limit, hard_stop=hard)


class Ingress:
    """One ingress's budgets, with the events it would append."""

    def __init__(self, connection: Connection, pace: Pace, clock: Clock) -> None:
        self.leases = LeaseClient(connection, clock, pace)
        self.events: list[BudgetExceeded] = []
        self.budgeting = Budgeting(self.leases, "UTC", clock, self.events.append)

    async def admit(self, *budgets: Budget, bound: int, patience: float = 1.0) -> Taken:
        return await self.budgeting.admit(budgets, bound, bound // 2, patience)

    async def refused(self, *budgets: Budget, bound: int, call_id: str = "") -> RateLimited:
        with pytest.raises(RateLimited) as caught:
            await self.budgeting.admit(budgets, bound, bound // 2, call_id=call_id)
        return caught.value


class Stage:
    """A bus with a lessor, and as many ingresses as a test begins."""

    def __init__(self, url: str, lessor: Lessor) -> None:
        self._url = url
        self.lessor = lessor

    @asynccontextmanager
    async def ingress(
        self,
        pace: Pace = PACE,
        clock: Clock = CLOCK,
        runs: bool = True,
    ) -> AsyncIterator[Ingress]:
        connection = await Connection.connect(BusConfig(url=self._url), name="ingress")
        ingress = Ingress(connection, pace, clock)
        work = asyncio.create_task(ingress.leases.run()) if runs else None
        await connection.flush()
        try:
            yield ingress
        finally:
            if work is not None:
                work.cancel()
            await ingress.leases.close()
            await connection.close()

    async def soon(self, condition: Callable[[], bool]) -> None:
        async def holds() -> bool:
            return condition()

        await until(holds, 5.0)

    def start(self, taken: Taken, call_id: str) -> None:
        """The ledger has heard of a call."""
        fields = {"holder": taken.holder, "hold_nano": taken.hold_nano}
        self.lessor.fold(sample.start(call_id, accounts=taken.accounts, **fields))

    def end(self, taken: Taken, call_id: str, cost: int) -> None:
        self.lessor.fold(sample.complete(call_id, accounts=taken.accounts, cost_nano=cost))
