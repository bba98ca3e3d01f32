"""The bus connection against real servers that are killed, paused, secured and replaced."""

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from compose.nats_server import NatsServer
from ledger import connection as connection_module
from ledger import pulse
from ledger.connection import (
    BusRefused,
    Connection,
    Disconnected,
    Message,
    NoResponders,
    RequestTimeout,
    header_block,
)
from schemas.config import BusConfig
from tests.foreign_nats import server_with

MEGABYTE = 1024 * 1024


@asynccontextmanager
async def connected(
    url: str, on_fatal: Callable[[str], None] | None = None
) -> AsyncIterator[Connection]:
    connection = await Connection.connect(BusConfig(url=url), name="test", on_fatal=on_fatal)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[Connection]:
    async with connected(nats_url) as connection:
        yield connection


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


def certificate_in(folder: Path) -> tuple[Path, Path]:
    """A fresh key and self-signed certificate for 127.0.0.1."""
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
        f" -subj /CN=nats -addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {cert}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    return key, cert


class FakeServer:
    """Says its greeting, answers so many pings of each client and is silent from then on."""

    def __init__(self, greeting: bytes, *, answers: int = 1) -> None:
        self.url = ""
        self.arrivals = 0
        self.pings = 0
        self._greeting = greeting
        self._answers = answers
        self._talks: list[tuple[asyncio.StreamWriter, asyncio.Future[None]]] = []

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["FakeServer"]:
        server = await asyncio.start_server(self._arrived, "127.0.0.1", 0)
        self.url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            yield self
        for writer, talk in self._talks:
            writer.close()
            await talk
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)

    def _arrived(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.arrivals += 1
        self._talks.append((writer, asyncio.ensure_future(self._talk(reader, writer))))

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._greeting)
        left = self._answers
        with suppress(ConnectionError):
            while line := await reader.readline():
                if line == b"PING\r\n":
                    self.pings += 1
                    left -= 1
                    if left >= 0:
                        writer.write(b"PONG\r\n")


def greeting_of(version: str) -> bytes:
    return b'INFO {"version":"%b","max_payload":1048576}\r\n' % version.encode()


def pause(server: NatsServer) -> None:
    """Stop the server as SIGSTOP does, and return once each of its threads stands still."""
    pid = server.pid or 0
    os.kill(pid, signal.SIGSTOP)
    threads = list(Path(f"/proc/{pid}/task").glob("*/stat"))
    while any(stat.read_text().rpartition(") ")[2][0] != "T" for stat in threads):
        time.sleep(0.001)


async def test_messages_arrive_in_the_order_they_were_published(bus: Connection) -> None:
    heard: list[Message] = []
    bus.subscribe("numbers.*", heard.append)
    for number in range(1000):
        bus.publish(f"numbers.{number % 3}", b"%d" % number, headers=header_block({"N": "1"}))
    await bus.flush()
    assert [int(message.data) for message in heard] == list(range(1000))
    assert heard[4].subject == "numbers.1"
    assert heard[4].header("N") == "1"


async def test_a_hundred_thousand_messages_in_one_tick_all_arrive(bus: Connection) -> None:
    heard: list[bytes] = []
    bus.subscribe("many", lambda message: heard.append(message.data))
    for number in range(100_000):
        bus.publish("many", b"%0100d" % number)
    await bus.flush(timeout=30)
    assert heard == [b"%0100d" % number for number in range(100_000)]


async def test_the_largest_message_goes_through_and_a_larger_one_is_refused_here(
    bus: Connection,
) -> None:
    heard: list[Message] = []
    bus.subscribe("large", heard.append)
    body = os.urandom(bus.max_payload)
    bus.publish("large", body)
    await bus.flush(timeout=10)
    assert bus.max_payload == 8 * MEGABYTE
    assert [message.data for message in heard] == [body]
    with pytest.raises(ValueError, match="8388608"):
        bus.publish("large", body, headers=header_block({"A": "b"}))


