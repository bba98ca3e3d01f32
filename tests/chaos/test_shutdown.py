"""What becomes of calls when a process is asked to stop: they finish, or go to another."""

import asyncio
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from schemas.events import (
    AttemptAbandoned,
    RequestCancelled,
    RequestComplete,
    RequestFailed,
    RequestStart,
    StreamingStart,
)
from tests.cluster import Cluster, Role, until
from tests.ledger_facts import cost, outcomes, price
from tests.upstream import (
    HANG,
    Recorded,
    Reply,
    chat_answer,
    chat_chunk,
    chat_stream,
    event,
    event_stream,
    json_reply,
)

HEAD = {"Content-Type": "application/json"}
SILENT = Reply(before=(HANG,))
# No test here may have to wait for the queue to give a job out again.
PATIENT = {"ack_wait": 30.0, "in_progress_every": 1.0}


def other(cluster: Cluster, worker: Role) -> Role:
    return next(one for one in cluster.workers if one is not worker)


async def test_a_worker_that_is_asked_to_stop_finishes_its_calls_and_takes_no_more(
    tmp_path: Path,
) -> None:
    async with Cluster(tmp_path, workers=2, settings={"queue": PATIENT}) as cluster:
        gate = asyncio.Event()
        cluster.upstream.script(
            event_stream(event(chat_chunk("a")), gate, *chat_stream("b").steps),
        )
        stream = cluster.stream("hi")
        await until(lambda: stream.texts == ["a"])
        worker = cluster.runner(await cluster.upstream.request(0))
        cluster.upstream.script(
            Reply(headers=HEAD, before=(gate,), steps=json_reply(chat_answer("slow")).steps)
        )
        asking = [asyncio.create_task(cluster.ask("hi")) for _ in range(4)]
        await cluster.upstream.request(4)
        worker.terminate()
        cluster.upstream.script(json_reply(chat_answer("quick")))
        await until(lambda: stands_back(cluster, worker))
        for _ in range(5):
            answer = await cluster.ask("hi")
            assert answer.json()["choices"][0]["message"]["content"] == "quick"
            assert cluster.runner(cluster.upstream.requests[-1]) is other(cluster, worker)
        gate.set()

        assert [answer.status_code for answer in await asyncio.gather(*asking)] == [200] * 4
        await stream.end()
        assert (stream.texts, stream.done) == (["a", "b"], True)
        assert await worker.ended() == 0
        events = await cluster.settled()
        assert not outcomes(events, AttemptAbandoned)


async def stands_back(cluster: Cluster, worker: Role) -> bool:
    """Whether new calls go to other workers only: of a few, none went to this one."""
    before = len(cluster.upstream.requests)
    await asyncio.gather(*(cluster.ask("hi") for _ in range(4)))
    return all(cluster.runner(one) is not worker for one in cluster.upstream.requests[before:])


async def text_of(cluster: Cluster, streamed: bool) -> str:
    """The text of an answer, streamed or not, that came to a good end."""
    if not streamed:
        answer = (await cluster.ask("hi")).json()
        return str(answer["choices"][0]["message"]["content"])
    stream = await cluster.stream("hi").end()
    assert stream.done
    return "".join(stream.texts)


@pytest.mark.parametrize("streamed", [False, True])
async def test_what_has_shown_nothing_when_time_is_up_is_handed_to_another_worker(
    tmp_path: Path, streamed: bool
) -> None:
    settings = {"drain": 0.5, "queue": PATIENT}
    async with Cluster(tmp_path, workers=2, settings=settings) as cluster:
        good = chat_stream("Hello") if streamed else json_reply(chat_answer("Hello"))
        cluster.upstream.script(SILENT, good)
        asking = asyncio.create_task(text_of(cluster, streamed))
        worker = cluster.runner(await cluster.upstream.request(0))
        worker.terminate()
        async with asyncio.timeout(15):
            assert await asking == "Hello"
        assert await worker.ended() == 0
        events = await cluster.settled()
        assert [type(one) for one in events] == [
            RequestStart,
            AttemptAbandoned,
            *([StreamingStart] if streamed else []),
            RequestComplete,
        ]


async def test_a_stream_that_is_not_over_when_time_is_up_ends_with_an_error(tmp_path: Path) -> None:
    settings = {"drain": 0.5, "queue": PATIENT}
    async with Cluster(tmp_path, workers=2, settings=settings) as cluster:
        cluster.upstream.script(event_stream(event(chat_chunk("four")), HANG))
        stream = cluster.stream("eight by")
        await until(lambda: stream.texts == ["four"])
        worker = cluster.runner(await cluster.upstream.request(0))
        worker.terminate()
        await stream.end()
        assert stream.error is not None
        assert (stream.texts, stream.error["code"]) == (["four"], "worker_stopped")
        assert await worker.ended() == 0
        events = await cluster.settled()
        assert [type(one) for one in events] == [RequestStart, StreamingStart, RequestFailed]
        assert cost(events) == price(2, 1)


