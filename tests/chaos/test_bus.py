"""What becomes of calls when the bus dies, stays away, or loses their jobs."""

import asyncio
import itertools
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.events import AttemptAbandoned, RequestComplete, RequestLost, RequestStart
from tests.cluster import Cluster, until
from tests.ledger_facts import outcomes
from tests.streaming import Stream
from tests.upstream import Recorded, Reply, chat_answer, chat_stream, json_reply

DEFAULTS = {"queue": {"ack_wait": 6.0, "in_progress_every": 1.0}}


def words(prompt: str, count: int) -> list[str]:
    """What the upstream says to a prompt, so that no two streams are alike."""
    return [f"{prompt}.{number} " for number in range(count)]


def slowly(count: int, pause: float) -> Callable[[Recorded], Reply]:
    """An upstream that answers each prompt with its own words: streamed with pauses, or whole."""

    def reply(request: Recorded) -> Reply:
        prompt = request.json["messages"][0]["content"]
        if request.json.get("stream"):
            return chat_stream(*words(prompt, count), pause=pause)
        return json_reply(chat_answer(prompt))

    return reply


async def kill_bus(cluster: Cluster, away: float) -> None:
    """The end of a crash and a restart, `away` seconds apart."""
    cluster.bus.kill()
    await asyncio.sleep(away)
    cluster.bus.start()


async def has_shown(stream: Stream, chunks: int) -> None:
    """Returns when so many chunks of a stream are there."""
    await until(lambda: len(stream.texts) >= chunks)


@pytest.mark.parametrize(("workers", "ingresses"), [(1, 1), (2, 2)])
async def test_streams_survive_the_death_of_the_bus_without_a_gap_or_a_repeat(
    tmp_path: Path, workers: int, ingresses: int
) -> None:
    count = 50
    async with Cluster(
        tmp_path, workers=workers, ingresses=ingresses, settings=DEFAULTS
    ) as cluster:
        cluster.upstream.script(slowly(count, 0.04))
        for round_, away in enumerate((0.3, 1.0)):
            streams = {
                f"r{round_}s{number}": cluster.stream(
                    f"r{round_}s{number}", app="stream", ingress=number % ingresses
                )
                for number in range(24)
            }
            for stream in streams.values():
                await has_shown(stream, 3)
            await kill_bus(cluster, away)
            back = time.monotonic()
            answer = await cluster.ask("new", app="new")
            waited = time.monotonic() - back
            print(f"a new call took {waited:.2f} s after the return of the bus")
            assert answer.status_code == 200, answer.text
            for prompt, stream in streams.items():
                await stream.end()
                assert (stream.error, stream.done) == (None, True), prompt
                assert stream.texts == words(prompt, count)
        events = await cluster.settled()
        assert len(outcomes(events, RequestComplete)) == 50
        assert not outcomes(events, AttemptAbandoned)
        assert len(cluster.upstream.requests) == 50


async def test_no_stream_is_a_mixture_when_the_bus_forgets_who_had_its_job(tmp_path: Path) -> None:
    """A kill takes the deliveries of the last moments with it: the queue gives those jobs out again
    as if for the first time, also to another worker than the one that runs them."""
    count = 30
    async with Cluster(tmp_path, workers=2, ingresses=2, settings=DEFAULTS) as cluster:
        answered = itertools.count()

        def reply(request: Recorded) -> Reply:
            return chat_stream(*words(f"answer {next(answered)}", count), pause=0.03)

        cluster.upstream.script(reply)
        for _ in range(2):
            streams: list[Stream] = []
            for number in range(40):
                streams.append(cluster.stream("hi", ingress=number % 2))
                await asyncio.sleep(0.005)
            await kill_bus(cluster, 0.3)
            for stream in streams:
                await stream.end()
                assert (stream.error, stream.done) == (None, True)
                assert stream.texts == words(stream.texts[0].split(".")[0], count)
        events = await cluster.settled()
        assert len(outcomes(events, RequestComplete)) == 80


async def test_calls_begun_while_the_bus_is_away_wait_for_it(tmp_path: Path) -> None:
    async with Cluster(tmp_path, settings=DEFAULTS) as cluster:
        cluster.upstream.script(slowly(5, 0.01))
        cluster.bus.kill()
        asking = [asyncio.create_task(cluster.ask(f"p{number}")) for number in range(10)]
        streams = [cluster.stream(f"s{number}") for number in range(10)]
        await asyncio.sleep(1.0)
        cluster.bus.start()
        for answer in await asyncio.gather(*asking):
            assert answer.status_code == 200, answer.text
        for number, stream in enumerate(streams):
            assert (await stream.end()).texts == words(f"s{number}", 5)
        events = await cluster.settled()
        assert len(outcomes(events, RequestComplete)) == 20


async def test_a_bus_that_stays_away_gives_503_with_a_time_to_come_back(tmp_path: Path) -> None:
    settings = {"queue": {"ack_wait": 4.0, "in_progress_every": 1.0}}
    async with Cluster(tmp_path, settings=settings) as cluster:
        cluster.upstream.script(slowly(150, 0.05))
        stream = cluster.stream("long")
        await has_shown(stream, 3)
        cluster.bus.kill()
        killed = time.monotonic()
        answers = await asyncio.gather(*(cluster.ask("hi", app="refused") for _ in range(5)))
        for answer in answers:
            error = answer.json()["error"]
            assert (answer.status_code, error["type"], error["code"]) == (
                503,
                "server_error",
                "bus_away",
            )
            assert int(answer.headers["retry-after"]) >= 1
            assert error["request_id"] == answer.headers["x-request-id"]
        # By now the worker cannot be sure any more that the running stream is still its own.
        await until(lambda: time.monotonic() > killed + 4.5)
        cluster.bus.start()

        assert (await cluster.ask("hi")).status_code == 200
        await stream.end()
        assert stream.clear
        await cluster.settled(30.0)


async def test_a_job_that_was_lost_altogether_is_ended_by_the_governor(tmp_path: Path) -> None:
    async with Cluster(tmp_path, settings={"call_deadline": 1.0}) as cluster:
        await cluster.governor(close_after=1.0).start()
        await cluster.workers[0].pause()
        stream = cluster.stream("hi", app="one")
        await until(lambda: has_job(cluster))
        await cluster.api("STREAM.PURGE.WORK")
        await cluster.workers[0].kill()

        events = await cluster.settled()
        assert [type(one) for one in events] == [RequestStart, RequestLost]
        await stream.leave()
        cluster.ingresses[0].terminate()
        assert await cluster.ingresses[0].ended() == 0
        assert await cluster.settled() == events, "a cancel after the end is no second end"


async def has_job(cluster: Cluster) -> bool:
    return await cluster.jobs() == 1
