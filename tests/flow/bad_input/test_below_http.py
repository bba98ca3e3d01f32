"""Bytes that are no HTTP, or barely: each request gets one answer, in order, and nobody hangs."""

import httpx
import pytest

from tests.flow.bad_input.bodies import GOOD, INVALID, MIB, SIZE, rows, serves
from tests.flow.gateway import KEY, Gateway, refusal
from tests.flow.raw_http import answers, chunks, head, in_chunks, rest, sized

CHUNKED = b"Transfer-Encoding: chunked\r\n"
NO_HTTP = {
    "a greeting": b"hello\r\n\r\n",
    "TLS": bytes([22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]) + bytes(range(100)),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/2.9": sized(SIZE, start=b"POST / HTTP/2.9"),
    "an unknown method": sized(SIZE, start=b"FETCH / HTTP/1.1"),
    "a tunnel": b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n",
    "a space in the path": sized(SIZE, start=b"POST /proxy/a b HTTP/1.1"),
    "bytes in the path": sized(SIZE, start=b"POST /proxy/\xff\xfe HTTP/1.1"),
    "a header without colon": sized(SIZE, b"what"),
    "a space in a header's name": sized(SIZE, b"X A: b"),
    "a space before the colon": sized(SIZE, b"X-A : b"),
    "NUL in a header": sized(SIZE, b"X-A: \0"),
    "a bare CR in a header": sized(SIZE, b"X-A: a\rb"),
    "a folded header": sized(SIZE, b"X-A: a\r\n b"),
    "bare line feeds": sized(SIZE).replace(b"\r\n", b"\n"),
    "both lengths": sized(SIZE, CHUNKED.strip(), body=in_chunks(GOOD)),
    "both lengths the other way": head(CHUNKED.strip(), b"Content-Length: 4")
    + b"\r\n"
    + in_chunks(GOOD),
    "two lengths": sized(SIZE, b"Content-Length: 5"),
    "the same length twice": sized(SIZE, b"Content-Length: %d" % SIZE),
    "a list of lengths": sized(b"5, 5"),
    "a negative length": sized(-1),
    "a length with a sign": sized(b"+5"),
    "a length in hex": sized(b"0x10"),
    "a length of 30 digits": sized(10**30),
    "no length": sized(b""),
    "an unknown coding": head(b"Transfer-Encoding: xchunked") + b"\r\n" + in_chunks(GOOD),
    "identity coding": head(b"Transfer-Encoding: identity") + b"\r\n" + in_chunks(GOOD),
    "chunked twice": head(CHUNKED.strip(), CHUNKED.strip()) + b"\r\n" + in_chunks(GOOD),
    "a coding behind a space": head(b"Transfer-Encoding : chunked") + b"\r\n" + in_chunks(GOOD),
    "a chunk size that is none": head(CHUNKED.strip()) + b"\r\nzz\r\nabc\r\n",
    "a negative chunk": head(CHUNKED.strip()) + b"\r\n-5\r\nabc\r\n",
    "a chunk beyond all numbers": head(CHUNKED.strip()) + b"\r\n" + b"f" * 40 + b"\r\n",
    "a chunk longer than its size": head(CHUNKED.strip()) + b"\r\n3\r\nabcdef\r\n",
}
TOO_LONG = {
    "a path of 70 kB": sized(SIZE, start=b"POST /%b HTTP/1.1" % (b"a" * 70_000)),
    "a header of 100 kB": sized(SIZE, b"X-A: " + b"a" * 100_000),
    "a header of 5 MB": sized(SIZE, b"X-A: " + b"a" * 5_000_000),
    "a name of 100 kB": sized(SIZE, b"X" * 100_000 + b": a"),
    "20,000 headers": sized(SIZE, *(b"X-%d: a" % at for at in range(20_000))),
    "a header without end": b"GET / HTTP/1.1\r\nX: " + b"a" * 1_000_000,
    "trailers of 1 MB": chunks()[:-2] + b"X-T: a\r\n" * 125_000 + b"\r\n",
    "a trailer without end": chunks()[:-2] + b"X-T: " + b"a" * 1_000_000,
    "a chunk extension without end": head(CHUNKED.strip()) + b"\r\n5;a=" + b"a" * 1_000_000,
}


def talk(gateway: Gateway, *sent: bytes) -> bytes:
    """All that comes back until the server closes the connection; a hang is a failure."""
    with gateway.connect(timeout=10) as line:
        for data in sent:
            line.sendall(data)
        return rest(line)


