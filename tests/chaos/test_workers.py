"""What becomes of a call when its worker dies or stands still."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from ledger.reader import read_subject
from schemas import subjects
from schemas.events import (
    AttemptAbandoned,
    AttemptLate,
    RequestComplete,
    RequestFailed,
    RequestStart,
    StreamingStart,
)
from schemas.frames import Finish, decode_frame
from tests.bus_tap import BusTap
from tests.cluster import ACK_WAIT, Cluster, until
from tests.ledger_facts import cost, one_end, outcomes, price
from tests.upstream import (
    DONE,
    HANG,
    Reply,
    chat_answer,
    chat_chunk,
    chat_stream,
    event,
    event_stream,
    json_reply,
    usage,
)

SILENT = Reply(before=(HANG,))
LAST = event(chat_chunk({}, finish_reason="stop"))


def usage_event(prompt: int, completion: int) -> bytes:
    return event(chat_chunk({}, choices=[], usage=usage(prompt, completion))) + DONE


@pytest.mark.parametrize("ack_wait", [ACK_WAIT, 4.0])
async def test_a_worker_killed_before_its_first_frame_is_replaced_unseen(
    tmp_path: Path, ack_wait: float
) -> None:
    queue = {"queue": {"ack_wait": ack_wait}}
    async with Cluster(tmp_path, workers=2, settings=queue) as cluster:
        cluster.upstream.script(SILENT, json_reply(chat_answer("Hello")))
        asking = asyncio.create_task(cluster.ask("hi", app="one"))
        silent = await cluster.upstream.request(0)
        await cluster.runner(silent).kill()
        killed = time.monotonic()
        answer = await asking
        waited = time.monotonic() - killed

        assert answer.status_code == 200
        assert answer.json()["choices"][0]["message"]["content"] == "Hello"
        assert waited < ack_wait + 3.0, "the job should come back by its ack time"
        events = await cluster.settled()
        assert [type(one) for one in events] == [RequestStart, AttemptAbandoned, RequestComplete]
        (abandoned,) = outcomes(events, AttemptAbandoned)
        assert (abandoned.cost_nano, abandoned.attempts) == (None, 1)
        (complete,) = outcomes(events, RequestComplete)
        assert (complete.cost_nano, complete.attempts) == (price(7, 3), 2)
        assert len(cluster.upstream.requests) == 2


async def test_a_stream_that_has_shown_nothing_is_taken_over_unseen(tmp_path: Path) -> None:
    async with Cluster(tmp_path, workers=2) as cluster:
        cluster.upstream.script(SILENT, chat_stream("a", "b"))
        stream = cluster.stream("hi")
        await cluster.runner(await cluster.upstream.request(0)).kill()
        await stream.end()

        assert (stream.texts, stream.done, stream.error) == (["a", "b"], True, None)
        events = await cluster.settled()
        assert [type(one) for one in events] == [
            RequestStart,
            AttemptAbandoned,
            StreamingStart,
            RequestComplete,
        ]


async def test_the_only_worker_killed_finishes_the_call_once_it_is_back(tmp_path: Path) -> None:
    async with Cluster(tmp_path) as cluster:
        cluster.upstream.script(SILENT, json_reply(chat_answer("Hello")))
        asking = asyncio.create_task(cluster.ask("hi"))
        await cluster.upstream.request(0)
        await cluster.workers[0].kill()
        await cluster.workers[0].start()

        assert (await asking).status_code == 200
        events = await cluster.settled()
        assert [type(one) for one in events] == [RequestStart, AttemptAbandoned, RequestComplete]


async def test_a_stream_whose_worker_is_killed_ends_with_an_error_and_an_estimate(
    tmp_path: Path,
) -> None:
    async with Cluster(tmp_path, workers=2) as cluster:
        cluster.upstream.script(
            event_stream(event(chat_chunk("four")), event(chat_chunk("more")), HANG),
            chat_stream("never", "shown"),
        )
        stream = cluster.stream("eight by", app="one")
        await until(lambda: stream.texts == ["four", "more"])
        await cluster.runner(await cluster.upstream.request(0)).kill()
        await stream.end()

        assert stream.texts == ["four", "more"], "a silent restart or a repeat"
        assert stream.error is not None
        assert stream.error["code"] == "worker_lost"
        assert not stream.done
        events = await cluster.settled()
        assert [type(one) for one in events] == [
            RequestStart,
            StreamingStart,
            AttemptAbandoned,
            RequestFailed,
        ]
        (abandoned,) = outcomes(events, AttemptAbandoned)
        assert abandoned.usage_status == "estimated"
        assert abandoned.cost_nano == price(2, 2)
        assert cost(events) == price(2, 2)
        assert len(cluster.upstream.requests) == 1


async def test_a_whole_answer_cut_by_a_kill_is_asked_for_again_unseen(tmp_path: Path) -> None:
    async with Cluster(tmp_path, workers=2) as cluster:
        headers = {"Content-Type": "application/json", "Content-Length": "500"}
        cluster.upstream.script(
            Reply(headers=headers, steps=(b'{"id": "half', HANG)), json_reply(chat_answer("whole"))
        )
        asking = asyncio.create_task(cluster.ask("hi"))
        await cluster.runner(await cluster.upstream.request(0)).kill()

        answer = await asking
        assert answer.json()["choices"][0]["message"]["content"] == "whole"
        events = await cluster.settled()
        assert [type(one) for one in events] == [RequestStart, AttemptAbandoned, RequestComplete]


# Between the steps of the end.


@pytest.fixture
async def tap() -> AsyncIterator[BusTap]:
    one = BusTap()
    yield one
    await one.close()


def is_finish(subject: str, payload: bytes) -> bool:
    return subject.startswith("resp.") and isinstance(decode_frame(payload), Finish)


def is_end_in_ledger(subject: str, payload: bytes) -> bool:
    return subject.endswith(".model.request.complete")


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("is_last_step", [is_finish, is_end_in_ledger])
async def test_a_worker_killed_while_it_ends_a_call_is_completed_without_a_second_upstream_call(
    tmp_path: Path, tap: BusTap, is_last_step: Callable[[str, bytes], bool], streamed: bool
) -> None:
    async with Cluster(tmp_path, via=tap.open) as cluster:
        cluster.upstream.script(
            chat_stream("a", "b") if streamed else json_reply(chat_answer("Hello"))
        )
        tap.hold_after(is_last_step)
        if streamed:
            stream = await cluster.stream("hi").end()
            assert (stream.texts, stream.done) == (["a", "b"], True)
        else:
            assert (await cluster.ask("hi")).status_code == 200
        await tap.holding.wait()
        (finish,) = await until(lambda: stored_finishes(cluster))
        await cluster.workers[0].kill()
        before = await cluster.events()
        assert len(outcomes(before, RequestComplete)) == (is_last_step is is_end_in_ledger)
        assert await cluster.jobs() == 1

        await cluster.role("worker", "successor").start()
        events = await cluster.settled()
        (complete,) = outcomes(events, RequestComplete)
        assert complete.event_id == finish.event_id
        assert [type(one) for one in events] == [
            RequestStart,
            *([StreamingStart] if streamed else []),
            RequestComplete,
        ]
        assert len(cluster.upstream.requests) == 1


async def stored_finishes(cluster: Cluster) -> list[Finish]:
    records = await read_subject(cluster.connection, subjects.RESP, subjects.RESP_SUBJECTS)
    frames = [decode_frame(record.data) for record in records]
    return [frame for frame in frames if isinstance(frame, Finish)]


# Paused, given up, and awake again.


async def test_an_answer_that_comes_after_the_call_was_finished_elsewhere_is_late(
    tmp_path: Path,
) -> None:
    async with Cluster(tmp_path, workers=2) as cluster:
        gate = asyncio.Event()
        cluster.upstream.script(
            Reply(
                before=(gate,),
                headers={"Content-Type": "application/json"},
                steps=json_reply(chat_answer("first", usage=usage(7, 40))).steps,
            ),
            json_reply(chat_answer("second", usage=usage(7, 3))),
        )
        asking = asyncio.create_task(cluster.ask("hi"))
        paused = cluster.runner(await cluster.upstream.request(0))
        await paused.pause()
        answer = await asking
        assert answer.json()["choices"][0]["message"]["content"] == "second"
        await cluster.settled()

        gate.set()
        paused.resume()
        await until(lambda: has(cluster, AttemptLate))
        events = await cluster.settled()
        assert [type(one) for one in events] == [
            RequestStart,
            AttemptAbandoned,
            RequestComplete,
            AttemptLate,
        ]
        assert one_end(events, events[0].call_id).cost_nano == price(7, 3)
        assert outcomes(events, AttemptLate)[0].cost_nano == price(7, 40)
        assert cost(events) == price(7, 40) + price(7, 3)
        assert len(cluster.upstream.requests) == 2


async def test_a_worker_that_wakes_while_another_runs_its_call_leaves_the_end_to_that_one(
    tmp_path: Path,
) -> None:
    async with Cluster(tmp_path, workers=2) as cluster:
        first, second = asyncio.Event(), asyncio.Event()
        head = {"Content-Type": "application/json"}
        cluster.upstream.script(
            Reply(headers=head, before=(first,), steps=json_reply(chat_answer("first")).steps),
            Reply(headers=head, before=(second,), steps=json_reply(chat_answer("second")).steps),
        )
        asking = asyncio.create_task(cluster.ask("hi"))
        paused = cluster.runner(await cluster.upstream.request(0))
        await paused.pause()
        await cluster.upstream.request(1)
        first.set()
        paused.resume()
        await until(lambda: has(cluster, AttemptLate))
        second.set()

        answer = await asking
        assert answer.json()["choices"][0]["message"]["content"] == "second"
        events = await cluster.settled()
        assert [type(one) for one in events] == [
            RequestStart,
            AttemptAbandoned,
            AttemptLate,
            RequestComplete,
        ]
        assert cost(events) == 2 * price(7, 3)


async def test_the_only_worker_may_sleep_past_its_ack_time_and_the_call_still_ends_once(
    tmp_path: Path,
) -> None:
    async with Cluster(tmp_path) as cluster:
        gate = asyncio.Event()
        head = {"Content-Type": "application/json"}
        cluster.upstream.script(
            Reply(headers=head, before=(gate,), steps=json_reply(chat_answer("first")).steps),
            json_reply(chat_answer("second")),
        )
        asking = asyncio.create_task(cluster.ask("hi"))
        await cluster.upstream.request(0)
        await cluster.workers[0].pause()
        gate.set()
        await until(lambda: was_given_out_again(cluster))
        cluster.workers[0].resume()

        assert (await asking).status_code == 200
        await cluster.settled()


async def was_given_out_again(cluster: Cluster) -> bool:
    info = await cluster.api("CONSUMER.INFO.WORK.up-interactive")
    return bool(info["num_redelivered"])


@pytest.mark.parametrize("told", [True, False])
async def test_a_stream_ended_elsewhere_is_late_with_the_difference_to_its_estimate(
    tmp_path: Path, told: bool
) -> None:
    """`told`: the paused worker still gets the end with the provider's usage; else only one more
    chunk, and the estimate grows by that."""
    async with Cluster(tmp_path, workers=2) as cluster:
        gate = asyncio.Event()
        rest = (LAST + usage_event(9, 30),) if told else (event(chat_chunk("last")), HANG)
        cluster.upstream.script(
            event_stream(event(chat_chunk("four")), event(chat_chunk("more")), gate, *rest)
        )
        stream = cluster.stream("eight by")
        await until(lambda: stream.texts == ["four", "more"])
        paused = cluster.runner(await cluster.upstream.request(0))
        await paused.pause()
        await stream.end()
        assert (stream.texts, stream.done) == (["four", "more"], False)
        assert stream.error is not None
        (abandoned,) = outcomes(await cluster.settled(), AttemptAbandoned)
        assert (abandoned.cost_nano, abandoned.usage_status) == (price(2, 2), "estimated")

        gate.set()
        paused.resume()
        await until(lambda: has(cluster, AttemptLate))
        events = await cluster.settled()
        assert isinstance(one_end(events, events[0].call_id), RequestFailed)
        (late,) = outcomes(events, AttemptLate)
        assert late.corrects == 1 + events.index(abandoned)
        assert cost(events) == (price(9, 30) if told else price(2, 3))
        assert len(cluster.upstream.requests) == 1


async def has(cluster: Cluster, kind: type[AttemptLate]) -> bool:
    return bool(outcomes(await cluster.events(), kind))
