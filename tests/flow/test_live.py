"""Live events over real sockets: no gap, no repeat, nobody else's, and back after everything."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx
import nats
import pytest
from msgspec.structs import replace
from nats.aio.msg import Msg
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from compose.nats_server import NatsServer
from ingress.tail import Ahead, Tail, TooSlow, Wanted
from ledger.access.configured import configured
from ledger.access.key_text import new_key
from ledger.connection import Connection
from ledger.secret import ServerSecret
from schemas import subjects
from schemas.access import Key, Secret, moment
from schemas.access_events import AccessEvent
from schemas.config import BusConfig, Config
from schemas.ids import Clock
from tests import sample_events as sample
from tests.governed_bus import Bus, bus_at
from tests.ingress_doors import ADMIN, KEY_A, KEY_B, Doors, doors, event_source

CONFIG = Config(api_keys=(KEY_A, KEY_B), admin_token=ADMIN)
EVERYTHING = Wanted(None)


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[Bus]:
    async with bus_at(nats_url) as bus:
        yield bus


@pytest.fixture
async def ingress(bus: Bus) -> AsyncIterator[Doors]:
    async with doors(bus, CONFIG) as ingress:
        yield ingress


def web_socket(url: str, key: str = ADMIN, **options: Any) -> connect:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return connect(url, additional_headers=headers, proxy=None, **options)


async def received(socket: ClientConnection) -> Any:
    async with asyncio.timeout(20):
        return json.loads(await socket.recv())


def key_id(key: str) -> str:
    return configured(CONFIG).opens[key]


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


async def ticket_for(ingress: Doors, key: str) -> str:
    async with httpx.AsyncClient() as client:
        answer = await client.post(f"{ingress.url}/events/ticket", headers={"X-API-Key": key})
    assert answer.status_code == 200
    assert answer.json()["expires_in"] == 60
    return str(answer.json()["ticket"])


async def refusal_of(ingress: Doors, ticket: str) -> str:
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{ingress.url}/events", params={"ticket": ticket})
    assert answer.status_code == 401
    return str(answer.json()["error"]["code"])


async def test_a_ticket_opens_the_door_once_at_any_ingress(bus: Bus, ingress: Doors) -> None:
    async with doors(bus, CONFIG) as other:
        ticket = await ticket_for(ingress, KEY_A)
        await bus.append(sample.start("b", key_id="b"), sample.start("a", key_id=key_id(KEY_A)))
        async with event_source(f"{other.url}/events?since=0&ticket={ticket}", "") as source:
            assert (await source.next()).id == "2"
        assert await refusal_of(other, ticket) == "invalid_ticket"
        assert await refusal_of(ingress, ticket) == "invalid_ticket"
        socket_ticket = await ticket_for(other, ADMIN)
        url = f"{ingress.socket_url}/events?since=0&ticket={socket_ticket}"
        async with web_socket(url, "") as socket:
            assert (await received(socket))["call_id"] == "b"


SECRET = "the server secret of a test"
WITH_STORE = Config(api_keys=(KEY_A,), admin_token=ADMIN, secret=(SECRET,))


def made_key(ingress: Doors, text: str, **fields: Any) -> Key:
    """A key that the ledger has brought to an ingress."""
    secret = Secret(ServerSecret((SECRET,)).digest(text.encode()))
    key = sample.a_key("key_x", **{"secrets": (secret,), **fields})
    ingress.registry.take(sample.stored(1, sample.key_created(key)))
    return key


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda key: sample.key_revoked(key), "key_revoked"),
        (lambda key: sample.key_updated(replace(key, expires_at=moment(1))), "key_expired"),
        (lambda key: sample.key_rotated(replace(key, secrets=())), "key_rotated"),
    ],
)
async def test_a_listener_is_let_go_within_a_second_of_its_keys_end(
    bus: Bus, change: Callable[[Key], AccessEvent], code: str
) -> None:
    text = new_key(bytes)
    async with doors(bus, WITH_STORE) as ingress:
        key = made_key(ingress, text)
        async with (
            event_source(f"{ingress.url}/events", text) as source,
            web_socket(f"{ingress.socket_url}/events", text) as socket,
            event_source(f"{ingress.url}/events", KEY_A) as other,
        ):
            await bus.append(sample.start("x", key_id="key_x"))
            assert (await source.next()).data["call_id"] == "x"
            assert (await received(socket))["call_id"] == "x"
            ingress.registry.take(sample.stored(2, change(key)))
            async with asyncio.timeout(1):
                last = await source.next()
                with pytest.raises(EOFError):
                    await source.next()
                with pytest.raises(ConnectionClosed) as closed:
                    await received(socket)
            assert (last.type, last.data["error"]["code"]) == ("error", code)
            assert last.data["error"]["type"] == "authentication_error"
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1008
            assert closed.value.rcvd.reason == last.data["error"]["message"]
            await bus.append(sample.start("a", key_id=key_id(KEY_A)))
            assert (await other.next()).data["call_id"] == "a"
        async with asyncio.timeout(5):
            while ingress.tail.listeners:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_a_listener_that_reads_nothing_is_let_go_all_the_same(bus: Bus) -> None:
    text = new_key(bytes)
    async with doors(bus, WITH_STORE) as ingress:
        key = made_key(ingress, text)
        async with event_source(f"{ingress.url}/events", text):
            for start in range(0, 1500, 100):
                await asyncio.gather(
                    *(
                        bus.append(sample.start(f"c{n}", key_id="key_x", app="x" * 8000))
                        for n in range(start, start + 100)
                    )
                )
            ingress.registry.take(sample.stored(2, sample.key_revoked(key)))
            async with asyncio.timeout(5):
                while ingress.tail.listeners:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)


async def test_a_ticket_ends_with_its_key_and_tells_nothing_of_it(bus: Bus) -> None:
    text = new_key(bytes)
    for_ever = datetime(9999, 12, 31, tzinfo=UTC)
    async with doors(bus, WITH_STORE) as ingress:
        key = made_key(ingress, text, user="ann@example.com", project="shop", expires_at=for_ever)
        good, late = await ticket_for(ingress, text), await ticket_for(ingress, text)
        payload = good.partition(".")[0]
        said = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
        for private in (b"ann", b"shop", text.encode(), text.encode()[3:], b"checkout"):
            assert private not in said
        await bus.append(sample.start("x", key_id="key_x"))
        url = f"{ingress.url}/events?since=0&ticket={good}"
        async with event_source(url, "") as source:
            assert (await source.next()).data["call_id"] == "x"
            ingress.registry.take(sample.stored(2, sample.key_revoked(key)))
            assert (await source.next()).data["error"]["code"] == "key_revoked"
        assert await refusal_of(ingress, late) == "key_revoked"


async def test_a_ticket_that_was_changed_or_is_old_opens_nothing(bus: Bus) -> None:
    now = [sample.NOON]
    clock = Clock(now_ns=lambda: now[0])
    async with doors(bus, CONFIG, clock) as ingress:
        ticket = await ticket_for(ingress, KEY_A)
        claims, _, signature = ticket.partition(".")
        forged = [f"{claims[:-4]}AAAA.{signature}", claims, f"{claims}.", "x.y.z", "ü", ". "]
        for text in forged:
            assert await refusal_of(ingress, text) == "invalid_ticket"
        now[0] += 61 * sample.SECOND
        assert await refusal_of(ingress, ticket) == "invalid_ticket"


async def test_without_a_shared_secret_there_are_no_tickets(bus: Bus) -> None:
    async with doors(bus, Config(api_keys=(KEY_A,))) as ingress, httpx.AsyncClient() as client:
        answer = await client.post(f"{ingress.url}/events/ticket", headers={"X-API-Key": KEY_A})
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "no_admin_token"


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


async def test_connections_stay_while_the_bus_is_away_and_go_on_after(
    nats_server: NatsServer,
) -> None:
    async with bus_at(nats_server.url) as bus, doors(bus, CONFIG) as ingress:
        await bus.append(sample.first_token("c1"))
        async with (
            event_source(f"{ingress.url}/events?since=0") as source,
            web_socket(f"{ingress.socket_url}/events?since=0") as socket,
        ):
            assert (await source.next()).id == "1"
            await received(socket)
            nats_server.kill()
            async with event_source(f"{ingress.url}/events?since=1") as late:
                nats_server.start()
                await bus.append(*(sample.first_token(f"c{n}") for n in range(2, 200)))
                expected = [f"c{n}" for n in range(2, 200)]
                for events in (await source.take(198), await late.take(198)):
                    assert [sent.data["call_id"] for sent in events] == expected
                assert [(await received(socket))["call_id"] for _ in expected] == expected


async def test_a_listener_may_come_while_the_bus_is_away(nats_server: NatsServer) -> None:
    connection = await Connection.connect(BusConfig(url=nats_server.url), name="test")
    async with bus_at(nats_server.url) as bus:
        await bus.append(sample.first_token("c1"))
        nats_server.kill()
        tail = Tail(connection)
        from_now, from_start, from_nowhere = [
            await tail.listen(EVERYTHING, since) for since in (None, 0, 99)
        ]
        assert await from_now.next(0.01) == []
        nats_server.start()
        assert [heard.seq for heard in await from_start.next(10.0)] == [1]
        with pytest.raises(Ahead):
            await from_nowhere.next(10.0)
        assert await from_now.next(0.01) == []
        await bus.append(sample.first_token("c2"))
        assert [heard.seq for heard in await from_now.next(10.0)] == [2]
        assert [heard.seq for heard in await from_start.next(10.0)] == [2]
        tail.close()
    await connection.close()


async def test_a_listener_that_cannot_follow_is_told_so_after_what_waits_for_it(
    bus: Bus,
) -> None:
    tail = Tail(bus.connection)
    slow, quick = await tail.listen(EVERYTHING), await tail.listen(EVERYTHING)
    quick_heard: list[int] = []
    for start in range(0, 1500, 100):
        await asyncio.gather(
            *(bus.append(sample.first_token(f"c{n}")) for n in range(start, start + 100))
        )
        while len(quick_heard) < start + 100:
            quick_heard += [heard.seq for heard in await quick.next(5.0)]
    assert quick_heard == list(range(1, 1501))
    slow_heard: list[int] = []
    with pytest.raises(TooSlow):
        while True:
            slow_heard += [heard.seq for heard in await slow.next(5.0)]
    assert slow_heard == list(range(1, 1001))
    again = await tail.listen(EVERYTHING, slow_heard[-1])
    while len(slow_heard) < 1500:
        slow_heard += [heard.seq for heard in await again.next(5.0)]
    assert slow_heard == quick_heard
    tail.close()


async def flood(bus: Bus) -> None:
    """More than sockets and the tail keep for one listener."""
    for start in range(0, 3000, 100):
        await asyncio.gather(
            *(bus.append(sample.start(f"c{n}", app="x" * 8000)) for n in range(start, start + 100))
        )


async def test_a_stream_that_is_not_read_ends_with_the_reason_and_can_be_resumed(
    bus: Bus, ingress: Doors
) -> None:
    ids: list[int] = []
    async with event_source(f"{ingress.url}/events") as source:
        await flood(bus)
        while (sent := await source.next()).type != "error":
            ids.append(int(sent.id))
        assert sent.data["error"]["code"] == "too_slow"
        with pytest.raises(EOFError):
            await source.next()
    assert ids == list(range(1, len(ids) + 1))
    assert len(ids) < 3000
    async with event_source(f"{ingress.url}/events?since={ids[-1]}") as source:
        ids += [int(sent.id) for sent in await source.take(3000 - len(ids))]
    assert ids == list(range(1, 3001))


async def test_a_socket_that_is_not_read_is_closed_with_where_to_go_on(
    bus: Bus, ingress: Doors
) -> None:
    async with web_socket(f"{ingress.socket_url}/events", compression=None) as socket:
        await flood(bus)
        count = 0
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                await received(socket)
                count += 1
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1013
    assert closed.value.rcvd.reason.endswith(f"?since={count}")


async def test_listeners_are_let_go_when_the_ingress_stops(bus: Bus, ingress: Doors) -> None:
    async with (
        event_source(f"{ingress.url}/events") as source,
        web_socket(f"{ingress.socket_url}/events") as socket,
    ):
        ingress.tail.close()
        with pytest.raises(EOFError):
            await source.next()
        with pytest.raises(ConnectionClosed) as closed:
            await received(socket)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{ingress.url}/events", headers={"X-API-Key": KEY_A})
        assert answer.status_code == 503


async def test_clients_that_leave_are_forgotten(bus: Bus, ingress: Doors) -> None:
    before = ingress.tail.listeners
    async with (
        event_source(f"{ingress.url}/events"),
        web_socket(f"{ingress.socket_url}/events"),
    ):
        assert ingress.tail.listeners == before + 2
    async with asyncio.timeout(5):
        while ingress.tail.listeners:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
