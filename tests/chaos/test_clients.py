"""What becomes of a call whose client leaves, which nobody takes, or which takes too long."""

import asyncio
import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from schemas.events import (
    RequestCancelled,
    RequestComplete,
    RequestFailed,
    RequestRejected,
    RequestStart,
    StreamingStart,
)
from tests.cluster import KEY, Cluster, until
from tests.ledger_facts import cost, ends, outcomes, price
from tests.upstream import (
    HANG,
    Reply,
    chat_answer,
    chat_chunk,
    event,
    event_stream,
    json_reply,
)

SILENT = Reply(before=(HANG,))
FIELDS = {"message", "type", "param", "code", "provider", "request_id"}


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """The error in the one shape."""
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == FIELDS
    assert error["request_id"] == answer.headers["x-request-id"]
    return error


class Visitor:
    """A client on a raw socket, so that it is known when its connection is closed."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self._writer = reader, writer

    @classmethod
    async def ask(cls, cluster: Cluster, text: str, app: str, *, stream: bool) -> "Visitor":
        url = urlsplit(cluster.urls[0])
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        content, headers = cluster.request(text, app, stream)
        body = json.dumps(content).encode()
        lines = [f"POST {url.path} HTTP/1.1", f"Host: {url.netloc}", f"Authorization: Bearer {KEY}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}", "", ""]
        writer.write("\r\n".join(lines).encode() + body)
        return cls(reader, writer)

    async def leave(self) -> float:
        """Close the connection; the moment of it, by the monotonic clock."""
        left = time.monotonic()
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()
        return left


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_client_that_leaves_before_the_first_byte_ends_the_upstream_call(
    tmp_path: Path, streamed: bool
) -> None:
    async with Cluster(tmp_path) as cluster:
        cluster.upstream.script(SILENT)
        visitor = await Visitor.ask(cluster, "eight by", "one", stream=streamed)
        request = await cluster.upstream.request(0)
        left = await visitor.leave()
        async with asyncio.timeout(2):
            await request.gone.wait()
        print(f"upstream closed after {(time.monotonic() - left) * 1e3:.1f} ms")

        events = await cluster.settled()
        assert [type(one) for one in events] == [RequestStart, RequestCancelled]
        (cancelled,) = outcomes(events, RequestCancelled)
        assert (cancelled.usage_status, cancelled.cost_nano) == ("estimated", price(2, 0))


async def test_a_client_that_leaves_a_stream_ends_the_upstream_call_and_pays_what_came(
    tmp_path: Path,
) -> None:
    async with Cluster(tmp_path) as cluster:
        cluster.upstream.script(event_stream(event(chat_chunk("twelve bytes")), HANG))
        visitor = await Visitor.ask(cluster, "eight by", "one", stream=True)
        await visitor.reader.readuntil(b"twelve bytes")
        left = await visitor.leave()
        request = await cluster.upstream.request(0)
        async with asyncio.timeout(2):
            await request.gone.wait()
        print(f"upstream closed after {(time.monotonic() - left) * 1e3:.1f} ms")

        events = await cluster.settled()
        assert [type(one) for one in events] == [RequestStart, StreamingStart, RequestCancelled]
        (cancelled,) = outcomes(events, RequestCancelled)
        assert (cancelled.usage_status, cancelled.cost_nano) == ("estimated", price(2, 3))


async def test_a_client_that_leaves_while_its_call_waits_costs_nothing(tmp_path: Path) -> None:
    async with Cluster(tmp_path, concurrency=1) as cluster:
        gate = asyncio.Event()
        head = {"Content-Type": "application/json"}
        cluster.upstream.script(
            Reply(headers=head, before=(gate,), steps=json_reply(chat_answer("first")).steps),
            json_reply(chat_answer("never")),
        )
        first = asyncio.create_task(cluster.ask("hi", app="first"))
        await cluster.upstream.request(0)
        visitor = await Visitor.ask(cluster, "hi", "second", stream=False)
        await until(lambda: is_waiting(cluster, 1))
        await visitor.leave()
        await until(lambda: has_ended(cluster, "second"))
        assert await cluster.jobs() == 1
        gate.set()

        assert (await first).status_code == 200
        events = await cluster.settled()
        assert [type(one) for one in await cluster.events("second")] == [
            RequestStart,
            RequestCancelled,
        ]
        (cancelled,) = outcomes(events, RequestCancelled)
        assert cancelled.cost_nano == 0, "no worker can have had it"
        assert cost(events) == price(7, 3)
        assert len(cluster.upstream.requests) == 1


async def test_after_a_crash_of_the_bus_nobody_knows_whether_a_waiting_call_was_taken(
    tmp_path: Path,
) -> None:
    async with Cluster(tmp_path, concurrency=1) as cluster:
        cluster.upstream.script(SILENT)
        first = asyncio.create_task(cluster.ask("hi", app="first"))
        await cluster.upstream.request(0)
        visitor = await Visitor.ask(cluster, "hi", "second", stream=False)
        await until(lambda: is_waiting(cluster, 1))
        cluster.bus.kill()
        cluster.bus.start()
        await until(lambda: is_waiting(cluster, 1))
        # The ingress is back, too.
        assert (await cluster.client.get(f"{root_of(cluster)}/health")).status_code == 200
        await visitor.leave()
        await until(lambda: has_ended(cluster, "second"))
        (cancelled,) = outcomes(await cluster.events("second"), RequestCancelled)
        assert cancelled.cost_nano is None
        first.cancel()


def root_of(cluster: Cluster) -> str:
    return cluster.urls[0].partition("/v1/")[0]


async def test_a_client_that_leaves_while_its_worker_stands_still_is_still_recorded(
    tmp_path: Path,
) -> None:
    async with Cluster(tmp_path) as cluster:
        cluster.upstream.script(SILENT)
        visitor = await Visitor.ask(cluster, "eight by", "one", stream=False)
        request = await cluster.upstream.request(0)
        await cluster.workers[0].pause()
        await visitor.leave()
        await until(lambda: has_ended(cluster, "one"))
        cluster.workers[0].resume()
        async with asyncio.timeout(5):
            await request.gone.wait()

        events = await cluster.settled()
        (cancelled,) = outcomes(events, RequestCancelled)
        assert cancelled.cost_nano is None, "its worker had asked"
        assert not outcomes(events, RequestComplete)


async def is_waiting(cluster: Cluster, jobs: int) -> bool:
    return await cluster.waiting() == jobs


async def has_ended(cluster: Cluster, app: str) -> bool:
    return bool(ends(await cluster.events(app)))


async def test_without_a_worker_a_call_is_refused_at_once(tmp_path: Path) -> None:
    async with Cluster(tmp_path, workers=0) as cluster:
        before = time.monotonic()
        answer = await cluster.ask("hi")
        assert time.monotonic() - before < 1.0
        error = error_of(answer)
        assert (answer.status_code, error["type"], error["code"]) == (
            503,
            "server_error",
            "no_worker",
        )
        assert (error["provider"], answer.headers["retry-after"]) == ("up", "1")
        events = await cluster.settled()
        assert [type(one) for one in events] == [RequestRejected]
        assert events[0].call_id == answer.headers["x-request-id"].removeprefix("req_")


async def test_a_killed_worker_is_missed_at_once_and_a_new_one_found(tmp_path: Path) -> None:
    async with Cluster(tmp_path) as cluster:
        cluster.upstream.script(json_reply(chat_answer("Hello")))
        assert (await cluster.ask("hi")).status_code == 200
        await cluster.workers[0].kill()
        refused = await until(lambda: refusal(cluster))
        assert error_of(refused)["code"] == "no_worker"
        await cluster.workers[0].start()
        assert (await cluster.ask("hi")).status_code == 200
        await cluster.settled()


async def refusal(cluster: Cluster) -> httpx.Response | None:
    """An answer that is not 200; None as long as calls are answered or would wait."""
    with suppress(httpx.TimeoutException):
        body, headers = cluster.request("hi", "", stream=False)
        answer = await cluster.client.post(cluster.urls[0], json=body, headers=headers, timeout=1.0)
        return answer if answer.status_code != 200 else None
    return None


async def test_a_full_queue_refuses_with_the_time_to_come_back(tmp_path: Path) -> None:
    settings = {"queue": {"max_waiting": 2}}
    async with Cluster(tmp_path, concurrency=1, settings=settings) as cluster:
        gate = asyncio.Event()
        head = {"Content-Type": "application/json"}
        cluster.upstream.script(
            Reply(headers=head, before=(gate,), steps=json_reply(chat_answer("first")).steps),
            json_reply(chat_answer("second")),
        )
        running = asyncio.create_task(cluster.ask("hi", app="running"))
        await cluster.upstream.request(0)
        waiting = asyncio.create_task(cluster.ask("hi", app="waiting"))
        await until(lambda: is_waiting(cluster, 1))
        answer = await cluster.ask("hi", app="refused")
        error = error_of(answer)
        assert (answer.status_code, error["type"], error["code"]) == (
            429,
            "rate_limit_error",
            "queue_full",
        )
        assert int(answer.headers["retry-after"]) >= 1
        gate.set()

        assert [(await running).status_code, (await waiting).status_code] == [200, 200]
        await cluster.settled()
        assert [type(one) for one in await cluster.events("refused")] == [
            RequestStart,
            RequestRejected,
        ]
        assert len(cluster.upstream.requests) == 2


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_call_past_its_deadline_fails_with_a_timeout(
    tmp_path: Path, streamed: bool
) -> None:
    async with Cluster(tmp_path, settings={"call_deadline": 1.0}) as cluster:
        cluster.upstream.script(SILENT)
        if streamed:
            stream = await cluster.stream("hi").end()
            assert stream.error is not None
            status, error = stream.status, stream.error
        else:
            answer = await cluster.ask("hi")
            status, error = answer.status_code, error_of(answer)
        assert (status, error["type"], error["code"]) == (504, "provider_error", "timeout")
        assert error["provider"] == "up"
        async with asyncio.timeout(2):
            await (await cluster.upstream.request(0)).gone.wait()
        events = await cluster.settled()
        assert [type(one) for one in events] == [RequestStart, RequestFailed]
        (failed,) = outcomes(events, RequestFailed)
        assert failed.cost_nano is None, "the provider may have worked: unknown is not zero"


async def test_a_stream_past_its_deadline_ends_with_an_error_and_an_estimate(
    tmp_path: Path,
) -> None:
    async with Cluster(tmp_path, settings={"call_deadline": 1.0}) as cluster:
        cluster.upstream.script(event_stream(event(chat_chunk("four")), HANG))
        stream = await cluster.stream("eight by").end()
        assert (stream.status, stream.texts, stream.done) == (200, ["four"], False)
        assert stream.error is not None
        assert stream.error["code"] == "timeout"
        events = await cluster.settled()
        assert [type(one) for one in events] == [RequestStart, StreamingStart, RequestFailed]
        assert cost(events) == price(2, 1)


async def test_a_call_that_nobody_takes_in_time_is_answered_and_never_run(tmp_path: Path) -> None:
    async with Cluster(tmp_path, settings={"call_deadline": 1.0}) as cluster:
        cluster.upstream.script(json_reply(chat_answer("too late")))
        await cluster.workers[0].pause()
        before = time.monotonic()
        answer = await cluster.ask("hi")
        assert (answer.status_code, error_of(answer)["code"]) == (504, "timeout")
        assert time.monotonic() - before < 10.0
        cluster.workers[0].resume()

        events = await cluster.settled()
        assert [type(one) for one in events] == [RequestStart, RequestCancelled]
        assert not cluster.upstream.requests
