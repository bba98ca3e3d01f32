"""Who hears which live events, by every kind of client: no gap, no repeat, nobody else's."""

import asyncio
import json
from urllib.parse import quote

import httpx
import nats
import pytest
from nats.aio.msg import Msg
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from ingress.tail import Tail
from schemas import subjects
from schemas.config import Config
from tests import sample_events as sample
from tests.flow.live.listeners import EVERYTHING, key_id, received, web_socket
from tests.governed_bus import Bus
from tests.ingress_doors import ADMIN, KEY_A, KEY_B, Doors, doors, event_source


async def test_every_kind_of_client_hears_an_event_as_it_happens(
    bus: Bus, ingress: Doors, nats_url: str
) -> None:
    client = await nats.connect(nats_url)
    heard: asyncio.Queue[Msg] = asyncio.Queue()
    await client.subscribe(subjects.LIVE_EVENTS, cb=heard.put)
    await client.flush()
    async with (
        event_source(f"{ingress.url}/events") as source,
        web_socket(f"{ingress.socket_url}/events") as socket,
    ):
        await bus.append(sample.start("a"), sample.complete("a", usd=0.25))
        first, second = await source.take(2)
        assert (first.id, first.type) == ("1", "model.request.start")
        assert (second.id, second.type) == ("2", "model.request.complete")
        assert second.data["usd"] == 0.25
        assert [await received(socket), await received(socket)] == [first.data, second.data]
        messages = [await heard.get(), await heard.get()]
        assert messages[1].subject == "agent.events.model.request.complete"
        assert [json.loads(message.data) for message in messages] == [first.data, second.data]
    await client.close()


async def test_a_listener_goes_on_after_its_last_event(bus: Bus, ingress: Doors) -> None:
    await bus.append(*(sample.first_token(f"c{n}") for n in range(5)))
    async with event_source(f"{ingress.url}/events?since=1") as source:
        assert [sent.id for sent in await source.take(4)] == ["2", "3", "4", "5"]
    last = {"Last-Event-ID": "3"}
    async with event_source(f"{ingress.url}/events?since=1", headers=last) as source:
        await bus.append(sample.first_token("c5"))
        assert [sent.id for sent in await source.take(3)] == ["4", "5", "6"]
    async with web_socket(f"{ingress.socket_url}/events?since=4") as socket:
        assert (await received(socket))["call_id"] == "c4"
        assert (await received(socket))["call_id"] == "c5"


async def test_whoever_joins_under_load_misses_nothing_and_hears_nothing_twice(
    bus: Bus, ingress: Doors
) -> None:
    count = 3000

    async def write() -> None:
        for start in range(0, count, 50):
            await asyncio.gather(
                *(bus.append(sample.first_token(f"c{n}")) for n in range(start, start + 50))
            )

    async def listen(since: int) -> list[str]:
        async with event_source(f"{ingress.url}/events?since={since}") as source:
            return [sent.id for sent in await source.take(count - since)]

    writing = asyncio.create_task(write())
    listening = []
    for step in range(6):
        async with event_source(f"{ingress.url}/events?since=0") as source:
            await source.take(400 * step)
        listening.append(asyncio.create_task(listen(200 * step)))
    await writing
    for step, ids in enumerate(await asyncio.gather(*listening)):
        assert ids == [str(seq) for seq in range(200 * step + 1, count + 1)]


async def test_a_reader_that_comes_and_goes_finds_the_tail_again(bus: Bus) -> None:
    tail = Tail(bus.connection)
    for seq in range(1, 30):
        listener = await tail.listen(EVERYTHING)
        await bus.append(sample.first_token(f"c{seq}"))
        assert [heard.seq for heard in await listener.next(5.0)] == [seq]
        listener.close()


async def test_types_are_filtered_by_patterns(bus: Bus, ingress: Doors) -> None:
    await bus.append(sample.start("a"), sample.first_token("a"), sample.attempt_failed("a"))
    await bus.append(sample.complete("a"))
    url = f"{ingress.url}/events?since=0&type=model.request.*&type=model.attempt.?ailed"
    async with event_source(url) as source:
        assert [sent.id for sent in await source.take(3)] == ["1", "3", "4"]
    async with web_socket(f"{ingress.socket_url}/events?since=0&type=*.complete") as socket:
        assert (await received(socket))["event_type"] == "model.request.complete"


