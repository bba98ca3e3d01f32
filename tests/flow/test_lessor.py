"""The governor as the one who leases budgets, against a real bus: what it grants is in the ledger
before anyone hears of it, and never more than there is."""

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator

import pytest

from compose.nats_server import NatsServer
from ledger.budgets.messages import RateWant, Want
from ledger.connection import Connection
from schemas.access import Budget, BudgetSettings
from schemas.budget_events import (
    BudgetWarning,
    CostAlert,
    GovernorStarted,
    HoldTaken,
    LeaseExpired,
    LeaseGranted,
    LeaseReturned,
)
from schemas.config import BudgetConfig, BusConfig, Config
from tests import sample_events as sample
from tests.governed_bus import Bus, bus_at, governing, until
from tests.leasing import Tenant, plain, start_fields
from tests.sample_events import SECOND

SHOP = "project:shop:total"
SHOP_0 = f"{SHOP}@all.0"
TEAM = "team:retail:total"
TEAM_0 = f"{TEAM}@all.0"
LIMIT = 1_000_000
CONFIG = Config(
    budgets=(
        BudgetSettings(scope="project", id="shop", period="total", limit_usd=0.001),
        BudgetSettings(scope="team", id="retail", period="total", limit_usd=0.01),
        BudgetSettings(scope="user", id="*", period="day", limit_usd=0.001),
        BudgetSettings(scope="team", id="soft", period="total", limit_usd=0.001, hard_stop=False),
    )
)


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[Bus]:
    async with bus_at(nats_url) as bus:
        yield bus


@pytest.fixture
def tenant(bus: Bus) -> Tenant:
    return Tenant(bus.connection, "ingress-1")


async def settles(tenant: Tenant, budget: str, **fields: int) -> None:
    async def reached() -> bool:
        state = await tenant.state(budget)
        return all(getattr(state, name) == value for name, value in fields.items())

    await until(reached)


async def test_a_lease_is_in_the_ledger_before_it_is_granted_and_a_repeated_ask_moves_nothing(
    bus: Bus, tenant: Tenant, nats_server: NatsServer
) -> None:
    async with governing(nats_server, config=CONFIG):
        first = await tenant.ask(Want(SHOP, 300), Want(TEAM, 300), request="r1")
        [event] = [event for event in await bus.events() if isinstance(event, LeaseGranted)]
        assert event.movements[0].amounts == {SHOP_0: 300, TEAM_0: 300}
        [shop, team] = first.leases
        assert (shop.account, shop.amount, shop.limit_nano, shop.hard) == (SHOP_0, 300, LIMIT, True)
        assert (shop.spent_nano, shop.held_nano, team.amount) == (0, 300, 300)
        assert await tenant.ask(Want(SHOP, 300), Want(TEAM, 300), request="r1") == first
    async with governing(nats_server, config=CONFIG):
        again = await tenant.ask(Want(SHOP, 300), Want(TEAM, 300), request="r1")
        assert [one.amount for one in again.leases] == [300, 300]
        assert len([one for one in await bus.events() if isinstance(one, LeaseGranted)]) == 1


async def test_all_or_nothing_and_a_shortage_has_every_number(
    bus: Bus, tenant: Tenant, nats_server: NatsServer
) -> None:
    async with governing(nats_server, config=CONFIG):
        assert (await tenant.need(LIMIT - 10, SHOP)).leases
        short = (await tenant.need(11, TEAM, SHOP)).shortage
        assert short is not None
        assert (short.budget, short.account, short.limit_nano) == (SHOP, SHOP_0, LIMIT)
        assert (short.spent_nano, short.held_nano, short.needed_nano) == (0, LIMIT - 10, 11)
        assert (await tenant.state(TEAM)).held_nano == 0
        assert (await tenant.need(10, TEAM, SHOP)).leases


async def test_soft_budgets_only_name_their_account(
    bus: Bus, tenant: Tenant, nats_server: NatsServer
) -> None:
    async with governing(nats_server, config=CONFIG):
        [lease] = (await tenant.need(5 * LIMIT, "team:soft:total")).leases
        assert (lease.account, lease.hard, lease.amount) == ("team:soft:total@all.0", False, 0)
        assert not [event for event in await bus.events() if isinstance(event, LeaseGranted)]


