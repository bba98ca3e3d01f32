"""A governor that stood still for longer than an ingress waits: what was asked in vain is nobody's
any more, and no money of it is kept from those who ask now."""

import signal
from collections.abc import AsyncIterator

import pytest

from compose.nats_server import NatsServer
from ingress.budgeting import Budgeting
from ingress.lease_client import LeaseClient, Pace
from ledger.budgets.messages import Answer, Pulse, Want
from ledger.connection import Connection
from schemas import subjects
from schemas.access import BudgetSettings, budget_of
from schemas.budget_events import LeaseExpired, LeaseGranted
from schemas.config import BusConfig, Config
from schemas.errors import Unavailable
from schemas.ids import Clock
from tests.governed_bus import Bus, bus_at, governing, running, until
from tests.leasing import Tenant

SHOP = "project:shop:total"
LIMIT = 1_000_000
TERMS = BudgetSettings(scope="project", id="shop", period="total", limit_usd=LIMIT / 1e9)
BUDGET = budget_of("project", "shop", TERMS, 0)
CONFIG = Config(budgets=(TERMS,))
# It gives up three times while the governor below stands still.
HASTY = Pace(pulse=0.2, trust=0.6, answer=0.1, idle=60.0)


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[Bus]:
    async with bus_at(nats_url) as bus:
        yield bus


async def leased(bus: Bus) -> dict[str, int]:
    """What the ledger says that each holder was granted and has not lost."""
    found: dict[str, int] = {}
    for event in await bus.events():
        if isinstance(event, LeaseGranted):
            for one in event.movements:
                found[one.holder] = found.get(one.holder, 0) + sum(one.amounts.values())
        elif isinstance(event, LeaseExpired):
            found.pop(event.holder, None)
    return found


async def test_what_was_asked_of_a_sleeping_governor_is_not_granted_to_who_gave_up(
    bus: Bus, nats_server: NatsServer
) -> None:
    async with governing(nats_server, config=CONFIG) as governor:
        await bus.governed()
        connection = await Connection.connect(BusConfig(url=nats_server.url), name="ingress")
        leases = LeaseClient(connection, Clock(), HASTY)
        budgeting = Budgeting(leases, "UTC", Clock(), lambda _: None)
        async with running(leases.run()):
            budgeting.give_back(await budgeting.admit((BUDGET,), LIMIT // 10, 0))
            names = {leases.holder}
            governor.send(signal.SIGSTOP)
            try:
                while len(names) < 4:
                    # As many calls as would spend all of it, in the name of each holder.
                    with pytest.raises(Unavailable):
                        await budgeting.admit((BUDGET,), LIMIT // 2, 0, patience=0.3)
                    names.add(leases.holder)
            finally:
                governor.send(signal.SIGCONT)
            taken = await budgeting.admit((BUDGET,), LIMIT, 0, patience=10.0)
            assert taken.hold_nano == LIMIT
            assert await leased(bus) == {leases.holder: LIMIT}
        await connection.close()


async def test_what_a_holder_has_is_free_once_it_goes_on_under_another_name(
    bus: Bus, nats_server: NatsServer
) -> None:
    async with governing(nats_server, config=CONFIG):
        first, second, other = (Tenant(bus.connection, name) for name in ("one", "two", "other"))
        assert (await first.need(LIMIT, SHOP)).shortage is None
        assert (await other.need(1, SHOP)).shortage is not None
        answer = await second.put(subjects.GOVERNOR_PULSE, Pulse("two", ("one", "nobody")))
        assert answer == Answer(reign=await bus.governed())

        async def is_free() -> bool:
            return (await other.need(LIMIT, SHOP)).shortage is None

        await until(is_free, 5.0)
        assert (await first.ask(Want(SHOP, 1))).stranger
        ended = [one.holder for one in await bus.events() if isinstance(one, LeaseExpired)]
        assert ended == ["one"]


async def test_an_ingress_names_the_holders_it_dropped_until_it_is_heard(
    bus: Bus, nats_server: NatsServer
) -> None:
    async with governing(nats_server, config=CONFIG) as governor:
        await bus.governed()
        connection = await Connection.connect(BusConfig(url=nats_server.url), name="ingress")
        leases = LeaseClient(connection, Clock(), HASTY)
        budgeting = Budgeting(leases, "UTC", Clock(), lambda _: None)
        async with running(leases.run()):
            taken = await budgeting.admit((BUDGET,), LIMIT * 9 // 10, 0)
            before = leases.holder
            governor.send(signal.SIGSTOP)
            try:

                async def dropped() -> bool:
                    return leases.holder != before

                await until(dropped, 5.0)
            finally:
                governor.send(signal.SIGCONT)
            assert not budgeting.confirm(taken)

            async def is_free() -> bool:
                return before not in await leased(bus)

            await until(is_free, 5.0)
            assert (await budgeting.admit((BUDGET,), LIMIT, 0)).hold_nano == LIMIT
        await connection.close()
