"""Four ingresses spend one limit to its end, through restarts and pauses: nothing is overspent, and
nothing is left that could have been spent.

NEXUS_TEST_HAMMER is how many calls the long version makes in each case, about.
"""

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import msgspec
import pytest

from compose.nats_server import NatsServer
from ingress.lease_client import Pace
from ledger.budgets.messages import StateAsk, decode_states, encode
from ledger.log import last_sequence
from schemas import subjects
from schemas.access import BudgetScope, BudgetSettings, budget_of
from schemas.budget_events import LeaseExpired
from schemas.config import Config
from schemas.events import Outcome, Terminal
from tests.budget_hammer import Plan, Seen
from tests.governed_bus import Bus, Role, bus_at, governing, until

PROCESSES = 4
MOST = 1_000_000
QUICK_CALLS = 2_000
SLOW_CALLS = int(os.environ.get("NEXUS_TEST_HAMMER", "0"))
ONE_SCOPE: tuple[tuple[BudgetScope, str], ...] = (("project", "shop"),)
FIVE_SCOPES: tuple[tuple[BudgetScope, str], ...] = (
    ("global", ""),
    ("team", "retail"),
    ("project", "shop"),
    ("user", "ana"),
    ("key", "key_a"),
)
# For the process that is paused: it is silent for longer than it is trusted.
HASTY = Pace(pulse=0.2, trust=0.6, answer=0.2, idle=0.5)
HASTY_EXPIRY = 2.0

Scopes = Sequence[tuple[BudgetScope, str]]
Trouble = Callable[["Stage"], Awaitable[None]]


class Stage(NamedTuple):
    """What trouble can be made with."""

    server: NatsServer
    governors: list[Role]
    ingresses: list[asyncio.subprocess.Process]
    bus: Bus


async def hammer(
    server: NatsServer,
    scopes: Scopes,
    calls: int,
    trouble: Trouble | None = None,
    *,
    pace: Pace = Pace(),  # noqa: B008
    expire_after: float = 20.0,
    standbys: int = 0,
) -> None:
    """Spend the limit, while there is trouble, and check all that was promised."""
    limit = calls * MOST // 4
    terms = [
        BudgetSettings(scope=scope, id=id, period="total", limit_usd=limit / 1e9)
        for scope, id in scopes
    ]
    config = Config(budgets=tuple(terms))
    async with AsyncExitStack() as stack:
        governors = [
            await stack.enter_async_context(
                governing(server, close_after=90.0, config=config, expire_after=expire_after)
            )
            for _ in range(1 + standbys)
        ]
        budgets = tuple(budget_of(one.scope, one.id, one, 0) for one in terms)
        ingresses = [
            await stack.enter_async_context(
                ingress(Plan(server.url, budgets, seed, most=MOST, pace=tuple(pace)))
            )
            for seed in range(PROCESSES)
        ]
        bus = await stack.enter_async_context(bus_at(server.url))
        for process in ingresses:
            tell(process, "go")
        if trouble is not None:
            await trouble(Stage(server, governors, ingresses, bus))
        seen = [msgspec.json.decode(await heard(process), type=Seen) for process in ingresses]
        await check(bus, limit, len(scopes), seen)


@asynccontextmanager
async def ingress(plan: Plan) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.budget_hammer",
        msgspec.json.encode(plan).decode(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert await heard(process) == b"ready\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def tell(process: asyncio.subprocess.Process, word: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{word}\n".encode())