async def test_a_budget_for_every_user_has_an_account_for_each(
    bus: Bus, tenant: Tenant, nats_server: NatsServer
) -> None:
    async with governing(nats_server, config=CONFIG):
        await tenant.need(700, "user:ana:day")
        await tenant.need(LIMIT, "user:bo:day")
        states = {one.budget: one.held_nano for one in (await tenant.states()).budgets}
        assert (states["user:ana:day"], states["user:bo:day"]) == (700, LIMIT)
        assert states[SHOP] == 0


async def test_the_budget_of_the_whole_gateway_is_leased_as_any_other(
    bus: Bus, tenant: Tenant, nats_server: NatsServer
) -> None:
    config = Config(budget=BudgetConfig(daily_limit_usd=0.001))
    async with governing(nats_server, config=config):
        assert (await tenant.need(LIMIT, "global:day")).leases
        assert (await tenant.need(1, "global:day")).shortage is not None


async def test_the_end_of_a_call_turns_its_hold_into_cost(
    bus: Bus, tenant: Tenant, nats_server: NatsServer
) -> None:
    async with governing(nats_server, config=CONFIG):
        await tenant.need(LIMIT, SHOP)
        fields = start_fields(tenant.holder, LIMIT, SHOP_0)
        await bus.append(sample.start("a", time.time_ns(), **fields))
        assert (await tenant.need(1, SHOP)).shortage is not None
        await bus.append(sample.complete("a", cost_nano=400_000, accounts=(SHOP_0,)))
        await settles(tenant, SHOP, spent_nano=400_000, held_nano=0)
        assert (await tenant.need(600_000, SHOP)).leases
        assert (await tenant.need(1, SHOP)).shortage is not None


async def test_before_a_refusal_idle_leases_are_recalled_and_once_for_a_burst(
    bus: Bus, tenant: Tenant, nats_server: NatsServer
) -> None:
    other = Tenant(bus.connection, "ingress-2")
    async with governing(nats_server, config=CONFIG):
        await tenant.need(LIMIT, SHOP)
        asking = [asyncio.create_task(other.need(1, SHOP)) for _ in range(100)]
        async with asyncio.timeout(5):
            await tenant.heard.wait()
        await tenant.give_back(SHOP_0, 60)
        answers = await asyncio.gather(*asking)
        assert sum(bool(answer.leases) for answer in answers) == 60
        assert sum(answer.shortage is not None for answer in answers) == 40
        assert 1 <= len(tenant.recalled) <= 3
        assert tenant.recalled[0].accounts == (SHOP_0,)


async def test_a_repeated_return_gives_back_once(
    bus: Bus, tenant: Tenant, nats_server: NatsServer
) -> None:
    async with governing(nats_server, config=CONFIG) as first:
        await tenant.need(1000, SHOP)
        await asyncio.gather(*(tenant.give_back(SHOP_0, 400, "back") for _ in range(5)))
        await settles(tenant, SHOP, held_nano=600)
        await first.ends_with(signal.SIGKILL)
    async with governing(nats_server, config=CONFIG):
        await tenant.give_back(SHOP_0, 400, "back")
        assert (await tenant.state(SHOP)).held_nano == 600
    assert len([one for one in await bus.events() if isinstance(one, LeaseReturned)]) == 1


async def test_a_silent_holder_loses_its_leases_but_not_the_holds_of_its_open_calls(
    bus: Bus, tenant: Tenant, nats_server: NatsServer
) -> None:
    alive = Tenant(bus.connection, "ingress-2")
    async with governing(nats_server, config=CONFIG, expire_after=1.0):
        await tenant.need(500, SHOP)
        fields = start_fields(tenant.holder, 200, SHOP_0)
        await bus.append(sample.start("a", time.time_ns(), **fields))
        await alive.need(70, SHOP)

        async def expired() -> bool:
            assert not (await alive.pulse()).stranger
            return (await alive.state(SHOP)).held_nano == 270

        await until(expired)
        assert (await tenant.pulse()).stranger
        assert (await tenant.need(1, SHOP)).stranger
        assert (await tenant.give_back(SHOP_0, 1)).stranger
        [event] = [event for event in await bus.events() if isinstance(event, LeaseExpired)]
        assert event.holder == tenant.holder
        await bus.append(sample.complete("a", cost_nano=150, accounts=(SHOP_0,)))
        await settles(alive, SHOP, spent_nano=150, held_nano=70)


