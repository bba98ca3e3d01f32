"""What an ingress asks of the lessor, admits and refuses, and what a refusal says."""

import asyncio

import pytest

from ingress.purse import Taken
from schemas.errors import RateLimited
from schemas.ids import Clock
from tests import sample_events as sample
from tests.flow.budgeting.stage import ACCOUNT, Stage, budget
from tests.governed_bus import until


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
        " this gateway to raise or reset it. A call that needs less may pass now: send less, or set"
        " a lower 'max_tokens'."
    )


async def test_a_smaller_call_is_advised_only_where_something_is_left(stage: Stage) -> None:
    async with stage.ingress() as ingress:
        spent = await ingress.admit(budget(), bound=1000)
        stage.start(spent, "ends")
        stage.end(spent, "ends", 1000)
        refusal = (await ingress.refused(budget(), bound=1)).info
        assert "max_tokens" not in refusal.message
        assert refusal.message.endswith("raise or reset it.")


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
        for number in range(5):
            await ingress.refused(budget(), bound=1001 + number, call_id=f"call-{number}")
        assert len(stage.lessor.asks) == 1
        assert [event.refused for event in ingress.events] == [1]
        await stage.soon(lambda: len(ingress.events) == 2)
        first, rest = ingress.events
        assert (first.project, first.account, first.needed_nano) == ("shop", ACCOUNT, 1001)
        assert (first.call_id, first.earlier) == ("call-0", {})
        assert (rest.refused, rest.call_id, rest.needed_nano) == (4, "call-4", 1005)
        assert rest.earlier == {"call-1": 1002, "call-2": 1003, "call-3": 1004}


async def test_of_many_refusals_the_last_hundred_are_told_by_name(stage: Stage) -> None:
    async with stage.ingress() as ingress:
        for number in range(200):
            await ingress.refused(budget(), bound=1001, call_id=f"call-{number}")
        await stage.soon(lambda: len(ingress.events) == 2)
        rest = ingress.events[1]
        assert (rest.refused, rest.call_id) == (199, "call-199")
        assert list(rest.earlier) == [f"call-{number}" for number in range(99, 199)]


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