@pytest.mark.parametrize("subject", ["", "a b", "a\r\nPUB b 0", " a", "a\n", "a\t1"])
async def test_a_subject_with_white_space_never_reaches_the_wire(
    bus: Connection, subject: str
) -> None:
    with pytest.raises(ValueError, match="not a subject"):
        bus.publish(subject, b"")
    with pytest.raises(ValueError, match="not a subject"):
        bus.subscribe(subject, lambda message: None)


async def test_a_queue_group_shares_the_messages(bus: Connection, nats_url: str) -> None:
    async with connected(nats_url) as other:
        here: list[bytes] = []
        there: list[bytes] = []
        bus.subscribe("shared", lambda message: here.append(message.data), queue="group")
        other.subscribe("shared", lambda message: there.append(message.data), queue="group")
        await bus.flush()
        await other.flush()
        for number in range(200):
            bus.publish("shared", b"%d" % number)
        await until(lambda: len(here) + len(there) >= 200)
    assert sorted(map(int, here + there)) == list(range(200))
    assert here
    assert there


async def test_each_of_many_requests_gets_its_own_answer(bus: Connection) -> None:
    bus.subscribe("double", lambda message: bus.publish(message.reply, message.data * 2))
    answers = await asyncio.gather(*(bus.request("double", b"%d," % n) for n in range(500)))
    assert [answer.data for answer in answers] == [b"%d,%d," % (n, n) for n in range(500)]


async def test_a_request_that_nobody_hears_fails_at_once(bus: Connection) -> None:
    with pytest.raises(NoResponders):
        await bus.request("nobody.home", timeout=60)


async def test_a_request_that_nobody_answers_times_out(bus: Connection) -> None:
    bus.subscribe("silent", lambda message: None)
    with pytest.raises(RequestTimeout):
        await bus.request("silent", timeout=0.05)


