"""Budgets at the ingress against a lessor on a real bus: what is asked, refused and given back."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from compose.nats_server import NatsServer
from ingress.budgeting import Budgeting
from ingress.lease_client import LeaseClient, Pace
from ingress.purse import Taken
from ledger.budgets.messages import Pulse
from ledger.connection import Connection
from schemas.access import Budget, BudgetScope, Period
from schemas.budget_events import BudgetExceeded
from schemas.config import BusConfig
from schemas.errors import RateLimited, Unavailable
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

    async def refused(self, *budgets: Budget, bound: int) -> RateLimited:
        with pytest.raises(RateLimited) as caught:
            await self.admit(*budgets, bound=bound)
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


@pytest.fixture
async def stage(nats_url: str) -> AsyncIterator[Stage]:
    connection = await Connection.connect(BusConfig(url=nats_url), name="governor")
    lessor = Lessor(connection, budget())
    await connection.flush()
    try:
        yield Stage(nats_url, lessor)
    finally:
        await connection.close()


async def test_without_a_budget_nobody_is_asked(stage: Stage) -> None:
    async with stage.ingress() as ingress:
        taken = await ingress.admit(bound=100)
        assert taken == Taken((), "", 0)
        assert ingress.budgeting.confirm(taken)
    assert stage.lessor.heard == []


async def test_a_lease_serves_more_calls_than_the_one_it_was_asked_for(stage: Stage) -> None:
    async with stage.ingress(runs=False) as ingress:
        first = await ingress.admit(budget(), bound=50)
        assert first == Taken((ACCOUNT,), ingress.leases.holder, 50, (ACCOUNT,))
        assert stage.lessor.book.free(ACCOUNT) == 100
        await ingress.admit(budget(), bound=50)
        assert len(stage.lessor.asks) == 1
        await stage.soon(lambda: len(stage.lessor.asks) == 2)
        assert stage.lessor.asks[1].wants[0].need == 0


async def test_many_waiting_calls_are_one_ask(stage: Stage) -> None:
    stage.lessor.budgets = {budget().name: budget(100_000)}
    async with stage.ingress() as ingress:
        all_taken = await asyncio.gather(*(ingress.admit(budget(), bound=100) for _ in range(100)))
        assert len(all_taken) == 100
        assert len(stage.lessor.asks) < 5
        left = ingress.leases.purse.free
        await stage.soon(lambda: left(budget().name) == stage.lessor.book.free(ACCOUNT) - 10_000)


async def test_more_than_the_limit_is_never_admitted_and_all_of_it_is(stage: Stage) -> None:
    async with stage.ingress() as one, stage.ingress() as other:
        results = await asyncio.gather(
            *(ingress.admit(budget(), bound=70) for ingress in (one, other) for _ in range(20)),
            return_exceptions=True,
        )
    taken = [result for result in results if isinstance(result, Taken)]
    assert len(taken) == 1000 // 70
    assert all(isinstance(result, Taken | RateLimited) for result in results)


async def test_small_change_in_many_purses_is_called_back_for_a_call(stage: Stage) -> None:
    async with stage.ingress() as one, stage.ingress() as other, stage.ingress() as third:
        for ingress in (one, other):
            ingress.budgeting.give_back(await ingress.admit(budget(), bound=400))
        assert stage.lessor.book.free(ACCOUNT) >= 800
        await third.admit(budget(), bound=1000)
        assert stage.lessor.book.free(ACCOUNT) == 1000


async def test_a_refusal_says_everything(stage: Stage) -> None:
    async with stage.ingress() as ingress:
        taken = await ingress.admit(budget(), bound=900)
        stage.start(taken, "runs")
        refusal = (await ingress.refused(budget(), bound=200)).info
    assert (refusal.status, refusal.type, refusal.code) == (
        429,
        "rate_limit_error",
        "budget_exceeded",
    )
    assert refusal.headers() == {"Retry-After": "1", "x-should-retry": "false"}
    assert refusal.message == (
        "The budget of project 'shop' is exceeded: $0.000001 in all, $0 spent, $0.0000009 held for"
        " running calls; this call needs up to $0.0000002. It does not renew itself: ask who runs"
        " this gateway to raise or reset it."
    )


async def test_waiting_is_advised_only_where_it_helps(stage: Stage) -> None:
    async with stage.ingress() as ingress:
        too_dear = await ingress.refused(budget(), bound=1001)
        assert too_dear.info.headers() == {"x-should-retry": "false"}
        spent = await ingress.admit(budget(), bound=900)
        stage.start(spent, "ends")
        stage.end(spent, "ends", 900)
        assert "Retry-After" not in (await ingress.refused(budget(), bound=200)).info.headers()


@pytest.mark.parametrize(("seconds", "advice"), [(1800, "1800"), (7200, None)])
async def test_a_period_that_ends_soon_is_waited_for(
    stage: Stage, seconds: int, advice: str | None
) -> None:
    midnight = 1_790_035_200
    clock = Clock(now_ns=lambda: (midnight - seconds) * sample.SECOND)
    daily = budget(period="day")
    stage.lessor.budgets = {daily.name: daily}
    stage.lessor.now_ns = clock.now_ns
    async with stage.ingress(clock=clock) as ingress:
        spent = await ingress.admit(daily, bound=900)
        stage.start(spent, "ends")
        stage.end(spent, "ends", 900)
        refusal = (await ingress.refused(daily, bound=200)).info
        assert refusal.headers().get("Retry-After") == advice
        assert "It resets at 2026-09-22T00:00:00Z" in refusal.message


async def test_refusals_are_told_once_and_then_by_their_number(stage: Stage) -> None:
    async with stage.ingress() as ingress:
        for _ in range(5):
            await ingress.refused(budget(), bound=1001)
        assert len(stage.lessor.asks) == 1
        assert [event.refused for event in ingress.events] == [1]
        await stage.soon(lambda: len(ingress.events) == 2)
        assert ingress.events[1].refused == 4
        first = ingress.events[0]
        assert (first.project, first.account, first.needed_nano) == ("shop", ACCOUNT, 1001)


async def test_a_smaller_call_is_asked_for_after_a_refusal(stage: Stage) -> None:
    async with stage.ingress() as ingress:
        await ingress.refused(budget(), bound=1001)
        await ingress.refused(budget(), bound=2000)
        assert len(stage.lessor.asks) == 1
        await ingress.admit(budget(), bound=1000)


async def test_the_same_call_is_asked_for_again_a_moment_after_its_refusal(stage: Stage) -> None:
    async with stage.ingress() as ingress:
        await ingress.refused(budget(), bound=1001)
        stage.lessor.budgets = {budget().name: budget(2000)}

        async def passes() -> bool:
            try:
                await ingress.admit(budget(), bound=1001)
            except RateLimited:
                return False
            return True

        await until(passes, 5.0)


async def test_without_the_governor_a_hard_budget_refuses_and_a_soft_one_does_not(
    stage: Stage,
) -> None:
    stage.lessor.deaf = True
    soft = budget(id="soft", hard=False)
    async with stage.ingress() as ingress:
        begun = time.monotonic()
        with pytest.raises(Unavailable) as caught:
            await ingress.admit(soft, budget(), bound=100, patience=0.3)
        assert time.monotonic() - begun >= 0.3
        assert caught.value.info.code == "budget_unavailable"
        assert caught.value.info.headers() == {"Retry-After": "1"}
        taken = await ingress.admit(soft, bound=100, patience=0.3)
        assert taken == Taken(("project:soft:total@all.0",), "", 50)
        assert ingress.budgeting.confirm(taken)


async def test_without_the_governor_leases_are_used_and_soft_accounts_keep_their_names(
    stage: Stage,
) -> None:
    soft = budget(id="soft", hard=False)
    stage.lessor.budgets[soft.name] = soft
    stage.lessor.reset(soft.name)
    async with stage.ingress(PACE._replace(trust=2.0)) as ingress:
        await ingress.admit(soft, budget(), bound=50)
        stage.lessor.deaf = True
        other = budget(id="other", hard=False)
        taken = await ingress.admit(soft, budget(), other, bound=50, patience=0.2)
        assert taken.accounts == ("project:soft:total@all.1", ACCOUNT, "project:other:total@all.0")
        assert taken.leased == (ACCOUNT,)


async def test_a_governor_that_comes_back_is_asked_again_for_soft_budgets(stage: Stage) -> None:
    soft = budget(id="soft", hard=False)
    stage.lessor.budgets[soft.name] = soft
    stage.lessor.reset(soft.name)
    stage.lessor.deaf = True
    async with stage.ingress() as ingress:
        taken = await ingress.admit(soft, bound=50, patience=0.2)
        assert taken.accounts == ("project:soft:total@all.0",)
        stage.lessor.deaf = False

        async def has_heard() -> bool:
            taken = await ingress.admit(soft, bound=50, patience=0.2)
            return taken.accounts == ("project:soft:total@all.1",)

        await until(has_heard, 5.0)


async def test_after_a_start_that_nobody_knows_of_another_holder_goes_on(stage: Stage) -> None:
    async with stage.ingress(PACE._replace(idle=60.0)) as ingress:
        unsure = await ingress.admit(budget(), bound=50)
        fine = await ingress.admit(budget(), bound=50)
        ingress.budgeting.doubt(unsure)
        ingress.budgeting.doubt(fine)
        await stage.soon(lambda: stage.lessor.book.free(ACCOUNT) == 100)
        assert ingress.budgeting.confirm(fine)
        again = await ingress.admit(budget(), bound=50)
        assert again.holder != fine.holder
        assert ingress.budgeting.confirm(again)
        await stage.soon(lambda: not ingress.budgeting.confirm(fine))
        assert ingress.budgeting.confirm(again)


async def test_what_is_answered_to_a_holder_of_before_does_not_concern_the_next(
    stage: Stage,
) -> None:
    async with stage.ingress(Pace(answer=5.0)) as ingress:
        unsure = await ingress.admit(budget(), bound=50)
        stage.lessor.mute = True
        ingress.budgeting.doubt(unsure)
        following = ingress.leases.holder
        stage.lessor.strangers.add(unsure.holder)
        await stage.soon(lambda: len(stage.lessor.returns) == 1)
        asking = asyncio.create_task(ingress.admit(budget(), bound=50))
        await stage.soon(lambda: len(stage.lessor.asks) == 2)
        stage.lessor.answer_late()
        taken = await asking
        assert taken.holder == ingress.leases.holder == following
        assert ingress.budgeting.confirm(taken)


async def test_a_governor_that_answers_late_is_waited_for_once_it_answers(stage: Stage) -> None:
    stage.lessor.deaf = True
    async with stage.ingress() as ingress:
        waiting = asyncio.create_task(ingress.admit(budget(), bound=100, patience=3.0))
        await asyncio.sleep(0.3)
        stage.lessor.deaf = False
        assert (await waiting).accounts == (ACCOUNT,)


async def test_a_grant_whose_answer_was_lost_comes_by_the_same_request(stage: Stage) -> None:
    stage.lessor.mute = True
    async with stage.ingress(PACE._replace(trust=5.0)) as ingress:
        with pytest.raises(Unavailable):
            await ingress.admit(budget(), bound=100, patience=0.2)
        await stage.soon(lambda: len(stage.lessor.asks) > 1)
        stage.lessor.mute = False
        await stage.soon(lambda: ingress.leases.purse.free(budget().name) > 0)
        assert {ask.request for ask in stage.lessor.asks} == {stage.lessor.asks[0].request}
        assert ingress.leases.purse.free(budget().name) == stage.lessor.book.free(ACCOUNT)


async def test_leases_end_for_who_was_not_answered_for_too_long(stage: Stage) -> None:
    async with stage.ingress() as ingress:
        taken = await ingress.admit(budget(), bound=50)
        assert ingress.budgeting.confirm(taken)
        stage.lessor.deaf = True
        await stage.soon(lambda: not ingress.budgeting.confirm(taken))
        with pytest.raises(Unavailable):
            await ingress.admit(budget(), bound=10, patience=0.2)
        assert ingress.leases.holder != taken.holder
        stage.lessor.deaf = False
        again = await ingress.admit(budget(), bound=10)
        assert again.holder == ingress.leases.holder
        assert not ingress.budgeting.confirm(taken)


async def test_an_answer_counts_from_its_asking(stage: Stage) -> None:
    """As for a process that was stopped for long between the two."""
    ahead = 0.0
    clock = Clock(monotonic=lambda: time.monotonic() + ahead)
    async with stage.ingress(Pace(pulse=60.0, answer=5.0), clock) as ingress:
        taken = await ingress.admit(budget(), bound=50)
        stage.lessor.mute = True
        asking = asyncio.create_task(ingress.leases.ask())
        await stage.soon(lambda: len(stage.lessor.asks) == 2)
        ahead = 5.0
        assert ingress.budgeting.confirm(taken)
        stage.lessor.answer_late()
        await asking
        ahead = 7.0
        assert not ingress.budgeting.confirm(taken)


async def test_a_stranger_begins_anew_and_its_calls_pass(stage: Stage) -> None:
    async with stage.ingress() as ingress:
        taken = await ingress.admit(budget(), bound=50)
        stage.lessor.strangers.add(taken.holder)
        again = await ingress.admit(budget(), bound=100)
        assert again.holder != taken.holder
        assert not ingress.budgeting.confirm(taken)
        assert ingress.budgeting.confirm(again)


async def test_a_holder_with_leases_pulses(stage: Stage) -> None:
    async with stage.ingress() as ingress:
        await asyncio.sleep(0.3)
        assert stage.lessor.heard == []
        await ingress.admit(budget(), bound=50)
        await stage.soon(lambda: any(isinstance(one, Pulse) for one in stage.lessor.heard))


async def test_a_reset_drops_what_was_leased_and_the_next_call_is_in_the_next_account(
    stage: Stage,
) -> None:
    async with stage.ingress() as ingress:
        await ingress.admit(budget(), bound=50)
        stage.lessor.reset(budget().name)
        await stage.soon(lambda: ingress.leases.purse.free(budget().name) == 0)
        taken = await ingress.admit(budget(), bound=50)
        assert taken.accounts == ("project:shop:total@all.1",)


async def test_idle_leases_are_returned(stage: Stage) -> None:
    async with stage.ingress() as ingress:
        taken = await ingress.admit(budget(), bound=50)
        assert stage.lessor.book.free(ACCOUNT) > 50
        await stage.soon(lambda: stage.lessor.book.free(ACCOUNT) == 50)
        stage.start(taken, "runs")
        assert (stage.lessor.book.free(ACCOUNT), stage.lessor.book.held(ACCOUNT)) == (0, 50)


async def test_a_return_that_was_not_answered_is_repeated_with_its_id(stage: Stage) -> None:
    async with stage.ingress(PACE._replace(idle=60.0, trust=5.0)) as ingress:
        await ingress.admit(budget(), bound=50)
        stage.lessor.mute = True
        stage.lessor.recall(ACCOUNT)
        await stage.soon(lambda: len(stage.lessor.returns) == 2)
        stage.lessor.mute = False
        assert stage.lessor.returns[0] == stage.lessor.returns[1]
        assert stage.lessor.book.free(ACCOUNT) == 50


async def test_an_ingress_that_ends_returns_everything(stage: Stage) -> None:
    async with stage.ingress() as ingress:
        ingress.budgeting.give_back(await ingress.admit(budget(), bound=50))
        assert stage.lessor.book.free(ACCOUNT) >= 50
    assert stage.lessor.book.free(ACCOUNT) == 0


async def test_what_came_for_a_call_that_went_away_stays_in_the_purse(stage: Stage) -> None:
    async with stage.ingress(PACE._replace(idle=60.0)) as ingress:
        stage.lessor.mute = True
        gone = asyncio.create_task(ingress.admit(budget(), bound=50))
        await stage.soon(lambda: bool(stage.lessor.asks))
        gone.cancel()
        await asyncio.wait((gone,))
        stage.lessor.mute = False
        await stage.soon(lambda: ingress.leases.purse.free(budget().name) > 0)
        assert ingress.leases.purse.free(budget().name) == stage.lessor.book.free(ACCOUNT)


async def test_budgets_go_on_after_the_bus_was_restarted(nats_server: NatsServer) -> None:
    connection = await Connection.connect(BusConfig(url=nats_server.url), name="governor")
    lessor = Lessor(connection, budget())
    stage = Stage(nats_server.url, lessor)
    async with stage.ingress(PACE._replace(trust=6.0)) as ingress:
        taken = await ingress.admit(budget(), bound=50)
        nats_server.kill()
        waiting = asyncio.create_task(ingress.admit(budget(), bound=900, patience=10.0))
        nats_server.start()
        again = await waiting
        assert again.holder == taken.holder
        assert ingress.budgeting.confirm(again)
    await connection.close()
