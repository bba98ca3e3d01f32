"""What an ingress gives back: idle leases, those of a reset, and all of them at its end."""

import asyncio

from ledger.budgets.messages import Pulse
from tests.flow.budgeting.stage import ACCOUNT, PACE, Stage, budget


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
