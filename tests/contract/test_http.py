"""The HTTP client of providers: certificates, proxies, and failures before anything was sent."""

import asyncio
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from schemas.call import Timeouts
from schemas.ids import Clock
from tests.contract.provider_contract import PATIENT
from tests.upstream import HANG, Reply, Upstream, json_reply
from workers.failures import Failures
from workers.headers import passed_on
from workers.http import Http
from workers.providers.base import AttemptFailed
from workers.reply import Reply as HttpReply

FAILURES = Failures("acme", (), Clock())


async def post(
    http: Http, url: str, *, timeouts: Timeouts = PATIENT, stream: bool = False, body: bytes = b"{}"
) -> HttpReply:
    return await http.post(
        url, headers={}, body=body, timeouts=timeouts, stream=stream, failures=FAILURES
    )


async def failure_of(http: Http, url: str, timeouts: Timeouts = PATIENT) -> AttemptFailed:
    with pytest.raises(AttemptFailed) as caught:
        await post(http, url, timeouts=timeouts)
    return caught.value


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that signs itself; `key.pem` is its key."""
    folder = tmp_path_factory.mktemp("authority")
    command = [
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
        *("-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"),
        *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"),
    ]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
async def secure(authority: Path) -> AsyncIterator[Upstream]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "cert.pem", authority / "key.pem")
    async with Upstream(context) as upstream:
        upstream.script(json_reply({}))
        yield upstream


async def test_an_authority_of_ones_own_is_named_by_the_environment(
    secure: Upstream, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority / "cert.pem"))
    http = Http(Clock(), limit=1)
    reply = await post(http, secure.url)
    assert await reply.read() == b"{}"
    reply.close()
    await http.close()


async def test_an_unknown_certificate_is_refused_for_good(http: Http, secure: Upstream) -> None:
    failure = await failure_of(http, secure.url)
    assert failure.info.status == 502 and "certificate" in failure.info.message
    assert not failure.reached and not failure.retryable
    assert secure.requests == []


async def test_a_refused_connection_reached_nobody(http: Http) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        failure = await failure_of(http, f"http://127.0.0.1:{unused.getsockname()[1]}/")
    assert failure.info.status == 502 and "Connection refused" in failure.info.message
    assert not failure.reached and failure.retryable


async def test_a_name_that_does_not_resolve_reached_nobody(http: Http) -> None:
    failure = await failure_of(http, "http://no-such-host.invalid/")
    assert failure.info.status == 502 and "no-such-host" not in failure.info.message
    assert not failure.reached and failure.retryable


async def test_a_connection_that_does_not_come_about_times_out(http: Http) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        address = deaf.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        try:
            hasty = Timeouts(connect=0.2, first_byte=5, idle=5, total=5)
            failure = await failure_of(http, f"http://127.0.0.1:{address[1]}/", hasty)
        finally:
            for filler in fillers:
                filler.close()
    assert (failure.info.status, failure.info.code) == (504, "timeout")
    assert not failure.reached and failure.retryable


async def test_a_stream_whose_body_does_not_begin_times_out(http: Http) -> None:
    async with Upstream() as upstream:
        upstream.script(Reply(steps=(HANG,)))
        hasty = Timeouts(connect=5, first_byte=0.5, idle=5, total=5)
        reply = await post(http, upstream.url, timeouts=hasty, stream=True)
        with pytest.raises(AttemptFailed) as caught:
            await reply.next_block()
        reply.close()
        assert caught.value.info.code == "timeout"
        await upstream.requests[0].gone.wait()


async def test_a_request_that_nobody_reads_times_out(http: Http) -> None:
    async def ignore(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(ignore, "127.0.0.1", 0, limit=1024)
    try:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        hasty = Timeouts(connect=5, first_byte=0.3, idle=5, total=5)
        with pytest.raises(AttemptFailed) as caught:
            await post(http, url, timeouts=hasty, stream=True, body=b"x" * 50_000_000)
    finally:
        for writer in writers:
            writer.transport.abort()
        server.close()
    assert caught.value.info.code == "timeout" and caught.value.reached


async def test_an_answer_beyond_the_bound_is_given_up(http: Http) -> None:
    async with Upstream() as upstream:
        upstream.script(Reply(steps=(b"x" * 1000, HANG)))
        reply = await post(http, upstream.url)
        with pytest.raises(AttemptFailed, match="more than 999 bytes"):
            await reply.read(limit=999)
        reply.close()
        await upstream.requests[0].gone.wait()


async def test_what_is_no_http_is_a_provider_error(http: Http) -> None:
    async def babble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH\r\n")
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    failure = await failure_of(http, url)
    server.close()
    assert failure.info.status == 502 and failure.reached


@pytest.mark.parametrize("stream", [False, True])
async def test_a_body_whose_framing_breaks_does_not_hang(http: Http, stream: bool) -> None:
    async def garble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await garbled.wait()
        writer.write(b"no length\r\n")
        await reader.read()
        writer.close()

    garbled = asyncio.Event()
    server = await asyncio.start_server(garble, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    reply = await post(http, url, stream=stream)
    assert await reply.next_block() == b"hello"
    garbled.set()
    with pytest.raises(AttemptFailed) as caught:
        await reply.next_block()
    reply.close()
    server.close()
    assert (caught.value.info.status, caught.value.info.code) == (502, None)


async def test_a_slow_reader_does_not_run_out_of_patience(http: Http) -> None:
    async with Upstream() as upstream:
        upstream.script(Reply(steps=(b"one", HANG)))
        hasty = Timeouts(connect=5, first_byte=5, idle=0.1, total=5)
        reply = await post(http, upstream.url, timeouts=hasty, stream=True)
        assert await reply.next_block() == b"one"
        await asyncio.sleep(0.3)
        assert not upstream.requests[0].gone.is_set()
        with pytest.raises(AttemptFailed) as caught:
            await reply.next_block()
        reply.close()
    assert caught.value.info.code == "timeout"


async def test_https_goes_through_the_proxy_of_the_environment_and_http_never(
    http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readline()).decode().strip())
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    asked: list[str] = []
    proxy = await asyncio.start_server(refuse, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
    monkeypatch.setenv("HTTPS_PROXY", url)
    monkeypatch.setenv("HTTP_PROXY", url)
    monkeypatch.setenv("NO_PROXY", "exempt.invalid")
    for target in ("https://proxied", "https://exempt", "http://plain"):
        failure = await failure_of(http, f"{target}.invalid/v1")
        assert not failure.reached
    proxy.close()
    assert asked == ["CONNECT proxied.invalid:443 HTTP/1.1"]


def test_client_headers_are_passed_on_with_care() -> None:
    own = {"Authorization": "Bearer ours", "X-Org": "ours"}
    client = {
        "X-Trace": "1",
        "x-org": "theirs",
        "authorization": "theirs",
        "Transfer-Encoding": "chunked",
        "X-Evil": "a\r\nb",
    }
    assert passed_on(client, own) == {**own, "X-Trace": "1"}
    assert passed_on({}, own) == own
