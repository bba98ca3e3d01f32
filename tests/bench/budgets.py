"""Decisions on budgets: how many four ingresses make in a second while the governor leases to them,
how long one takes, and what it costs. No HTTP, and no calls behind the decisions."""

import asyncio
import random
import sys
import time
from array import array
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import uvloop

from compose.nats_server import NatsServer
from ingress.budgeting import Budgeting
from ingress.lease_client import LeaseClient
from ledger.connection import Connection
from schemas.access import Budget, BudgetScope, BudgetSettings, budget_of
from schemas.config import BusConfig, Config
from schemas.ids import Clock
from tests.bench.stats import Spread, spread
from tests.governed_bus import governing

INGRESSES = 4
TASKS = 50
SECONDS = 5.0
_WARM_UP = 1.0
_MOST = 1_000_000
_TOLD = 5_000
_SCOPES: tuple[tuple[BudgetScope, str], ...] = (
    ("project", "shop"),
    ("global", ""),
    ("team", "retail"),
    ("user", "ana"),
    ("key", "key_a"),
)


class Decisions(msgspec.Struct):
    """What was found with so many budgets at once: decisions in a second over all ingresses, how
    long one took, and processor time of an ingress for one, in ns."""

    budgets: int
    per_second: float
    times: Spread | None
    cpu_ns: float


class _Load(msgspec.Struct):
    """What one ingress is to do."""

    url: str
    budgets: tuple[Budget, ...]
    seed: int
    seconds: float


class _Done(msgspec.Struct):
    """What it did; `times` are in ns, of some of the decisions."""

    seconds: float
    cpu_ns: int
    count: int
    times: list[int]


def measure(directory: Path, seconds: float = SECONDS) -> list[Decisions]:
    """On one budget, then on five at once."""
    return [
        asyncio.run(_measured(directory / str(count), count, seconds))
        for count in (1, len(_SCOPES))
    ]


async def _measured(directory: Path, count: int, seconds: float) -> Decisions:
    terms = [
        BudgetSettings(scope=scope, id=id, period="month", limit_usd=1e9)
        for scope, id in _SCOPES[:count]
    ]
    budgets = tuple(budget_of(one.scope, one.id, one, 0) for one in terms)
    server = NatsServer(directory / "nats")
    server.start()
    try:
        async with AsyncExitStack() as stack:
            config = Config(budgets=tuple(terms))
            await stack.enter_async_context(governing(server, config=config))
            loads = [_Load(server.url, budgets, seed, seconds) for seed in range(INGRESSES)]
            done = await asyncio.gather(*map(_ingress, loads))
    finally:
        server.stop()
    return Decisions(
        budgets=count,
        per_second=sum(one.count / one.seconds for one in done),
        times=spread(nanoseconds for one in done for nanoseconds in one.times),
        cpu_ns=sum(one.cpu_ns for one in done) / sum(one.count for one in done),
    )


async def _ingress(load: _Load) -> _Done:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.bench.budgets",
        msgspec.json.encode(load).decode(),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"an ingress of the budgets' load ended with {process.returncode}")
    return msgspec.msgpack.decode(output, type=_Done)


async def _run(load: _Load) -> _Done:
    connection = await Connection.connect(BusConfig(url=load.url), name="ingress")
    clock = Clock()
    leases = LeaseClient(connection, clock)
    budgeting = Budgeting(leases, "UTC", clock, lambda _: None)
    alive = asyncio.create_task(leases.run())
    await _decide(budgeting, load, _WARM_UP)
    begun, cpu = time.monotonic(), time.process_time_ns()
    times = await _decide(budgeting, load, load.seconds)
    passed, used = time.monotonic() - begun, time.process_time_ns() - cpu
    some = times[:: max(1, len(times) // _TOLD)]
    done = _Done(passed, used, len(times), some)
    alive.cancel()
    await leases.close()
    await connection.close()
    return done


async def _decide(budgeting: Budgeting, load: _Load, seconds: float) -> list[int]:
    until = time.monotonic() + seconds
    chance = random.Random(load.seed)
    bounds = [chance.randint(1, _MOST) for _ in range(1024)]
    times = array("q")

    async def task(first: int) -> None:
        number = first
        while time.monotonic() < until:
            number += 1
            bound = bounds[number % len(bounds)]
            begun = time.perf_counter_ns()
            await budgeting.admit(load.budgets, bound, bound)
            times.append(time.perf_counter_ns() - begun)
            await asyncio.sleep(0)

    await asyncio.gather(*(task(first) for first in range(TASKS)))
    return times.tolist()


if __name__ == "__main__":
    _result = uvloop.run(_run(msgspec.json.decode(sys.argv[1], type=_Load)))
    sys.stdout.buffer.write(msgspec.msgpack.encode(_result))
