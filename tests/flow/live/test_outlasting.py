"""Live events while the bus is away, for listeners that do not read, and at the end."""

import asyncio

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from compose.nats_server import NatsServer
from ingress.tail import Ahead, Tail, TooSlow
from ledger.connection import Connection
from schemas.config import BusConfig
from tests import sample_events as sample
from tests.flow.live.listeners import CONFIG, EVERYTHING, received, web_socket
from tests.governed_bus import Bus, bus_at
from tests.ingress_doors import KEY_A, Doors, doors, event_source


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
