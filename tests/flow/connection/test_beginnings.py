"""How a connection begins: which servers are tried, and which answers are final."""

from pathlib import Path

import pytest

from compose.nats_server import NatsServer
from ledger import connection as connection_module
from ledger.connection import BusRefused, Connection, Disconnected
from schemas.config import BusConfig
from tests.flow.connection.servers import FakeServer, connected, greeting_of, until


async def test_the_servers_of_a_url_are_tried_in_turn(nats_url: str, unused_tcp_port: int) -> None:
    async with connected(f"nats://127.0.0.1:{unused_tcp_port}, {nats_url}") as bus:
        await bus.flush()


async def test_no_server_at_all_is_said_with_its_address(
    unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "_FIRST_REACH", 0.1)
    with pytest.raises(Disconnected, match=f"no NATS server at 127.0.0.1:{unused_tcp_port}"):
        await Connection.connect(BusConfig(url=f"nats://127.0.0.1:{unused_tcp_port}"), name="test")


async def test_a_connection_may_begin_before_its_server(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats")
    server.start()
    config = BusConfig(url=server.url)
    server.stop()
    heard: list[bytes] = []
    arrived: list[int] = []
    bus = Connection.begin(config, name="test")
    bus.on_reconnect(lambda: arrived.append(bus.reconnects))
    bus.subscribe("a", lambda message: heard.append(message.data))
    bus.publish("a", b"early")
    with pytest.raises(Disconnected):
        await bus.request("a")
    assert not await bus.reached(0.01)
    server.start()
    assert await bus.reached(10)
    await until(lambda: heard == [b"early"])
    server.kill()
    await until(lambda: not bus.connected)
    assert not await bus.reached(0)
    server.start()
    assert await bus.reached(10)
    await until(lambda: arrived == [1, 2])
    await bus.close()
    server.stop()


async def test_a_connection_that_begins_tells_its_arrival_but_was_never_away(
    nats_url: str,
) -> None:
    arrived: list[int] = []
    bus = Connection.begin(BusConfig(url=nats_url), name="test")
    bus.on_reconnect(lambda: arrived.append(bus.reconnects))
    await until(lambda: bool(arrived))
    assert arrived == [0]
    await bus.close()


async def test_a_connection_that_never_came_may_be_closed(unused_tcp_port: int) -> None:
    bus = Connection.begin(BusConfig(url=f"nats://127.0.0.1:{unused_tcp_port}"), name="test")
    await bus.close()
    assert not await bus.reached(0.01)


@pytest.mark.parametrize("url", ["http://127.0.0.1:4222", "nats://", "nats://a:b:c:d"])
async def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="NATS URL"):
        await Connection.connect(BusConfig(url=url), name="test")


async def test_a_server_that_is_too_old_is_refused_with_its_version() -> None:
    async with FakeServer(greeting_of("2.10.29")).listening() as fake:
        with pytest.raises(BusRefused, match=r"2\.10\.29 .* is too old: 2\.14\.0 or newer"):
            await Connection.connect(BusConfig(url=fake.url), name="test")


async def test_what_is_no_nats_server_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "_FIRST_REACH", 0.1)
    async with FakeServer(b"HTTP/1.1 400 Bad Request\r\n\r\n").listening() as fake:
        with pytest.raises(Disconnected, match="not the NATS protocol"):
            await Connection.connect(BusConfig(url=fake.url), name="test")