async def test_a_further_attempt_takes_its_own_hold_once(
    bus: Bus, tenant: Tenant, nats_server: NatsServer
) -> None:
    async with governing(nats_server, config=CONFIG) as first:
        await tenant.need(LIMIT - 500, SHOP)
        fields = start_fields(tenant.holder, LIMIT - 500, SHOP_0)
        await bus.append(sample.start("a", time.time_ns(), **fields))
        assert not (await tenant.hold("a", "2", 400, SHOP_0)).stranger
        assert (await tenant.hold("a", "2", 400, SHOP_0)).shortage is None
        assert (await tenant.hold("a", "3", 400, SHOP_0)).shortage is not None
        assert (await tenant.hold("unknown", "2", 1, SHOP_0)).stranger
        await first.ends_with(signal.SIGKILL)
    async with governing(nats_server, config=CONFIG):
        assert (await tenant.hold("a", "2", 400, SHOP_0)).shortage is None
        await settles(tenant, SHOP, held_nano=LIMIT - 100)
        await bus.append(sample.complete("a", cost_nano=7, accounts=(SHOP_0,)))
        await settles(tenant, SHOP, spent_nano=7, held_nano=0)
        assert len([one for one in await bus.events() if isinstance(one, HoldTaken)]) == 1


async def test_a_reset_opens_the_next_account_and_leaves_running_calls_in_theirs(
    bus: Bus, tenant: Tenant, nats_server: NatsServer
) -> None:
    async with governing(nats_server, config=CONFIG):
        await tenant.need(LIMIT, SHOP)
        fields = start_fields(tenant.holder, 300, SHOP_0)
        await bus.append(sample.start("a", time.time_ns(), **fields))
        state = await tenant.reset(SHOP)
        assert state is not None
        assert (state.account, state.held_nano, state.spent_nano) == (f"{SHOP}@all.1", 0, 0)
        assert any(one.drop and one.accounts == (SHOP_0,) for one in tenant.recalled)
        await bus.append(sample.complete("a", cost_nano=200, accounts=(SHOP_0,)))
        [lease] = (await tenant.need(LIMIT, SHOP)).leases
        assert (lease.account, lease.spent_nano) == (f"{SHOP}@all.1", 0)
        assert await tenant.reset("project:unknown:total") is None


async def test_a_new_period_has_a_new_account_while_calls_run_on_in_the_old_one(
    bus: Bus, tenant: Tenant, nats_server: NatsServer
) -> None:
    budget = "user:ana:day"
    async with governing(nats_server, config=CONFIG):
        [lease] = (await tenant.need(LIMIT, budget)).leases
        assert lease.ends_ns is not None
        fields = start_fields(tenant.holder, LIMIT, lease.account)
        await bus.append(sample.start("a", time.time_ns(), **fields))
    tomorrow = lease.ends_ns - time.time_ns() + SECOND
    async with governing(nats_server, config=CONFIG, shift_ns=tomorrow, close_after=1e6):
        [next_day] = (await tenant.need(LIMIT, budget)).leases
        assert next_day.account > lease.account
        await bus.append(sample.complete("a", cost_nano=9, accounts=(lease.account,)))
        await settles(tenant, budget, spent_nano=0, held_nano=LIMIT)


async def test_a_lowered_limit_recalls_idle_leases_and_grants_nothing_above_it(
    bus: Bus, tenant: Tenant, nats_server: NatsServer
) -> None:
    budget = "project:books:total"
    async with governing(nats_server):
        high = Budget(scope="project", id="books", period="total", limit_nano=1000)
        await bus.append(sample.budget_set(high))

        async def granted() -> bool:
            return bool((await tenant.need(800, budget)).leases)

        await until(granted)
        low = Budget(scope="project", id="books", period="total", limit_nano=500)
        await bus.append(sample.budget_set(low))
        async with asyncio.timeout(5):
            await tenant.heard.wait()
        assert tenant.recalled[0].accounts == (f"{budget}@all.0",)
        await tenant.give_back(f"{budget}@all.0", 800)
        assert (await tenant.need(501, budget)).shortage is not None
        assert (await tenant.need(500, budget)).leases


