"""Budgets while the governor is away, late or another one: leases, soft budgets, lost answers."""

import asyncio
import time

import pytest

from compose.nats_server import NatsServer
from ingress.lease_client import Pace
from ingress.purse import Taken
from ledger.connection import Connection
from schemas.config import BusConfig
from schemas.errors import Unavailable
from schemas.ids import Clock
from tests.flow.budgeting.stage import ACCOUNT, PACE, Stage, budget
from tests.governed_bus import until
from tests.lessor import Lessor


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
