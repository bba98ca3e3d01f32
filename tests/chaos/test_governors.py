"""What becomes of leases when governors die, sleep and wake, and when the bus dies under them."""

import asyncio
import hashlib
import itertools
import os
import random
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
import pytest

from compose.nats_server import NatsServer
from ledger import checkpoint
from ledger.budgets.book import Book
from ledger.checkpoint import Checkpoint
from ledger.connection import Connection
from ledger.fenced import Fenced
from ledger.fold import Fold
from ledger.leading import Deposed
from ledger.log import Ledger, last_sequence
from ledger.publisher import Publisher
from ledger.reader import read_subject
from schemas import subjects
from schemas.access import BudgetSettings
from schemas.budget_events import GovernorStarted, LeaseExpired
from schemas.config import BusConfig, Config
from schemas.ids import Clock
from tests import sample_events as sample
from tests.governed_bus import Bus, bus_at, governing, until
from tests.leasing import Tenant, plain, start_fields

SHOP = "project:shop:total"
SHOP_0 = f"{SHOP}@all.0"
LIMIT = 20_000_000
CONFIG = Config(
    budgets=(BudgetSettings(scope="project", id="shop", period="total", limit_usd=0.02),)
)


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[Bus]:
    async with bus_at(nats_url) as bus:
        yield bus