async def test_a_warning_and_an_alert_are_written_once_also_over_a_takeover(
    bus: Bus, tenant: Tenant, nats_server: NatsServer
) -> None:
    async def written(count: int) -> bool:
        kinds = BudgetWarning | CostAlert
        return len([one for one in await bus.events() if isinstance(one, kinds)]) >= count

    async with governing(nats_server, config=CONFIG):
        fields = start_fields("", 0, SHOP_0)
        await bus.append(sample.start("a", user="ana", alert_nano=100, tracking_id="t", **fields))
        await bus.append(sample.complete("a", cost_nano=LIMIT, accounts=(SHOP_0,)))
        await until(lambda: written(2))
    async with governing(nats_server, config=CONFIG):
        await bus.append(sample.complete("b", cost_nano=5, accounts=(SHOP_0, TEAM_0)))
        await bus.append(sample.complete("c", cost_nano=8 * LIMIT, accounts=(TEAM_0,)))
        await until(lambda: written(3))
    events = await bus.events()
    [shop, team] = [event for event in events if isinstance(event, BudgetWarning)]
    assert (shop.budget, shop.account, shop.spent_nano) == (SHOP, SHOP_0, LIMIT)
    assert (shop.project, shop.limit_nano, shop.warning_threshold) == ("shop", LIMIT, 0.8)
    assert team.account == TEAM_0
    [alert] = [event for event in events if isinstance(event, CostAlert)]
    assert (alert.call_id, alert.user_id, alert.tracking_id) == ("a", "ana", "t")
    assert (alert.current_cost, alert.threshold, alert.period) == (0.001, 1e-7, "request")


async def test_rates_and_money_are_granted_together_or_not_at_all(
    bus: Bus, tenant: Tenant, nats_server: NatsServer
) -> None:
    slots = RateWant("key:k:concurrent", limit=2, need=1, seconds=0)

    async def put(need: int) -> str:
        answer = await tenant.ask(Want(SHOP, need), rates=(slots,))
        if answer.rate_shortage is not None:
            return "rate"
        return "money" if answer.shortage is not None else "granted"

    async with governing(nats_server, config=CONFIG):
        assert await put(LIMIT + 1) == "money"
        assert [await put(1), await put(1), await put(1)] == ["granted", "granted", "rate"]
        assert (await tenant.state(SHOP)).held_nano == 2


async def test_many_asks_at_once_never_lease_more_than_there_is(
    bus: Bus, nats_server: NatsServer
) -> None:
    dice = random.Random(4)
    url = nats_server.url_of("ingress")
    connections = [await Connection.connect(BusConfig(url=url), name="ingress") for _ in range(4)]
    tenants = [Tenant(one, f"ingress-{number}") for number, one in enumerate(connections)]

    async def client(tenant: Tenant) -> int:
        refused = 0
        for _ in range(25):
            answer = await tenant.need(dice.randint(1, 9_000), SHOP, TEAM)
            if answer.shortage is not None:
                refused += 1
                continue
            if dice.random() < 0.7:
                amount = answer.leases[0].amount
                await tenant.give_back(SHOP_0, dice.randint(0, amount))
        return refused

    async with governing(nats_server, config=CONFIG):
        clients = [client(tenant) for tenant in tenants for _ in range(20)]
        refused = sum(await asyncio.gather(*clients))
        sums = plain(await bus.events())
        held = (await tenants[0].state(SHOP)).held_nano
        assert (held, sums.leased(SHOP_0)) == (sums.leased(SHOP_0), held)
        assert 0.95 * LIMIT < sums.highest[SHOP_0] <= LIMIT
        assert refused > 0
    for connection in connections:
        await connection.close()


async def test_one_governor_leads_and_a_standby_takes_over_at_once_when_it_leaves(
    bus: Bus, tenant: Tenant, nats_server: NatsServer
) -> None:
    async with governing(nats_server, config=CONFIG) as first:
        await tenant.need(5, SHOP)
        async with governing(nats_server, config=CONFIG) as second:
            await tenant.need(7, SHOP)
            assert [type(one) for one in await bus.events()].count(GovernorStarted) == 1
            left = time.monotonic()
            assert await first.ends_with(signal.SIGTERM) == 0
            await tenant.need(9, SHOP)
            assert time.monotonic() - left < 10
            assert (await tenant.state(SHOP)).held_nano == 21
            assert await second.ends_with(signal.SIGTERM) == 0
    assert [type(one) for one in await bus.events()].count(GovernorStarted) == 2
