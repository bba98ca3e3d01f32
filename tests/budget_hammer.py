"""One ingress's share of a hammer: many tasks take money out of budgets until there is none left.

No HTTP: each call is admitted, recorded, and ended in the ledger at a random cost. Run as
`python -m tests.budget_hammer <Plan as JSON>`; prints a line when ready, begins at a line of its
input, and prints what it saw as JSON.
"""

import asyncio
import logging
import random
import sys
import time

import msgspec
import uvloop

from ingress.budgeting import Budgeting
from ingress.lease_client import LeaseClient, Pace
from ingress.purse import Taken
from ledger.connection import Connection
from ledger.log import Ledger
from ledger.publisher import Publisher, Unresolved
from schemas.access import Budget
from schemas.budget_events import BudgetExceeded
from schemas.config import BusConfig
from schemas.errors import RateLimited, Unavailable
from schemas.events import message_id_of_end
from schemas.ids import Clock
from tests import sample_events as sample

# Longer than a process of the test stands still.
_BUS_PATIENCE = 90.0
_START_PATIENCE = 4.0


class Plan(msgspec.Struct):
    """What one process does. A task ends once it was refused for `quiet` seconds, and nothing else;
    bounds are up to `most` nano-dollars, a call lasts up to `longest` seconds."""

    url: str
    budgets: tuple[Budget, ...]
    seed: int
    tasks: int = 50
    most: int = 1000
    longest: float = 0.02
    quiet: float = 1.0
    pace: tuple[float, ...] = tuple(Pace())


class Seen(msgspec.Struct):
    """What one process saw. `hasty` are refusals that name enough room for the call, `unsure` calls
    of which nobody knows whether their start was recorded."""

    admitted: int = 0
    refused: int = 0
    unavailable: int = 0
    unconfirmed: int = 0
    unsure: int = 0
    hasty: list[str] = []
    holders: int = 0


class Refusals(logging.Handler):
    """Reads the log line that every refusal has."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.hasty: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = vars(record)
        if record.getMessage() == "call refused by a budget":
            self.count += 1
            limit, value, needed = (
                round(line[name] * 1e9) for name in ("limit", "value", "needed")
            )
            if limit - value >= needed:
                self.hasty.append(f"{line['scope']}: {limit=} {value=} {needed=}")


class Hammer:
    """The tasks of one process."""

    def __init__(self, plan: Plan, connection: Connection) -> None:
        self._plan = plan
        self._clock = Clock()
        self._random = random.Random(plan.seed)
        publisher = Publisher(connection, self._clock)
        self._ingress = Ledger(publisher, "ingress")
        self._worker = Ledger(publisher, "worker")
        self._leases = LeaseClient(connection, self._clock, Pace(*plan.pace))
        self._budgeting = Budgeting(self._leases, "UTC", self._clock, self._tell)
        self._holders: set[str] = set()
        self._refusals = Refusals()
        log = logging.getLogger("nexus.ingress")
        log.addHandler(self._refusals)
        log.setLevel(logging.INFO)
        self.seen = Seen()

    async def run(self) -> Seen:
        alive = asyncio.create_task(self._leases.run())
        await asyncio.gather(*(self._task() for _ in range(self._plan.tasks)))
        alive.cancel()
        await self._leases.close()
        assert self.seen.refused == self._refusals.count, "every refusal has one line"
        self.seen.hasty = self._refusals.hasty
        self.seen.holders = len(self._holders)
        return self.seen

    async def _task(self) -> None:
        refused_since: float | None = None
        while refused_since is None or time.monotonic() - refused_since < self._plan.quiet:
            bound = self._random.randint(1, self._plan.most)
            try:
                taken = await self._budgeting.admit(self._plan.budgets, bound, bound)
            except RateLimited:
                self.seen.refused += 1
                refused_since = refused_since or time.monotonic()
                await asyncio.sleep(self._random.random() * 0.1)
            except Unavailable:
                self.seen.unavailable += 1
                refused_since = None
            else:
                refused_since = None
                await self._call(taken)

    async def _call(self, taken: Taken) -> None:
        self._holders.add(taken.holder)
        call_id = self._clock.new_id()
        start = sample.start(
            call_id,
            self._clock.now_ns(),
            event_id=self._clock.new_id(),
            accounts=taken.accounts,
            holder=taken.holder,
            hold_nano=taken.hold_nano,
        )
        try:
            await self._ingress.append(start, deadline=_START_PATIENCE)
        except Unresolved:
            self.seen.unsure += 1
            self._budgeting.doubt(taken)
            await self._reject(call_id, taken)
            return
        if not self._budgeting.confirm(taken):
            self.seen.unconfirmed += 1
            await self._reject(call_id, taken)
            return
        self.seen.admitted += 1
        await asyncio.sleep(self._random.random() * self._plan.longest)
        end = sample.complete(
            call_id,
            self._clock.now_ns(),
            event_id=self._clock.new_id(),
            accounts=taken.accounts,
            cost_nano=self._random.randint(0, taken.hold_nano),
        )
        await self._worker.append(end, message_id_of_end(call_id), deadline=_BUS_PATIENCE)

    async def _reject(self, call_id: str, taken: Taken) -> None:
        end = sample.rejected(
            call_id,
            self._clock.now_ns(),
            event_id=self._clock.new_id(),
            accounts=taken.accounts,
        )
        await self._ingress.append(end, message_id_of_end(call_id), deadline=_BUS_PATIENCE)

    def _tell(self, event: BudgetExceeded) -> None:
        self._ingress.append_nowait(event).add_done_callback(lambda done: done.exception())


async def main(plan: Plan) -> None:
    connection = await Connection.connect(BusConfig(url=plan.url), name="ingress")
    hammer = Hammer(plan, connection)
    await connection.flush()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    seen = await hammer.run()
    await connection.drain()
    print(msgspec.json.encode(seen).decode(), flush=True)


if __name__ == "__main__":
    uvloop.run(main(msgspec.json.decode(sys.argv[1], type=Plan)))
