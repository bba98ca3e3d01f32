"""A target that fails is left by all workers and ingresses, and comes back by one probe."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from itertools import dropwhile
from pathlib import Path
from typing import Any

import httpx

from ledger.publisher import Publisher
from ledger.work import submit
from schemas.call import Call, Target, Tenant, Timeouts
from schemas.events import RequestComplete, RequestFailed
from schemas.ids import Clock
from schemas.target_events import TargetState
from tests.cluster import Cluster, until
from tests.upstream import HANG, Recorded, Reply, chat_answer, json_reply

SOON = 1.5
NEVER = 600.0
PROBE_WITHIN = 2.0
DOWN = json_reply({"error": {"message": "overloaded"}}, status=503)
GOOD = json_reply(chat_answer("up again"))


@asynccontextmanager
async def two_of_each(
    tmp_path: Path, reset: float, *, fallback: bool = True
) -> AsyncIterator[Cluster]:
    """Two workers and two ingresses; `chat` runs at the upstream, then at the built-in mock."""
    chat: dict[str, Any] = {"provider": "up", "timeout": PROBE_WITHIN}
    settings: dict[str, Any] = {
        "breaker": {"max_failures": 3, "reset_seconds": reset},
        "models": {
            "chat": {**chat, **({"fallbacks": ["spare"]} if fallback else {})},
            "spare": {"provider": "mock"},
        },
    }
    async with Cluster(tmp_path, workers=2, ingresses=2, settings=settings) as cluster:
        yield cluster


async def states(cluster: Cluster) -> list[TargetState]:
    return [event for event in await cluster.events() if isinstance(event, TargetState)]


async def broken(cluster: Cluster) -> TargetState:
    """Calls until the circuit of the upstream opens: its last event. Two workers may have seen
    enough at the same time, so that there are two."""
    cluster.upstream.script(DOWN)
    while not (found := await states(cluster)):
        await asyncio.gather(*(cluster.ask("Hi", ingress=n % 2) for n in range(4)))
    assert {(one.state, one.provider, one.engine) for one in found} == {("open", "up", "chat")}
    return found[-1]


async def after_opening(cluster: Cluster) -> list[str]:
    """What became of the circuit since it had opened."""
    return list(dropwhile("open".__eq__, [one.state for one in await states(cluster)]))


async def health(cluster: Cluster, ingress: int) -> dict[str, Any]:
    url = cluster.urls[ingress].replace("/v1/chat/completions", "/health")
    report: dict[str, Any] = (await cluster.client.get(url)).json()["providers"]["up"]
    return report


async def known_to_both_ingresses(cluster: Cluster, circuits: dict[str, str]) -> None:
    async def known() -> bool:
        found = [(await health(cluster, n)).get("circuits", {}) for n in range(2)]
        return found == [circuits, circuits]

    await until(known)


async def ask_many(cluster: Cluster, times: int = 12) -> list[httpx.Response]:
    return await asyncio.gather(*(cluster.ask("Hi", ingress=n % 2) for n in range(times)))


async def test_a_target_that_breaks_is_left_by_all_within_a_second(tmp_path: Path) -> None:
    async with two_of_each(tmp_path, NEVER) as cluster:
        opened = await broken(cluster)
        at = time.time()
        await known_to_both_ingresses(cluster, {"chat": "open"})
        assert time.time() - at < 1.0
        asked = len(cluster.upstream.requests)
        answers = await ask_many(cluster)
        assert [answer.status_code for answer in answers] == [200] * 12
        assert {answer.json()["provider"] for answer in answers} == {"mock"}
        assert len(cluster.upstream.requests) == asked
        assert opened.failures == 3 and "overloaded" in opened.reason
        report = await health(cluster, 0)
        assert report["status"] != "healthy"


async def test_a_target_comes_back_by_one_probe_of_all_workers(tmp_path: Path) -> None:
    async with two_of_each(tmp_path, SOON) as cluster:
        opened = await broken(cluster)
        release = asyncio.Event()
        cluster.upstream.script(Reply(before=(release,), steps=GOOD.steps, headers=GOOD.headers))
        asked = len(cluster.upstream.requests)
        await until(lambda: time.time() > _seconds(opened.until))
        calls = [asyncio.create_task(cluster.ask("Hi", ingress=n % 2)) for n in range(12)]
        await until(lambda: sum(call.done() for call in calls) == 11)
        assert len(cluster.upstream.requests) == asked + 1
        release.set()
        answers = [await call for call in calls]
        assert sorted(answer.json()["provider"] for answer in answers) == ["mock"] * 11 + ["up"]
        await known_to_both_ingresses(cluster, {})
        again = await ask_many(cluster)
        assert {answer.json()["provider"] for answer in again} == {"up"}
        assert await after_opening(cluster) == ["half_open", "closed"]


async def test_a_probe_that_fails_opens_for_twice_as_long(tmp_path: Path) -> None:
    async with two_of_each(tmp_path, SOON) as cluster:
        opened = await broken(cluster)
        await until(lambda: time.time() > _seconds(opened.until))
        answer = await cluster.ask("Hi")
        assert answer.json()["provider"] == "mock"
        last = (await states(cluster))[-1]
        assert (last.state, last.opened, last.failures) == ("open", 2, 4)
        assert abs(_seconds(last.until) - _seconds(last.time) - 2 * SOON) < 0.1


async def test_another_probes_after_the_worker_of_a_probe_was_killed(tmp_path: Path) -> None:
    async with two_of_each(tmp_path, SOON) as cluster:
        opened = await broken(cluster)
        cluster.upstream.requests.clear()
        cluster.upstream.script(Reply(before=(HANG,)))
        await until(lambda: time.time() > _seconds(opened.until))
        call = asyncio.create_task(cluster.ask("Hi"))
        probe: Recorded = await until(lambda: next(iter(cluster.upstream.requests), None))
        await cluster.runner(probe).kill()
        cluster.upstream.script(GOOD)
        assert (await call).status_code == 200

        async def is_back() -> bool:
            return (await cluster.ask("Hi", ingress=1)).json()["provider"] == "up"

        await until(is_back)
        assert await after_opening(cluster) == ["half_open", "half_open", "closed"]


async def test_the_states_outlast_the_bus_and_are_learnt_by_who_comes_later(
    tmp_path: Path,
) -> None:
    async with two_of_each(tmp_path, NEVER) as cluster:
        await broken(cluster)
        asked = len(cluster.upstream.requests)
        cluster.bus.kill()
        cluster.bus.start()
        await until(lambda: cluster.connection.connected)
        for worker in cluster.workers:
            await worker.kill()
        await cluster.role("worker", "later").start()

        async def answered() -> bool:
            return (await cluster.ask("Hi")).status_code == 200

        await until(answered)
        answers = await ask_many(cluster)
        assert {answer.json()["provider"] for answer in answers} == {"mock"}
        assert len(cluster.upstream.requests) == asked
        await known_to_both_ingresses(cluster, {"chat": "open"})


async def test_with_nothing_else_left_a_call_is_told_when_to_come_again(tmp_path: Path) -> None:
    async with two_of_each(tmp_path, NEVER, fallback=False) as cluster:
        await broken(cluster)
        await known_to_both_ingresses(cluster, {"chat": "open"})
        asked = len(cluster.upstream.requests)
        answer = await cluster.ask("Hi", app="late")
        error = answer.json()["error"]
        assert (answer.status_code, error["type"], error["code"], error["provider"]) == (
            503,
            "server_error",
            "target_unavailable",
            "up",
        )
        assert 500 < int(answer.headers["retry-after"]) <= NEVER
        assert len(cluster.upstream.requests) == asked
        (end,) = [e for e in await cluster.events("late") if isinstance(e, RequestFailed)]
        assert (end.attempts, end.cost_nano) == (0, 0)


async def test_faults_that_a_retry_mends_break_nothing(tmp_path: Path) -> None:
    async with two_of_each(tmp_path, NEVER) as cluster:
        cluster.upstream.script(*([DOWN, DOWN, GOOD] * 8))
        for number in range(8):
            answer = await cluster.ask("Hi", ingress=number % 2)
            assert answer.json()["provider"] == "up"
        assert not await states(cluster)
        ends = [e for e in await cluster.events() if isinstance(e, RequestComplete)]
        assert [end.attempts for end in ends] == [3] * 8


async def test_a_target_that_lets_calls_hang_to_their_deadline_breaks_too(tmp_path: Path) -> None:
    async with two_of_each(tmp_path, NEVER) as cluster:
        cluster.upstream.script(Reply(before=(HANG,)))
        publisher, clock = Publisher(cluster.connection), Clock()
        target = Target("up", "slow", "up", timeouts=Timeouts(first_byte=0.2))

        async def call() -> None:
            now = clock.now_ns()
            hanging = Call(
                id=clock.new_id(),
                model="chat",
                plan=(target,),
                tenant=Tenant(),
                ingress="nobody",
                received_ns=now,
                deadline_ns=now + 10**9,
                body=b'{"model": "chat", "messages": []}',
            )
            await submit(publisher, hanging)

        async def all_ended() -> bool:
            return not await cluster.jobs()

        while not (found := await states(cluster)):
            await asyncio.gather(*(call() for _ in range(6)))
            await until(all_ended)
        assert (found[0].state, found[0].engine, found[0].code) == ("open", "slow", "timeout")


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