async def test_a_key_hears_its_own_events_and_the_admin_all(bus: Bus, ingress: Doors) -> None:
    async with (
        event_source(f"{ingress.url}/events", KEY_A) as live_a,
        event_source(f"{ingress.url}/events") as everyone,
    ):
        await bus.append(sample.start("b", key_id=key_id(KEY_B)))
        await bus.append(sample.start("a", key_id=key_id(KEY_A)))
        assert (await live_a.next()).data["call_id"] == "a"
        assert [sent.data["call_id"] for sent in await everyone.take(2)] == ["b", "a"]
    async with event_source(f"{ingress.url}/events?since=0", KEY_B) as replay_b:
        await bus.append(sample.complete("b", key_id=key_id(KEY_B)))
        assert [sent.id for sent in await replay_b.take(2)] == ["1", "3"]


async def test_only_events_of_roles_that_may_write_them_are_shown(bus: Bus, ingress: Doors) -> None:
    start = json.dumps({"event_type": "model.request.start", "call_id": "x"}).encode()
    future = b'{"event_type":"model.future.thing","call_id":"y"}'
    for subject, data in (
        ("ledger.worker.=.model.request.start", start),
        ("ledger.ingress.=.model.request.complete", start),
        ("ledger.ingress.=.model.request.start", start.replace(b" ", b"\n")),
        ("ledger.ingress.=.model.request.start", b"\xff"),
        ("ledger.ingress.=.model.future.thing", future),
    ):
        await bus.publisher.publish(subject, data, msg_id=f"{subject}{data!r}"[:200])
    async with event_source(f"{ingress.url}/events?since=0") as source:
        assert (await source.next()).data["call_id"] == "y"


@pytest.mark.parametrize("last", ["x", "-1", "1.5", "1" * 5000, "٣", "5"])
async def test_an_event_id_that_is_none_is_refused(bus: Bus, ingress: Doors, last: str) -> None:
    await bus.append(sample.start("a"))
    async with httpx.AsyncClient() as client:
        answer = await client.get(
            f"{ingress.url}/events",
            headers={b"X-API-Key": KEY_A.encode(), b"Last-Event-ID": last.encode()},
        )
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_event_id")
    with pytest.raises(InvalidStatus) as refused:
        await web_socket(f"{ingress.socket_url}/events?since={quote(last[:50])}").__aenter__()
    assert refused.value.response.status_code == 400


async def test_without_a_credential_there_are_no_events(ingress: Doors) -> None:
    async with httpx.AsyncClient() as client:
        for headers in ({}, {"X-API-Key": "wrong"}):
            answer = await client.get(f"{ingress.url}/events", headers=headers)
            assert answer.status_code == 401
            assert answer.json()["error"]["type"] == "authentication_error"
    for options in ({}, {"key": "wrong"}, {"subprotocols": ["nexus.key.wrong"]}):
        with pytest.raises(InvalidStatus) as refused:
            await web_socket(f"{ingress.socket_url}/events", **{"key": "", **options}).__aenter__()
        assert refused.value.response.status_code == 401
        body = refused.value.response.body
        assert body is not None
        assert json.loads(body)["error"]["type"] == "authentication_error"


async def test_a_browser_names_its_key_as_subprotocol(bus: Bus, ingress: Doors) -> None:
    protocol = f"nexus.key.{KEY_A}"
    url = f"{ingress.socket_url}/events"
    async with web_socket(url, "", subprotocols=["other", protocol]) as socket:
        assert socket.subprotocol == protocol
        await bus.append(sample.start("a", key_id=key_id(KEY_A)))
        assert (await received(socket))["call_id"] == "a"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 101),
        ({"Origin": "http://localhost:3000"}, 101),
        ({"Origin": "http://[::1]:3000"}, 101),
        ({"Origin": "https://evil.example"}, 401),
        ({"Origin": "null"}, 401),
        ({"Origin": "http://[broken"}, 401),
        ({"Host": "evil.example:8080"}, 401),
        ({"X-Forwarded-For": "203.0.113.9"}, 401),
        ({"X-API-Key": "wrong"}, 401),
    ],
)
async def test_without_configured_keys_only_local_clients_need_none(
    bus: Bus, headers: dict[str, str], status: int
) -> None:
    async with doors(bus, Config(api_keys=("dev-key",), admin_token=ADMIN)) as ingress:
        url = f"{ingress.socket_url}/events"
        opening = connect(url, additional_headers=headers, proxy=None)
        if status == 101:
            async with opening:
                pass
        else:
            with pytest.raises(InvalidStatus) as refused:
                await opening.__aenter__()
            assert refused.value.response.status_code == status
