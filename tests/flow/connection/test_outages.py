"""A connection while its server is killed, paused or silent, and after it."""

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from compose.nats_server import NatsServer
from ledger import pulse
from ledger.connection import Connection, Disconnected
from tests.flow.connection.servers import MEGABYTE, FakeServer, connected, greeting_of, until


def pause(server: NatsServer) -> None:
    """Stop the server as SIGSTOP does, and return once each of its threads stands still."""
    pid = server.pid or 0
    os.kill(pid, signal.SIGSTOP)
    threads = list(Path(f"/proc/{pid}/task").glob("*/stat"))
    while any(stat.read_text().rpartition(") ")[2][0] != "T" for stat in threads):
        time.sleep(0.001)


async def test_what_is_published_during_an_outage_arrives_after_it(
    bus: Connection, nats_server: NatsServer
) -> None:
    heard: list[bytes] = []
    restored: list[int] = []
    bus.subscribe("a", lambda message: heard.append(message.data))
    gone = bus.subscribe("b", lambda message: heard.append(b"from b"))
    bus.on_reconnect(lambda: restored.append(bus.reconnects))
    await bus.flush()
    nats_server.kill()
    await until(lambda: not bus.connected)
    gone.unsubscribe()
    bus.subscribe("c", lambda message: heard.append(b"from c"))
    for number in range(100):
        bus.publish("a", b"%d" % number)
    bus.publish("b", b"")
    bus.publish("c", b"")
    nats_server.start()
    await until(lambda: b"from c" in heard)
    assert heard == [*(b"%d" % number for number in range(100)), b"from c"]
    assert restored == [1]


async def test_a_connection_survives_several_kills(
    bus: Connection, nats_server: NatsServer
) -> None:
    bus.subscribe("echo", lambda message: bus.publish(message.reply, message.data))
    for round_ in (1, 2, 3):
        nats_server.kill()
        await until(lambda: not bus.connected)
        nats_server.start()
        await until(lambda: bus.connected)
        assert (await bus.request("echo", b"%d" % round_)).data == b"%d" % round_
        assert bus.reconnects == round_


async def test_waiting_requests_and_flushes_fail_as_soon_as_the_server_dies(
    bus: Connection, nats_server: NatsServer
) -> None:
    bus.subscribe("silent", lambda message: None)
    await bus.flush()
    pause(nats_server)
    flush = asyncio.ensure_future(bus.flush(timeout=60))
    request = asyncio.ensure_future(bus.request("silent", timeout=60))
    await asyncio.sleep(0)
    nats_server.kill()
    for waiting in (flush, request):
        with pytest.raises(Disconnected):
            await waiting
    with pytest.raises(Disconnected):
        await bus.request("silent", timeout=60)
    with pytest.raises(Disconnected):
        await bus.flush(timeout=60)


async def test_what_can_be_kept_without_a_server_is_bounded(
    bus: Connection, nats_server: NatsServer
) -> None:
    heard: list[int] = []
    bus.subscribe("a", lambda message: heard.append(len(message.data)))
    nats_server.kill()
    await until(lambda: not bus.connected)
    with pytest.raises(Disconnected, match="wait for the bus"):
        for _ in range(17):
            bus.publish("a", bytes(MEGABYTE))
    nats_server.start()
    await until(lambda: len(heard) == 15)


async def test_a_server_that_reads_slowly_gets_everything_in_the_end(
    bus: Connection, nats_server: NatsServer
) -> None:
    heard: list[int] = []
    bus.subscribe("a", lambda message: heard.append(int(message.data[:9])))
    await bus.flush()
    pause(nats_server)
    for number in range(600):
        bus.publish("a", (b"%09d" % number) * 5000)
        await asyncio.sleep(0)
    assert heard == []
    with pytest.raises(Disconnected, match="wait for the bus"):
        for _ in range(9):
            bus.publish("b", bytes(8 * MEGABYTE))
    os.kill(nats_server.pid or 0, signal.SIGCONT)
    await bus.flush(timeout=30)
    assert heard == list(range(600))
    assert bus.reconnects == 0


async def test_a_silent_server_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "_EVERY", 0.05)
    async with (
        FakeServer(greeting_of("2.15.0"), answers=3).listening() as fake,
        connected(fake.url) as bus,
    ):
        await until(lambda: bus.reconnects >= 1)
        assert fake.arrivals >= 2


async def test_a_server_that_answers_pings_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "_EVERY", 0.01)
    async with (
        FakeServer(greeting_of("2.15.0"), answers=1000).listening() as fake,
        connected(fake.url) as bus,
    ):
        await until(lambda: fake.pings > 10)
        assert bus.connected
        assert fake.arrivals == 1