async def heard(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None
    return await process.stdout.readline()


async def check(bus: Bus, limit: int, scopes: int, seen: Sequence[Seen]) -> None:
    """Nothing overspent, 99 % used, no refusal while there was room, nothing left held."""
    spent: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    for event in await bus.events():
        if isinstance(event, Outcome):
            for account in event.accounts:
                spent[account] += event.cost_nano or 0
        if isinstance(event, Terminal):
            ends[event.call_id] += 1
    print(f"{sum(ends.values())} calls, {max(spent.values()) / limit:.4%} used, {seen}")
    assert len(spent) == scopes
    assert set(ends.values()) == {1}
    assert all(limit * 99 // 100 <= nano <= limit for nano in spent.values())
    assert [one for process in seen for one in process.hasty] == []
    assert sum(process.refused for process in seen) > 0

    async def all_returned() -> bool:
        answer = await bus.connection.request(subjects.GOVERNOR_BUDGETS, encode(StateAsk()))
        states = decode_states(answer.data).budgets
        known = {state.account: state.spent_nano for state in states}
        return known == dict(spent) and not any(state.held_nano for state in states)

    await until(all_returned, 30.0)


async def progress(bus: Bus, calls: int) -> None:
    """Until so many calls have ended, about."""

    async def reached() -> bool:
        return await last_sequence(bus.connection) >= 2 * calls

    await until(reached, 60.0)


async def expired(bus: Bus) -> bool:
    return any(isinstance(event, LeaseExpired) for event in await bus.events())


async def all_spent(bus: Bus) -> None:
    """Until nothing is spent any more."""
    before = -1

    async def stands_still() -> bool:
        nonlocal before
        await asyncio.sleep(0.4)
        before, last = await ended_calls(bus), before
        return before == last

    await until(stands_still, 300.0)


async def ended_calls(bus: Bus) -> int:
    return sum(isinstance(event, Terminal) for event in await bus.events())


def cases(*, quick: int = QUICK_CALLS) -> list[Any]:
    """The number of calls: a quick one, and a long one behind the mark `slow`."""
    long = [
        pytest.mark.slow,
        pytest.mark.skipif(not SLOW_CALLS, reason="NEXUS_TEST_HAMMER says how many calls"),
        pytest.mark.timeout(120 + SLOW_CALLS // 50),
    ]
    return [quick, pytest.param(SLOW_CALLS, marks=long)]


@pytest.mark.parametrize("scopes", [ONE_SCOPE, FIVE_SCOPES], ids=["one scope", "five scopes"])
@pytest.mark.parametrize("calls", cases())
async def test_four_ingresses_spend_a_limit_to_its_end_and_not_more(
    nats_server: NatsServer, scopes: Scopes, calls: int
) -> None:
    await hammer(nats_server, scopes, calls)


@pytest.mark.parametrize("calls", cases())
async def test_the_same_while_the_bus_is_restarted(nats_server: NatsServer, calls: int) -> None:
    async def trouble(stage: Stage) -> None:
        await progress(stage.bus, calls // 3)
        stage.server.kill()
        await asyncio.sleep(0.5)
        stage.server.start()

    await hammer(nats_server, FIVE_SCOPES, calls, trouble)


@pytest.mark.parametrize("calls", cases())
async def test_the_same_while_the_governor_is_killed(nats_server: NatsServer, calls: int) -> None:
    async def trouble(stage: Stage) -> None:
        await progress(stage.bus, calls // 3)
        await stage.governors[0].ends_with(signal.SIGKILL)

    await hammer(nats_server, FIVE_SCOPES, calls, trouble, standbys=1)


@pytest.mark.parametrize("calls", cases())
async def test_the_same_while_an_ingress_is_paused_and_woken(
    nats_server: NatsServer, calls: int
) -> None:
    """Its leases expire while it sleeps, and others spend them: it may not spend them again."""

    async def trouble(stage: Stage) -> None:
        await progress(stage.bus, calls // 4)
        stage.ingresses[0].send_signal(signal.SIGSTOP)
        try:
            await until(lambda: expired(stage.bus), 20.0)
            await all_spent(stage.bus)
        finally:
            stage.ingresses[0].send_signal(signal.SIGCONT)

    await hammer(nats_server, FIVE_SCOPES, calls, trouble, pace=HASTY, expire_after=HASTY_EXPIRY)


@pytest.mark.parametrize("calls", cases()[1:])
@pytest.mark.parametrize("scopes", [ONE_SCOPE, FIVE_SCOPES], ids=["one scope", "five scopes"])
async def test_the_same_while_an_ingress_is_paused_for_half_a_minute(
    nats_server: NatsServer, scopes: Scopes, calls: int
) -> None:
    """With the times that hold in life: trusted for 6 s, expired after 20 s."""

    async def trouble(stage: Stage) -> None:
        await progress(stage.bus, calls // 4)
        stage.ingresses[0].send_signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(30.0)
        finally:
            stage.ingresses[0].send_signal(signal.SIGCONT)
        assert await expired(stage.bus)

    await hammer(nats_server, scopes, calls, trouble)