@rows(NO_HTTP)
def test_what_is_no_http(gateway: Gateway, client: httpx.Client, case: bytes) -> None:
    (response,) = answers(talk(gateway, case))
    error = refusal(response, 400, INVALID, "invalid_http")
    assert (error["param"], error["provider"]) == (None, None)
    assert response.headers["connection"] == "close"
    assert serves(client)


@rows(TOO_LONG)
def test_headers_without_bound(gateway: Gateway, client: httpx.Client, case: bytes) -> None:
    (response,) = answers(talk(gateway, case))
    refusal(response, 431, INVALID, "headers_too_large")
    assert response.headers["connection"] == "close"
    assert serves(client)


def test_a_length_that_is_too_short_gives_one_answer_and_no_second_request(
    gateway: Gateway,
) -> None:
    """What follows the body is another request to the server: it must not be served as one."""
    hidden = sized(SIZE, start=b"POST /hidden HTTP/1.1")
    (response,) = answers(talk(gateway, sized(SIZE - 5, b"Connection: close") + hidden))
    refusal(response, 400, INVALID, "invalid_json")


@pytest.mark.parametrize("first", [sized(SIZE), chunks()], ids=["sized", "chunked"])
def test_requests_in_a_row_are_answered_in_order(gateway: Gateway, first: bytes) -> None:
    wrong = sized(1, body=b"{")
    last = sized(SIZE, b"Connection: close")
    received = answers(talk(gateway, first + wrong + first + b"\r\n" + last))
    assert [response.status_code for response in received] == [200, 400, 200, 200]
    assert len({response.headers["x-request-id"] for response in received}) == 4


def test_garbage_behind_a_good_request_does_not_cost_its_answer(gateway: Gateway) -> None:
    (response,) = answers(talk(gateway, sized(SIZE) + b"\0\0garbage\r\n\r\n"))
    assert response.status_code == 200
    assert response.headers["connection"] == "close"


def test_a_client_that_asks_first_is_told_to_go_on(gateway: Gateway) -> None:
    with gateway.connect() as line:
        line.sendall(sized(SIZE, b"Expect: 100-continue", body=b""))
        assert line.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        line.sendall(GOOD)
        (response,) = answers(rest(line))
        assert response.status_code == 200


@pytest.mark.parametrize(
    ("key", "size", "status"), [(KEY, 40 * MIB, 413), ("wrong", SIZE, 401)], ids=["413", "401"]
)
def test_a_client_that_asks_first_hears_no_before_it_sends(
    gateway: Gateway, key: str, size: int, status: int
) -> None:
    asking = sized(size, b"Expect: 100-continue", body=b"").replace(KEY.encode(), key.encode())
    (response,) = answers(talk(gateway, asking))
    assert response.status_code == status
    assert response.headers["connection"] == "close"


@pytest.mark.parametrize(
    "lines",
    [
        (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQ"),
        (b"Connection: keep-alive, Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13"),
        (b"Upgrade: foo", b"Connection: upgrade"),
    ],
    ids=["HTTP/2", "WebSocket by POST", "unknown"],
)
def test_an_upgrade_that_is_not_to_be_had_is_ignored(
    gateway: Gateway, lines: tuple[bytes, ...]
) -> None:
    """Java's HTTP client asks for HTTP/2 this way with every first request."""
    second = sized(SIZE, b"Connection: close")
    for first in (sized(SIZE, *lines), chunks(GOOD, *lines)):
        received = answers(talk(gateway, first + second))
        assert [response.status_code for response in received] == [200, 200]
        received = answers(talk(gateway, *(first[at : at + 1] for at in range(len(first))), second))
        assert [response.status_code for response in received] == [200, 200]


def test_a_wrong_key_is_told_before_the_body_and_the_connection_stays_good(
    gateway: Gateway,
) -> None:
    with gateway.connect() as line:
        line.sendall(sized(SIZE, body=GOOD[:5]).replace(KEY.encode(), b"wrong"))
        received = b""
        while not received.endswith(b"}}"):
            received += line.recv(65536)
        refusal(answers(received)[0], 401, "authentication_error", "invalid_api_key")
        line.sendall(GOOD[5:] + sized(SIZE, b"Connection: close"))
        (response,) = answers(rest(line))
        assert response.status_code == 200


def test_old_clients_are_served(gateway: Gateway) -> None:
    (response,) = answers(talk(gateway, sized(SIZE, start=b"POST /v1/chat/completions HTTP/1.0")))
    assert response.status_code == 200
