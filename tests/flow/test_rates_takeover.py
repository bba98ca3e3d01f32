"""Rates over the death of a governor, with a real bus, two governors and the ingresses' own clients
between: what was used stays used."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import Any

import pytest

from compose.nats_server import NatsServer
from ingress.auth import Principal
from ingress.lease_client import LeaseClient
from ingress.limits import Applying
from ingress.rating import Passed, Rating
from ledger import checkpoint
from ledger.access.registry import Registry
from ledger.beats import Beats
from ledger.budgets.recent import Recent
from ledger.budgets.trails import unpack
from ledger.checkpoint import Checkpoint, digest_of
from ledger.connection import Connection
from ledger.reader import read_at
from schemas import subjects
from schemas.access import Limits
from schemas.budget_events import GovernorStarted
from schemas.call import Tenant
from schemas.config import BusConfig, Config
from schemas.errors import RateLimited
from schemas.ids import Clock
from tests import sample_events as sample
from tests.governed_bus import Bus, bus_at, governing, running, until

HOUR = 3600
_names = (f"call-{number}" for number in count())


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[Bus]:
    async with bus_at(nats_url) as bus:
        yield bus


class Ingress:
    """Its rates, and the starts and ends that its calls leave in the ledger."""

    def __init__(self, bus: Bus, connection: Connection, limits: Limits) -> None:
        self.leases = LeaseClient(connection, Clock())
        self.rating = Rating(Applying(Config(), Registry()), self.leases, Clock())
        self._bus = bus
        self._principal = Principal(Tenant(key_id="key_a"), limits=limits)

    async def begin(self) -> tuple[str, Passed]:
        """Raises RateLimited."""
        principal = self._principal
        passed = await self.rating.admit(principal, principal.tenant, "m", 1, 2**62)
        name = next(_names)
        await self._bus.append(sample.start(name, time.time_ns()))
        return name, passed

    async def end(self, name: str, passed: Passed) -> None:
        await self._bus.append(sample.complete(name, time.time_ns()))
        passed.release(1)

    async def uses_up(self) -> int:
        """How many calls pass before one is refused."""
        for passed in count():
            try:
                await self.begin()
            except RateLimited:
                return passed
        raise AssertionError

    async def refused(self) -> RateLimited:
        with pytest.raises(RateLimited) as refusal:
            await self.begin()
        return refusal.value


@asynccontextmanager
async def ingresses(bus: Bus, url: str, limits: Limits) -> AsyncIterator[list[Ingress]]:
    async with AsyncExitStack() as stack:
        found = []
        for number in range(2):
            config = BusConfig(url=url)
            connection = await Connection.connect(config, name=f"ingress-{number}")
            stack.push_async_callback(connection.close)
            one = Ingress(bus, connection, limits)
            await stack.enter_async_context(running(one.leases.run()))
            found.append(one)
        yield found
        assert all(one.rating.let_through == 0 for one in found)


async def reigns(bus: Bus, number: int) -> None:
    """Wait until so many governors have led."""

    async def led() -> bool:
        events = await bus.events()
        return sum(isinstance(event, GovernorStarted) for event in events) == number

    await until(led)


async def test_an_hour_that_is_used_up_stays_so_whoever_governs(
    bus: Bus, nats_server: NatsServer
) -> None:
    limits = Limits(requests_per_hour=600)
    begun = time.time()
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(governing(nats_server))
        await bus.governed()
        second = await stack.enter_async_context(governing(nats_server))
        both = await stack.enter_async_context(ingresses(bus, nats_server.url, limits))
        used = 0
        while used < 600:
            used += sum(await asyncio.gather(*(one.uses_up() for one in both)))
        assert used == 600
        for reign, end in enumerate((first, second), 2):
            how = signal.SIGKILL if end is first else signal.SIGTERM
            await end.ends_with(how)
            if end is second:
                await stack.enter_async_context(governing(nats_server))
            await reigns(bus, reign)
            for one in both:
                refusal = await one.refused()
                told = refusal.info.extra_headers
                assert told["X-RateLimit-Limit-Requests"] == "600"
                assert told["X-RateLimit-Remaining-Requests"] == "0"
                reset = int(told["X-RateLimit-Reset-Requests"])
                assert begun + HOUR <= reset <= time.time() + HOUR + 120
                assert "retry-after" in {name.lower() for name in refusal.info.headers()}


async def test_an_hour_with_room_has_that_room_for_the_next_governor(
    bus: Bus, nats_server: NatsServer
) -> None:
    limits = Limits(requests_per_hour=60)
    async with governing(nats_server) as first, governing(nats_server):
        await bus.governed()
        async with ingresses(bus, nats_server.url, limits) as both:
            for one in both * 10:
                await one.begin()
            await first.ends_with(signal.SIGKILL)
            await reigns(bus, 2)
            used = 20
            for one in both * 40:
                used += await one.uses_up()
            # The last call of each may have been on its way to the ledger.
            assert 60 <= used <= 60 + 2


async def test_slots_are_in_use_as_long_as_their_calls_whoever_governs(
    bus: Bus, nats_server: NatsServer
) -> None:
    limits = Limits(concurrent=3)
    async with governing(nats_server) as first, governing(nats_server):
        await bus.governed()
        async with ingresses(bus, nats_server.url, limits) as (one, other):
            old = [await one.begin(), await one.begin(), await other.begin()]
            await other.refused()
            await first.ends_with(signal.SIGKILL)
            await reigns(bus, 2)
            await one.refused()
            await other.refused()
            await one.end(*old[0])
            new = await _when_free(other)
            await one.refused()
            await one.end(*old[1])
            await _when_free(one)
            await other.refused()
            await other.end(*new)
            await _when_free(one)
            await other.refused()


async def _when_free(one: Ingress) -> tuple[str, Passed]:
    """A call, once the governor knows of the one that ended."""
    async with asyncio.timeout(5):
        while True:
            try:
                return await one.begin()
            except RateLimited:
                await asyncio.sleep(0.02)


async def test_what_many_scopes_used_is_kept_in_pieces_beside_the_checkpoint(bus: Bus) -> None:
    seq = await bus.append(sample.start("a"))
    recent = Recent()
    for number in range(12_000):
        whose: dict[str, Any] = {
            "key_id": Clock().new_id(),
            "user": Clock().new_id(),
            "project": "shop",
        }
        recent.fold(sample.start(f"c{number}", **whose), None)
    newest = await read_at(bus.connection, subjects.LEDGER, seq)
    assert newest is not None
    packed = await recent.packed()
    kept = Checkpoint(seq=seq, digest=digest_of(newest), book=b"", rates=packed)
    assert await checkpoint.save(bus.publisher, kept, Clock()) is not None
    loaded = await checkpoint.load(bus.connection)
    assert loaded.rates == packed
    assert len(unpack(packed)["user"]) == 10_001
    assert loaded.book == b""


async def test_calls_that_passed_unasked_are_in_the_metrics(
    bus: Bus, nats_server: NatsServer
) -> None:
    async with governing(nats_server):
        beats = Beats(bus.connection, "ingress", Clock(), let_through=lambda: 3)
        async with running(beats.run()):

            async def told() -> bool:
                return "nexus_ai_rate_let_through_total 3.0" in await bus.metrics()

            await until(told)
