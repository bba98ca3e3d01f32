"""Clients that send or read slowly or not at all: bounded time and memory, nobody else hurt."""

import json
import select
import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.flow.bad_input.bodies import GOOD, SIZE
from tests.flow.gateway import KEY, Gateway, basic, refusal, running_gateway, until
from tests.flow.raw_http import answers, chunks, rest, sized
from tests.upstream import (
    DONE,
    Step,
    chat_answer,
    chat_chunk,
    chat_stream,
    event,
    event_stream,
    json_reply,
)

MB = 1_000_000
END = b"data: [DONE]\n\n\r\n0\r\n\r\n"
LIMITS = "limits: {header_timeout: 1, body_timeout: 1, write_timeout: 2}\n"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("slow"), LIMITS) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with the usual limits."""
    with running_gateway(tmp_path_factory.mktemp("patient")) as gateway:
        yield gateway


def trickle(line: socket.socket, data: bytes) -> list[httpx.Response]:
    """Sends a byte every twentieth of a second until something comes back; that, to its end."""
    for at in range(len(data)):
        line.sendall(data[at : at + 1])
        if select.select([line], [], [], 0.05)[0]:
            return answers(rest(line))
    pytest.fail("all was sent and nothing came back")


@pytest.mark.parametrize("data", [sized(SIZE), b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 100])
def test_headers_that_come_slowly(gateway: Gateway, data: bytes) -> None:
    with gateway.connect() as line:
        (response,) = trickle(line, data)
    refusal(response, 408, "invalid_request_error", "request_timeout")
    assert response.headers["connection"] == "close"


def test_headers_that_stop(gateway: Gateway) -> None:
    with gateway.connect() as line:
        line.sendall(sized(SIZE)[:40])
        (response,) = answers(rest(line))
    refusal(response, 408, "invalid_request_error", "request_timeout")


def test_a_connection_without_a_word_is_closed_without_one(gateway: Gateway) -> None:
    with gateway.connect() as line:
        assert rest(line) == b""


def test_slow_headers_of_a_second_request(gateway: Gateway) -> None:
    with gateway.connect() as line:
        line.sendall(sized(SIZE) + b"POST /")
        good, slow = answers(rest(line))
    assert good.status_code == 200
    refusal(slow, 408, "invalid_request_error", "request_timeout")


@pytest.mark.parametrize(
    "data",
    [
        sized(SIZE, body=b""),
        sized(SIZE, body=GOOD[:-1]),
        sized(10 * MB, body=b" " * 100),
        chunks()[:-5],
        chunks()[:-2] + b"X-Trailer: a\r\n",
    ],
    ids=["nothing", "all but a byte", "a bit of much", "no last chunk", "no end of trailers"],
)
def test_a_body_that_stops(gateway: Gateway, data: bytes) -> None:
    with gateway.connect() as line:
        line.sendall(data)
        (response,) = answers(rest(line))
    refusal(response, 408, "invalid_request_error", "request_timeout")
    assert response.headers["connection"] == "close"


def test_a_body_that_comes_byte_by_byte(gateway: Gateway) -> None:
    with gateway.connect() as line:
        line.sendall(sized(SIZE, body=b""))
        (response,) = trickle(line, GOOD)
    refusal(response, 408, "invalid_request_error", "request_timeout")


def test_a_slow_statement_for_the_analytics(gateway: Gateway) -> None:
    with gateway.connect() as line:
        start = b"POST /api/v1/analytics/sql HTTP/1.1"
        line.sendall(sized(SIZE, body=b"{", start=start))
        (response,) = answers(rest(line))
    refusal(response, 408, "invalid_request_error", "request_timeout")


def test_a_large_body_may_take_longer_than_the_silence_allowed(gateway: Gateway) -> None:
    def in_pieces() -> Iterator[bytes]:
        yield GOOD[:-1]
        for _ in range(7):
            time.sleep(0.3)
            yield b" " * 10_000
        yield GOOD[-1:]

    assert gateway.post(content=in_pieces()).status_code == 200


def test_who_sends_no_body_to_a_wrong_key_is_left(gateway: Gateway) -> None:
    with gateway.connect() as line:
        line.sendall(sized(SIZE, body=b"{").replace(KEY.encode(), b"wrong"))
        (response,) = answers(rest(line))
    refusal(response, 401, "authentication_error", "invalid_api_key")


@pytest.mark.parametrize("behind", [b"\r\n", b"\r\nPO", sized(SIZE)[:60]])
def test_a_running_stream_is_not_harmed_by_what_is_sent_behind_it(
    gateway: Gateway, behind: bytes
) -> None:
    gateway.up.script(chat_stream("Hel", "lo", pause=0.8))
    body = json.dumps(basic(stream=True)).encode()
    with gateway.connect() as line:
        line.sendall(sized(len(body), body=body) + behind)
        received = b""
        while not received.endswith(END):
            data = line.recv(65536)
            assert data, "the stream was cut"
            received += data
    assert received.startswith(b"HTTP/1.1 200") and received.count(b"HTTP/1.1") == 1


# Reading


def long_stream(deltas: int, size: int) -> list[Step]:
    """A stream of so many deltas of so many bytes."""
    piece = event(chat_chunk("x" * size))
    return [*([piece] * deltas), event(chat_chunk({}, finish_reason="stop")), DONE]


def ask_without_reading(gateway: Gateway) -> socket.socket:
    """A connection that has asked for a stream and reads nothing; its own buffer is small."""
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    line.settimeout(30)
    line.connect(("127.0.0.1", gateway.port))
    body = json.dumps(basic(stream=True)).encode()
    line.sendall(sized(len(body), b"Connection: close", body=body))
    return line


@pytest.mark.parametrize(("deltas", "size"), [(500, 100_000), (40, 2 * MB), (30_000, 20)])
def test_a_client_that_does_not_read_costs_little_memory_and_may_read_later(
    patient: Gateway, deltas: int, size: int
) -> None:
    assert patient.ask().status_code == 200
    patient.up.script(event_stream(*long_stream(deltas, size)))
    before = patient.rss("ingress")
    with ask_without_reading(patient) as line:
        until(lambda: patient.up.requests and patient.up.requests[0].answered.is_set())
        assert patient.ask().status_code == 200
        grown = patient.rss("ingress") - before
        assert grown < 30 * MB, f"{grown / MB:.0f} MB more"
        received = rest(line)
    assert received.count(b'"content": "' + b"x" * size + b'"') == deltas
    assert received.endswith(END)


def test_a_client_that_never_reads_is_left_and_the_others_do_not_notice(gateway: Gateway) -> None:
    gateway.up.script(event_stream(*long_stream(300, 100_000)))
    with ask_without_reading(gateway) as line:
        until(lambda: gateway.up.requests and gateway.up.requests[0].answered.is_set())
        until(lambda: '"client_disconnect"' in gateway.log.read_text())
        assert gateway.ask().status_code == 200
        assert not rest(line).endswith(END)


def test_a_slow_reader_of_a_large_answer_gets_all_of_it(gateway: Gateway) -> None:
    """It takes longer than a client may read nothing at all."""
    gateway.up.script(json_reply(chat_answer("x" * 25 * MB)))
    body = json.dumps(basic()).encode()
    with socket.create_connection(("127.0.0.1", gateway.port), 30) as line:
        line.sendall(sized(len(body), b"Connection: close", body=body))
        received, begun = 0, time.monotonic()
        while data := line.recv(200_000):
            received += len(data)
            time.sleep(0.035)
        assert time.monotonic() - begun > 4
    assert received > 25 * MB
