"""What a worker does with a job before it asks a provider: it takes a further hold, or refuses."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ledger.budgets import messages
from ledger.budgets.messages import Answer, HoldAsk, Shortage
from ledger.connection import Message
from ledger.publisher import Publisher
from ledger.secret import ServerSecret, credential_purpose
from ledger.target_states import TargetStates
from ledger.work import submit
from schemas import subjects
from schemas.call import Call, Target, Tenant, Timeouts
from schemas.config import BreakerConfig, QueueConfig
from schemas.events import (
    AttemptAbandoned,
    AttemptFailed,
    LedgerEvent,
    Outcome,
    RequestComplete,
    RequestFailed,
)
from schemas.ids import Clock
from schemas.usage import Price, Rates
from tests.cluster import Cluster, Role, until
from tests.ledger_facts import ends, one_end, outcomes, price
from tests.upstream import CUT, HANG, Reply, chat_answer, json_reply
from workers.circuits import Circuits
from workers.client_keys import ClientKeys
from workers.puller import Job
from workers.run import Runner

CLOCK = Clock()
ACCOUNTS = ("project:shop:month@2026-11-01.0", "global:day@2026-11-21.0")
GOOD = json_reply(chat_answer("Hello"))
BROKEN = Reply(before=(CUT,))
REFUSED = json_reply({"error": {"message": "overloaded"}}, status=503)
SHORT = Answer(
    shortage=Shortage(
        budget="project:shop:month",
        account=ACCOUNTS[0],
        limit_nano=20_000_000_000,
        spent_nano=19_500_000_000,
        held_nano=450_000_000,
        needed_nano=70_000_000,
        ends_ns=1_796_083_200_000_000_000,
    )
)


class Lender:
    """Stands in for the governor on a real bus: gives its answers one after the other, the last one
    for ever, and keeps what it was asked. None is no answer."""

    def __init__(self, cluster: Cluster, *answers: Answer | None) -> None:
        self.asked: list[HoldAsk] = []
        self._answers = list(answers)
        self._connection = cluster.connection
        self._connection.subscribe(subjects.GOVERNOR_HOLD, self._on_ask)

    def _on_ask(self, message: Message) -> None:
        self.asked.append(messages.decode_hold_ask(message.data))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if answer is not None:
            self._connection.publish(message.reply, messages.encode(answer))


@asynccontextmanager
async def worker_of(tmp_path: Path, **settings: Any) -> AsyncIterator[tuple[Cluster, Role]]:
    """A bus, an upstream and one worker that may ask everybody everything."""
    async with Cluster(tmp_path, workers=0, ingresses=0, settings=settings) as cluster:
        worker = cluster.role("worker", "lone", bus=cluster.bus.url)
        await worker.start()
        yield cluster, worker


def call_of(app: str = "", **fields: Any) -> Call:
    target = Target(
        "up", "chat", "up", Price("p", Rates(1_000_000_000, 2_000_000_000)), Timeouts(total=20.0)
    )
    now = CLOCK.now_ns()
    call = Call(
        id=CLOCK.new_id(),
        model="chat",
        plan=(target,),
        tenant=Tenant(project="shop", app=app),
        ingress="nobody",
        received_ns=now,
        deadline_ns=now + 60 * 10**9,
        body=b'{"model": "chat", "messages": [{"role": "user", "content": "eight by"}]}',
        accounts=ACCOUNTS,
        holder="h",
        hold_nano=70_000_000,
        prompt_estimate=11,
    )
    return msgspec.structs.replace(call, **fields)


async def run(cluster: Cluster, call: Call) -> list[LedgerEvent]:
    """The events of a call that is queued now, once it has its end."""
    await submit(Publisher(cluster.connection), call)
    return await ended(cluster, call)


async def ended(cluster: Cluster, call: Call) -> list[LedgerEvent]:
    async def has_ended() -> list[LedgerEvent] | None:
        events = [event for event in await cluster.events() if event.call_id == call.id]
        return events if ends(events) and not await cluster.jobs() else None

    return await until(has_ended, 30.0)


async def test_after_an_attempt_of_unknown_cost_each_further_one_takes_its_own_hold(
    tmp_path: Path,
) -> None:
    async with worker_of(tmp_path) as (cluster, _):
        cluster.upstream.script(BROKEN, BROKEN, GOOD)
        lender = Lender(cluster, Answer())
        call = call_of()
        events = await run(cluster, call)

        assert isinstance(one_end(events, call.id), RequestComplete)
        assert [event.cost_nano for event in outcomes(events, AttemptFailed)] == [None, None]
        assert len({ask.request for ask in lender.asked}) == len(lender.asked) == 2
        for ask in lender.asked:
            assert (ask.call_id, ask.hold_nano, ask.accounts) == (call.id, 70_000_000, ACCOUNTS)
        for event in outcomes(events, Outcome):
            assert event.accounts == ACCOUNTS
        assert one_end(events, call.id).prompt_estimate == 11


async def test_a_call_that_goes_on_in_another_pool_takes_its_hold_there(tmp_path: Path) -> None:
    async with worker_of(tmp_path) as (cluster, _):
        cluster.upstream.script(BROKEN)
        lender = Lender(cluster, Answer())
        call = call_of()
        elsewhere = msgspec.structs.replace(call.target, provider="mock", pool="mock")
        call = msgspec.structs.replace(call, plan=(call.target, elsewhere))
        events = await run(cluster, call)

        end = one_end(events, call.id)
        assert isinstance(end, RequestComplete)
        assert (end.provider, end.attempts) == ("mock", 5)
        jobs = [ask.request.split(".")[0] for ask in lender.asked]
        assert jobs == [jobs[0], jobs[0], jobs[0], jobs[3]]
        assert jobs[3] != jobs[0]


@pytest.mark.parametrize(("paid", "holds"), [("up", 0), ("mock", 3)])
async def test_what_the_clients_own_key_pays_needs_no_hold(
    tmp_path: Path, paid: str, holds: int
) -> None:
    """Four attempts at the first target come to nothing, the second one ends the call well."""
    secret = ServerSecret(("the same secret for all roles",))
    async with worker_of(tmp_path) as (cluster, _):
        cluster.upstream.script(BROKEN)
        lender = Lender(cluster, Answer())
        call = call_of()
        plan = (call.target, msgspec.structs.replace(call.target, provider="mock"))
        sealed = secret.seal(b"sk-own", credential_purpose(call.id, paid), b"n" * 12)
        call = msgspec.structs.replace(call, plan=plan, credentials={paid: sealed})
        end = one_end(await run(cluster, call), call.id)
        assert isinstance(end, RequestComplete)
        assert (end.provider, end.billed_to) == ("mock", "client" if paid == "mock" else "")
        assert len(lender.asked) == holds


async def test_an_attempt_that_certainly_cost_nothing_leaves_its_hold_to_the_next(
    tmp_path: Path,
) -> None:
    async with worker_of(tmp_path) as (cluster, _):
        cluster.upstream.script(REFUSED, REFUSED, GOOD)
        lender = Lender(cluster, SHORT)
        call = call_of()
        events = await run(cluster, call)

        assert isinstance(one_end(events, call.id), RequestComplete)
        assert [event.cost_nano for event in outcomes(events, AttemptFailed)] == [0, 0]
        assert not lender.asked


@pytest.mark.parametrize("fields", [{"accounts": ()}, {"hold_nano": 0}])
async def test_a_call_without_a_hold_is_tried_again_without_asking(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    async with worker_of(tmp_path) as (cluster, _):
        cluster.upstream.script(BROKEN, GOOD)
        call = call_of(**fields)
        assert isinstance(one_end(await run(cluster, call), call.id), RequestComplete)


async def test_a_further_attempt_for_which_there_is_no_money_is_not_made(tmp_path: Path) -> None:
    async with worker_of(tmp_path) as (cluster, _):
        cluster.upstream.script(BROKEN, GOOD)
        Lender(cluster, SHORT)
        call = call_of()
        events = await run(cluster, call)

        end = one_end(events, call.id)
        assert isinstance(end, RequestFailed) and end.error is not None
        assert (end.error.status, end.error.type, end.error.code, end.error.provider) == (
            429,
            "rate_limit_error",
            "budget_exceeded",
            None,
        )
        for number in ("project:shop:month", "$20,", "$19.5,", "$0.45,", "$0.07", "2026-12-01T"):
            assert number in end.error.message
        assert end.error.should_retry is False
        assert (end.cost_nano, end.attempts) == (0, 1)
        assert len(cluster.upstream.requests) == 1


async def test_a_question_that_got_no_answer_is_asked_again_as_the_same(tmp_path: Path) -> None:
    async with worker_of(tmp_path) as (cluster, _):
        cluster.upstream.script(BROKEN, GOOD)
        lender = Lender(cluster, None, Answer())
        call = call_of()
        assert isinstance(one_end(await run(cluster, call), call.id), RequestComplete)
        assert len(lender.asked) == 2
        assert lender.asked[0] == lender.asked[1]


@pytest.mark.parametrize("there", [False, True])
async def test_without_a_governor_there_is_no_further_attempt_for_a_call_with_a_hold(
    tmp_path: Path, there: bool
) -> None:
    async with worker_of(tmp_path) as (cluster, _):
        cluster.upstream.script(BROKEN, GOOD)
        if there:
            Lender(cluster, None)
        call = call_of()
        end = one_end(await run(cluster, call), call.id)

        assert isinstance(end, RequestFailed) and end.error is not None
        assert (end.error.status, end.error.code) == (503, "budget_unavailable")
        assert end.cost_nano == 0
        assert len(cluster.upstream.requests) == 1


async def test_a_worker_that_takes_over_from_a_silent_one_takes_a_hold_of_its_own(
    tmp_path: Path,
) -> None:
    async with worker_of(tmp_path) as (cluster, worker):
        cluster.upstream.script(Reply(before=(HANG,)), GOOD)
        lender = Lender(cluster, Answer())
        call = call_of()
        await submit(Publisher(cluster.connection), call)
        await cluster.upstream.request(0)
        await worker.kill()
        await worker.start()
        events = await ended(cluster, call)

        (abandoned,) = outcomes(events, AttemptAbandoned)
        assert (abandoned.cost_nano, abandoned.accounts) == (None, ACCOUNTS)
        assert isinstance(one_end(events, call.id), RequestComplete)
        assert len({ask.request for ask in lender.asked}) == 1


async def test_a_call_that_was_queued_long_after_its_admission_is_refused_unasked(
    tmp_path: Path,
) -> None:
    async with worker_of(tmp_path) as (cluster, _):
        cluster.upstream.script(GOOD)
        call = call_of(admitted_ns=CLOCK.now_ns() - 11 * 10**9)
        end = one_end(await run(cluster, call), call.id)

        assert isinstance(end, RequestFailed) and end.error is not None
        assert (end.error.status, end.error.type, end.error.code) == (
            503,
            "server_error",
            "admission_expired",
        )
        assert (end.cost_nano, end.attempts) == (0, 0)
        assert not cluster.upstream.requests


@pytest.mark.parametrize("fields", [{}, {"at": 1}])
async def test_a_call_that_was_queued_in_time_or_moved_later_is_run(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    async with worker_of(tmp_path) as (cluster, _):
        cluster.upstream.script(GOOD)
        call = call_of(admitted_ns=CLOCK.now_ns() - 9 * 10**9)
        if fields:
            long_ago = CLOCK.now_ns() - 30 * 10**9
            call = msgspec.structs.replace(
                call, plan=call.plan * 2, admitted_ns=long_ago, attempts=1, **fields
            )
        end = one_end(await run(cluster, call), call.id)
        assert isinstance(end, RequestComplete)
        assert end.cost_nano == price(7, 3)


async def test_a_call_that_waited_for_its_worker_longer_than_that_is_run(tmp_path: Path) -> None:
    async with worker_of(tmp_path) as (cluster, worker):
        cluster.upstream.script(GOOD)
        await worker.kill()
        call = call_of(admitted_ns=CLOCK.now_ns() - 8 * 10**9)
        await submit(Publisher(cluster.connection), call)
        await asyncio.sleep(2.5)
        await worker.start()
        assert isinstance(one_end(await ended(cluster, call), call.id), RequestComplete)


async def test_a_job_that_is_given_back_between_two_attempts_leaves_nothing_unknown(
    tmp_path: Path,
) -> None:
    """The next worker goes on where the first stood: after one attempt, which cost nothing."""
    queue = {"ack_wait": 30.0, "in_progress_every": 1.0}
    async with worker_of(tmp_path, queue=queue, drain=0.2) as (cluster, worker):
        wait = json_reply({"error": {"message": "later"}}, status=429, headers={"Retry-After": "9"})
        cluster.upstream.script(wait, GOOD)
        lender = Lender(cluster, SHORT)
        call = call_of()
        await submit(Publisher(cluster.connection), call)
        await until(lambda: has_failed_once(cluster))
        successor = cluster.role("worker", "successor", bus=cluster.bus.url)
        await successor.start()
        worker.terminate()
        events = await ended(cluster, call)

        assert await worker.ended() == 0
        assert not outcomes(events, AttemptAbandoned)
        complete = one_end(events, call.id)
        assert isinstance(complete, RequestComplete)
        assert complete.attempts == 2
        assert not lender.asked


async def test_a_job_that_came_when_it_could_not_be_begun_leaves_nothing_unknown(
    tmp_path: Path,
) -> None:
    async with Cluster(tmp_path, workers=0, ingresses=0) as cluster:
        cluster.upstream.script(GOOD)
        lender = Lender(cluster, SHORT)
        call = call_of()
        publisher = Publisher(cluster.connection)
        runner = Runner(
            cluster.connection,
            publisher,
            {},
            ClientKeys(ServerSecret(()), {}),
            Circuits(cluster.connection, publisher, BreakerConfig(), TargetStates(), CLOCK),
            {},
            QueueConfig(ack_wait=30.0, in_progress_every=1.0),
            CLOCK,
        )
        await submit(publisher, call)
        lane = subjects.consumer("up", "interactive")
        jobs: list[Message] = []
        inbox = f"{cluster.connection.inbox}.job"
        cluster.connection.subscribe(inbox, jobs.append)
        pull = subjects.api("CONSUMER.MSG.NEXT", subjects.WORK, lane)
        cluster.connection.publish(pull, b"", reply=inbox)
        await until(lambda: jobs)
        await runner.give_back(Job.of(jobs[0], CLOCK.monotonic()))
        await cluster.role("worker", "lone", bus=cluster.bus.url).start()
        events = await ended(cluster, call)

        assert [type(event) for event in events] == [RequestComplete]
        assert not lender.asked


async def has_failed_once(cluster: Cluster) -> bool:
    return bool(outcomes(await cluster.events(), AttemptFailed))


async def test_what_was_used_of_a_hold_is_known_to_who_gets_the_job_next(tmp_path: Path) -> None:
    """Given back while the worker waits for its governor: the next one asks for the hold too."""
    queue = {"ack_wait": 30.0, "in_progress_every": 1.0}
    async with worker_of(tmp_path, queue=queue, drain=0.2) as (cluster, worker):
        cluster.upstream.script(BROKEN, GOOD)
        lender = Lender(cluster, None, None, Answer())
        call = call_of()
        await submit(Publisher(cluster.connection), call)
        await until(lambda: lender.asked)
        successor = cluster.role("worker", "successor", bus=cluster.bus.url)
        await successor.start()
        worker.terminate()
        events = await ended(cluster, call)

        assert isinstance(one_end(events, call.id), RequestComplete)
        assert not outcomes(events, AttemptAbandoned)
        assert len(lender.asked) >= 2