async def test_a_job_that_still_waits_is_there_for_the_next_worker(tmp_path: Path) -> None:
    settings = {"drain": 0.5, "queue": PATIENT}
    async with Cluster(tmp_path, concurrency=1, settings=settings) as cluster:
        cluster.upstream.script(SILENT, json_reply(chat_answer("Hello")))
        asking = [asyncio.create_task(cluster.ask("hi")) for _ in range(3)]
        await cluster.upstream.request(0)
        await until(lambda: are_waiting(cluster, 2))
        worker = cluster.workers[0]
        worker.terminate()
        assert await worker.ended() == 0
        await worker.start()
        async with asyncio.timeout(15):
            answers = await asyncio.gather(*asking)
        assert [answer.status_code for answer in answers] == [200] * 3
        events = await cluster.settled()
        assert len(outcomes(events, AttemptAbandoned)) == 1


async def are_waiting(cluster: Cluster, jobs: int) -> bool:
    return await cluster.waiting() == jobs


async def test_workers_restarted_one_after_the_other_are_not_noticed(tmp_path: Path) -> None:
    async with Cluster(tmp_path, workers=2, settings={"queue": PATIENT}) as cluster:

        def reply(request: Recorded) -> Reply:
            if request.json.get("stream"):
                return chat_stream("a", "b", "c", pause=0.02)
            return json_reply(chat_answer("Hello"))

        cluster.upstream.script(reply)
        stopped, slowest = False, 0.0

        async def client(streamed: bool) -> None:
            nonlocal slowest
            while not stopped:
                before = time.monotonic()
                if streamed:
                    stream = await cluster.stream("hi").end()
                    assert (stream.texts, stream.done) == (["a", "b", "c"], True), stream.error
                else:
                    answer = await cluster.ask("hi")
                    assert answer.status_code == 200, answer.text
                slowest = max(slowest, time.monotonic() - before)

        clients = [asyncio.create_task(client(number % 2 == 0)) for number in range(12)]
        for worker in cluster.workers:
            worker.terminate()
            assert await worker.ended() == 0
            await worker.start()
        stopped = True
        await asyncio.gather(*clients)
        events = await cluster.settled()
        assert not outcomes(events, AttemptAbandoned), "a job was given out twice"
        assert slowest < PATIENT["ack_wait"] / 2, "a job waited for its ack time"


async def test_an_ingress_that_is_asked_to_stop_finishes_its_calls_and_takes_no_more(
    tmp_path: Path,
) -> None:
    async with Cluster(tmp_path) as cluster:
        gate = asyncio.Event()
        cluster.upstream.script(
            event_stream(event(chat_chunk("a")), gate, *chat_stream("b").steps),
            Reply(headers=HEAD, before=(gate,), steps=json_reply(chat_answer("slow")).steps),
        )
        stream = cluster.stream("hi")
        await until(lambda: stream.texts == ["a"])
        asking = asyncio.create_task(cluster.ask("hi"))
        await cluster.upstream.request(1)
        cluster.ingresses[0].terminate()
        await until(lambda: is_refused(cluster.urls[0]))
        gate.set()

        await stream.end()
        assert (stream.texts, stream.done) == (["a", "b"], True)
        assert (await asking).status_code == 200
        assert await cluster.ingresses[0].ended() == 0
        events = await cluster.settled()
        assert len(outcomes(events, RequestComplete)) == 2


async def is_refused(url: str) -> bool:
    address = urlsplit(url)
    try:
        _, writer = await asyncio.open_connection(address.hostname, address.port)
    except ConnectionRefusedError:
        return True
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    return False


async def test_a_stream_longer_than_an_ingress_waits_ends_with_an_error_and_upstream(
    tmp_path: Path,
) -> None:
    async with Cluster(tmp_path, settings={"drain": 1.0}) as cluster:
        cluster.upstream.script(event_stream(event(chat_chunk("four")), HANG))
        stream = cluster.stream("hi")
        await until(lambda: stream.texts == ["four"])
        cluster.ingresses[0].terminate()
        assert await cluster.ingresses[0].ended() == 0
        await stream.end()
        assert stream.error is not None
        assert (stream.texts, stream.error["code"]) == (["four"], "gateway_stopped")
        async with asyncio.timeout(5):
            await (await cluster.upstream.request(0)).gone.wait()
        events = await cluster.settled()
        assert isinstance(events[-1], RequestCancelled)


async def test_processes_that_are_asked_to_stop_while_the_bus_is_away_stop(tmp_path: Path) -> None:
    async with Cluster(tmp_path, settings={"drain": 1.0}) as cluster:
        cluster.upstream.script(event_stream(event(chat_chunk("four")), HANG))
        stream = cluster.stream("hi")
        await until(lambda: stream.texts == ["four"])
        cluster.bus.kill()
        roles = (cluster.workers[0], cluster.ingresses[0])
        for role in roles:
            role.terminate()
        assert [await role.ended() for role in roles] == [0, 0]
        await stream.end()
        assert stream.error is not None