class Load:
    """Ingresses that lease, start and end calls, and give back, until they are told to stop."""

    def __init__(self, tenants: list[Tenant]) -> None:
        self.granted = 0
        self.answered_at = time.monotonic()
        self.longest_pause = 0.0
        self._stopped = False
        self._dice = random.Random(11)
        self._calls = itertools.count()
        self._clients = [
            asyncio.create_task(self._client(tenant, Ledger(publisher, "ingress"), worker))
            for tenant in tenants
            for publisher in [Publisher(tenant.connection)]
            for worker in [Ledger(publisher, "worker")]
            for _ in range(10)
        ]

    async def stop(self) -> None:
        self._stopped = True
        await asyncio.gather(*self._clients)

    async def _client(self, tenant: Tenant, ingress: Ledger, worker: Ledger) -> None:
        while not self._stopped:
            answer = await tenant.need(self._dice.randint(1_000, 90_000), SHOP)
            now = time.monotonic()
            self.longest_pause = max(self.longest_pause, now - self.answered_at)
            self.answered_at = now
            if answer.shortage is not None:
                await asyncio.sleep(0.05)
                continue
            assert not answer.stranger
            self.granted += 1
            amount = answer.leases[0].amount
            hold = self._dice.randint(1, amount)
            call_id = f"call-{next(self._calls)}"
            fields = start_fields(tenant.holder, hold, SHOP_0)
            await ingress.append(sample.start(call_id, time.time_ns(), **fields))
            await tenant.give_back(SHOP_0, amount - hold)
            await asyncio.sleep(self._dice.random() * 0.02)
            # So little that the budget outlasts every test.
            cost = self._dice.randint(0, hold // 256)
            await worker.append(sample.complete(call_id, cost_nano=cost, accounts=(SHOP_0,)))


@asynccontextmanager
async def loaded(server: NatsServer) -> AsyncIterator[Load]:
    """A load from connections of its own; at the end it has come to a stop."""
    async with AsyncExitStack() as stack:
        tenants: list[Tenant] = []
        for number in range(3):
            connection = await Connection.connect(BusConfig(url=server.url), name="ingress")
            stack.push_async_callback(connection.close)
            tenants.append(Tenant(connection, f"ingress-{number}"))
        load = Load(tenants)
        yield load
        await load.stop()


async def grows(load: Load, by: int = 50) -> None:
    """Returns when so many more grants were given."""
    aim = load.granted + by

    async def reached() -> bool:
        return load.granted >= aim

    await until(reached, 30)


async def agree(bus: Bus) -> None:
    """What the governor says is what the ledger sums up to, and that was never too much."""
    tenant = Tenant(bus.connection, "auditor")
    sums = plain(await bus.events())
    state = await tenant.state(SHOP)
    assert (state.spent_nano, state.held_nano) == (sums.settled[SHOP_0], sums.leased(SHOP_0))
    assert all(nano >= 0 for nano in sums.free.values())
    assert sums.highest[SHOP_0] <= LIMIT


def digest(book: Book) -> str:
    """Of all but the time when old accounts were dropped last, which is no fold of the ledger."""
    state = msgspec.structs.replace(book.snapshot(), forgotten_ns=0)
    return hashlib.sha256(msgspec.msgpack.encode(state)).hexdigest()


async def folded(bus: Bus, start: Checkpoint, until_seq: int) -> Fold:
    fold = Fold(start)
    for record in await read_subject(
        bus.connection, subjects.LEDGER, ">", from_seq=start.fold_from
    ):
        if record.seq <= until_seq:
            fold.take(record)
    return fold


async def test_a_standby_takes_over_from_a_killed_governor_without_losing_a_grant(
    bus: Bus, nats_server: NatsServer
) -> None:
    async with governing(nats_server, config=CONFIG) as first:
        async with loaded(nats_server) as load:
            await grows(load)
            async with governing(nats_server, config=CONFIG):
                await first.ends_with(signal.SIGKILL)
                await grows(load)
                await load.stop()
                await agree(bus)
        print(f"longest pause {load.longest_pause:.2f} s")
        started = [one for one in await bus.events() if isinstance(one, GovernorStarted)]
        assert len(started) == 2


async def test_a_governor_that_was_paused_appends_nothing_when_it_wakes(
    bus: Bus, nats_server: NatsServer
) -> None:
    async with governing(nats_server, config=CONFIG) as first, loaded(nats_server) as load:
        await grows(load)
        async with governing(nats_server, config=CONFIG) as second:
            first.send(signal.SIGSTOP)
            await grows(load)
            second.send(signal.SIGSTOP)
            first.send(signal.SIGCONT)
            assert await first.ends() == 1
            second.send(signal.SIGCONT)
            await grows(load)
            await load.stop()
            await agree(bus)
            started = [one for one in await bus.events() if isinstance(one, GovernorStarted)]
            assert len(started) == 2


async def test_an_append_behind_the_fence_of_another_governor_fails(bus: Bus) -> None:
    clock = Clock()
    zombie, successor = (Fenced(bus.connection, bus.publisher) for _ in range(2))

    def started(name: str) -> GovernorStarted:
        return GovernorStarted(event_id=clock.new_id(), time="", v=1, governor=name)

    def expired(holder: str) -> LeaseExpired:
        return LeaseExpired(event_id=clock.new_id(), time="", v=1, holder=holder)

    await zombie.begin(started("zombie"), lambda: True)
    assert await zombie.append(expired("a")) == 2
    await successor.begin(started("successor"), lambda: True)
    with pytest.raises(Deposed):
        await zombie.append(expired("b"))
    assert await successor.append(expired("c")) == 4
    # What is in the ledger although its ack was lost is found there, by whoever sends it again.
    event = expired("d")
    assert await bus.append(event) == 5
    assert await successor.append(event) == 5
    assert await successor.append(expired("e")) == 6
    assert await successor.append(expired("f"), message_id=event.event_id) is None
    assert await successor.append(expired("g")) == 7


async def test_leases_go_on_when_the_bus_was_killed_under_load(
    bus: Bus, nats_server: NatsServer
) -> None:
    async with (
        governing(nats_server, config=CONFIG),
        governing(nats_server, config=CONFIG),
        loaded(nats_server) as load,
    ):
        for away in (0.0, 0.5, 3.0):
            await grows(load)
            nats_server.kill()
            await asyncio.sleep(away)
            nats_server.start()
        await grows(load)
        await load.stop()
        await agree(bus)


@pytest.mark.timeout(600)
async def test_after_kills_at_any_moment_the_state_is_that_of_the_whole_ledger(
    bus: Bus, nats_server: NatsServer
) -> None:
    """As many kills as NEXUS_TEST_KILLS says, a few by default: by these dice the first governor
    is killed when it has kept a checkpoint, the second before, and the third is asked to end."""
    rounds = int(os.environ.get("NEXUS_TEST_KILLS", "3"))
    dice = random.Random(179)
    async with loaded(nats_server) as load, AsyncExitStack() as stack:
        for _ in range(rounds):
            role = await stack.enter_async_context(governing(nats_server, config=CONFIG))
            await grows(load, 20)
            await asyncio.sleep(dice.uniform(0, 6.0))
            await role.ends_with(dice.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)))
        await stack.enter_async_context(governing(nats_server, config=CONFIG))
        await load.stop()
        await agree(bus)
        kept = await checkpoint.load(bus.connection)
        assert kept.seq > 0
        # The governor goes on meanwhile: holders that are gone expire.
        last = await last_sequence(bus.connection)
        whole, resumed = await folded(bus, Checkpoint(), last), await folded(bus, kept, last)
        assert digest(whole.book) == digest(resumed.book)
        assert whole.alerts.snapshot() == resumed.alerts.snapshot()