async def test_an_exception_in_a_subscriber_harms_nobody_else(
    bus: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[bytes] = []

    def fail(message: Message) -> None:
        raise RuntimeError("boom")

    bus.subscribe("a", fail)
    bus.subscribe("a", lambda message: heard.append(message.data))
    bus.publish("a", b"1")
    bus.publish("a", b"2")
    await bus.flush()
    assert heard == [b"1", b"2"]
    assert "the subscriber of a failed" in caplog.text
    assert bus.reconnects == 0


async def test_nothing_arrives_after_unsubscribe(bus: Connection) -> None:
    heard: list[bytes] = []
    subscription = bus.subscribe("a", lambda message: heard.append(message.data))
    bus.publish("a", b"1")
    await bus.flush()
    subscription.unsubscribe()
    bus.publish("a", b"2")
    await bus.flush()
    assert heard == [b"1"]
    with pytest.raises(NoResponders):
        await bus.request("a")


async def test_drain_hands_over_what_is_on_its_way(nats_url: str) -> None:
    bus = await Connection.connect(BusConfig(url=nats_url), name="test")
    heard: list[bytes] = []
    bus.subscribe("a", lambda message: heard.append(message.data))
    await bus.flush()
    async with connected(nats_url) as other:
        for number in range(1000):
            other.publish("a", b"%d" % number)
        await other.flush()
        await bus.drain()
    assert len(heard) == 1000
    assert not bus.connected
    with pytest.raises(Disconnected):
        bus.publish("a", b"")
    with pytest.raises(Disconnected):
        await bus.request("a")
    await bus.close()


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


async def test_the_servers_of_a_url_are_tried_in_turn(nats_url: str, unused_tcp_port: int) -> None:
    async with connected(f"nats://127.0.0.1:{unused_tcp_port}, {nats_url}") as bus:
        await bus.flush()


async def test_no_server_at_all_is_said_with_its_address(
    unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "_FIRST_REACH", 0.1)
    with pytest.raises(Disconnected, match=f"no NATS server at 127.0.0.1:{unused_tcp_port}"):
        await Connection.connect(BusConfig(url=f"nats://127.0.0.1:{unused_tcp_port}"), name="test")


async def test_a_wrong_password_is_refused_at_once(nats_server: NatsServer) -> None:
    config = BusConfig(
        url=f"nats://127.0.0.1:{nats_server.port}", user="operator", password="wrong"
    )
    with pytest.raises(BusRefused, match="Authorization Violation"):
        await Connection.connect(config, name="test")


async def test_user_and_password_may_stand_in_the_configuration(nats_server: NatsServer) -> None:
    _, _, rest = nats_server.url.partition("operator:")
    password, _, address = rest.partition("@")
    config = BusConfig(url=f"nats://{address}", user="operator", password=password)
    bus = await Connection.connect(config, name="test")
    await bus.flush()
    await bus.close()


async def test_credentials_that_change_during_an_outage_are_fatal(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    fatal: list[str] = []
    async with connected(nats_server.url, fatal.append) as bus:
        nats_server.kill()
        (tmp_path / "nats" / "users" / "operator").write_text("another")
        nats_server.start()
        await until(lambda: bool(fatal))
        assert "Authorization Violation" in fatal[0]
        assert not bus.connected


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


async def test_a_connection_that_begins_and_is_refused_says_so_once(
    nats_server: NatsServer,
) -> None:
    fatal: list[str] = []
    config = BusConfig(
        url=f"nats://127.0.0.1:{nats_server.port}", user="operator", password="wrong"
    )
    bus = Connection.begin(config, name="test", on_fatal=fatal.append)
    await until(lambda: bool(fatal))
    assert not await bus.reached(0.6)
    assert "Authorization Violation" in fatal[0]
    assert len(fatal) == 1
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


async def test_a_missing_permission_is_fatal_and_harms_nothing_else(tmp_path: Path) -> None:
    fatal: list[str] = []
    config = """
    authorization { users = [ { user: w, password: pw, permissions: {
        publish: { deny: ["ledger.ingress.>"] }, subscribe: { deny: ["secret"] } } } ] }
    """
    with server_with(config, tmp_path) as port:
        async with connected(f"nats://w:pw@127.0.0.1:{port}", fatal.append) as bus:
            bus.publish("ledger.ingress.x", b"forged")
            await bus.flush()
            assert "forbids test to publish to ledger.ingress.x" in fatal[0]
            bus.subscribe("secret", lambda message: None)
            await bus.flush()
            assert "forbids test to subscribe to secret" in fatal[1]
            assert len(fatal) == 2
            assert bus.reconnects == 0


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make certificates")
async def test_tls_is_spoken_and_certificates_are_checked(tmp_path: Path) -> None:
    key, cert = certificate_in(tmp_path)
    with server_with(f'tls {{ cert_file: "{cert}", key_file: "{key}" }}', tmp_path) as port:
        heard: list[bytes] = []
        for scheme in ("tls", "nats"):
            config = BusConfig(url=f"{scheme}://127.0.0.1:{port}", tls_ca=str(cert))
            bus = await Connection.connect(config, name="test")
            bus.subscribe("a", lambda message: heard.append(message.data))
            bus.publish("a", bytes(MEGABYTE))
            await bus.flush(timeout=5)
            await bus.close()
        assert heard == [bytes(MEGABYTE)] * 2
        with pytest.raises(BusRefused, match="not trusted"):
            await Connection.connect(BusConfig(url=f"tls://127.0.0.1:{port}"), name="test")
        absent = BusConfig(url=f"tls://127.0.0.1:{port}", tls_ca=str(tmp_path / "absent"))
        with pytest.raises(BusRefused, match="tls_ca"):
            await Connection.connect(absent, name="test")


async def test_no_password_is_sent_in_the_clear_where_tls_was_asked_for(
    nats_server: NatsServer,
) -> None:
    with pytest.raises(BusRefused, match="offers no TLS"):
        await Connection.connect(
            BusConfig(url=nats_server.url.replace("nats://", "tls://")), name="test"
        )
