"""A pool whose provider says 429 runs fewer calls at once, then more; others are not held up."""

import asyncio
from pathlib import Path

from schemas.events import RequestComplete
from tests.cluster import Cluster, until
from tests.upstream import HANG, Reply, chat_answer, json_reply

GOOD = json_reply(chat_answer("ok"))
REFUSED = Reply(
    status=429,
    headers={"retry-after-ms": "20", "Content-Type": "application/json"},
    steps=(b'{"error": {"message": "slow down"}}',),
)


async def at_the_upstream(cluster: Cluster, gate: asyncio.Event, calls: int) -> int:
    """How many of so many calls are asked at once: the rest waits in the queue."""
    cluster.upstream.requests.clear()
    cluster.upstream.script(Reply(before=(gate,), headers=GOOD.headers, steps=GOOD.steps))
    asked = [asyncio.create_task(cluster.ask("Hi")) for _ in range(calls)]

    async def all_placed() -> bool:
        return len(cluster.upstream.requests) + await cluster.waiting() == calls

    await until(all_placed)
    running = len(cluster.upstream.requests)
    gate.set()
    assert {(await call).status_code for call in asked} == {200}
    return running


async def test_a_storm_of_refusals_shrinks_a_pool_and_answers_let_it_grow(tmp_path: Path) -> None:
    async with Cluster(tmp_path, concurrency=16) as cluster:
        assert await at_the_upstream(cluster, asyncio.Event(), 20) == 13
        cluster.upstream.script(*[REFUSED] * 6, GOOD)
        answers = await asyncio.gather(*(cluster.ask("Hi") for _ in range(6)))
        assert {answer.status_code for answer in answers} == {200}
        shrunk = await at_the_upstream(cluster, asyncio.Event(), 20)
        assert shrunk <= 6
        most = shrunk
        while most <= shrunk + 1:
            most = max(most, await at_the_upstream(cluster, asyncio.Event(), 20))
        ends = [event for event in await cluster.settled() if isinstance(event, RequestComplete)]
        assert len({end.call_id for end in ends}) == len(ends)


async def test_a_pool_that_is_full_of_slow_calls_holds_up_no_other(tmp_path: Path) -> None:
    async with Cluster(tmp_path, concurrency=2) as cluster:
        cluster.upstream.script(Reply(before=(HANG,)))
        slow = [asyncio.create_task(cluster.ask("Hi")) for _ in range(6)]

        async def is_full() -> bool:
            return len(cluster.upstream.requests) == 1 and await cluster.waiting() == 5

        await until(is_full)
        body, headers = cluster.request("Hi", "", stream=False)
        answer = await cluster.client.post(
            cluster.urls[0], json={**body, "model": "mock"}, headers=headers
        )
        assert (answer.status_code, answer.json()["provider"]) == (200, "mock")
        assert len(cluster.upstream.requests) == 1
        for call in slow:
            call.cancel()
