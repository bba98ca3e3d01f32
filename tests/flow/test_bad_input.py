"""Nothing that a client sends gives a 5xx, a hang or a shapeless error, nor harms the next call."""

import asyncio
import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.connection import Connection
from ledger.reader import Stored, read_subject
from schemas import subjects
from schemas.config import BusConfig
from schemas.events import RequestStart, Terminal, decode_event
from tests.flow.gateway import KEY, Gateway, basic, message, refusal, running_gateway
from tests.upstream import chat_answer, json_reply

CHAT = "/v1/chat/completions"
INVALID = "invalid_request_error"
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("bad")) as gateway:
        gateway.up.script(json_reply(chat_answer()))
        yield gateway


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[httpx.Client]:
    """One connection, kept alive, with the key of the tests."""
    with httpx.Client(
        base_url=gateway.url,
        headers={"Authorization": f"Bearer {KEY}"},
        timeout=10,
        limits=httpx.Limits(max_connections=1),
    ) as client:
        yield client


def serves(client: httpx.Client) -> bool:
    return client.post(CHAT, json={**basic(), "model": "mock"}).status_code == 200


def with_field(field: str) -> bytes:
    """A good body and one more field, as JSON text."""
    return f'{{"model":"mock","messages":[{{"role":"user","content":"x"}}],{field}}}'.encode()


def with_content(content: str) -> bytes:
    """A body whose only message has this content, as JSON text."""
    return f'{{"model":"mock","messages":[{{"role":"user","content":{content}}}]}}'.encode()


def with_model(name: Any) -> bytes:
    return json.dumps({"model": name, "messages": [message("x")]}).encode()


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


NO_JSON = {
    "empty": b"",
    "a word": b"hello",
    "truncated": b'{"model":"mock","messages":[{"role":"us',
    "two documents": with_field('"a":1') * 2,
    "trailing comma": with_field('"a":1,'),
    "single quotes": b"{'model':'mock'}",
    "a form": b"model=mock&messages=x",
    "NaN": with_field('"seed":NaN'),
    "Infinity": with_field('"temperature":Infinity'),
    "minus Infinity": with_field('"x":-Infinity'),
    "a leading zero": with_field('"x":01'),
    "a bare minus": with_field('"x":-'),
    "a plus": with_field('"temperature":+1'),
    "a dot without digits": with_field('"x":1.'),
    "half a word": with_field('"x":tru'),
    "an unknown escape": with_field('"x":"\\q"'),
    "a control character": with_content('"a\x01b"'),
    "a comment": with_field('"x":1/*no*/'),
    "a byte order mark": b"\xef\xbb\xbf" + with_field('"a":1'),
    "a lone high surrogate": with_content('"\\ud800"'),
    "a lone low surrogate": with_field('"x":"\\udc00"'),
    "a surrogate in a name": with_field('"\\udfff":1'),
    "a surrogate as model": with_field('"model":"\\ud800"'),
    "nothing but NUL": b"\0" * 100,
    "100,000 levels unknown": with_field(f'"x":{nested(100_000)}'),
    "100,000 levels of content": with_content(nested(100_000)),
    "100,000 levels unclosed": b'{"model":"mock","x":' + b"[" * 100_000,
    "100,000 levels of objects": with_field('"x":' + '{"a":' * 100_000 + "1" + "}" * 100_000),
    "100,000 levels of routing": with_field(f'"routing":{nested(100_000)}'),
}
NO_UTF8 = {
    "UTF-16": with_field('"a":1').decode().encode("utf-16"),
    "a stray byte": b'{"model":"mock","messages":[{"role":"user","content":"\xff"}]}',
    "a cut sequence": b'{"model":"mock","messages":[{"role":"user","content":"\xe2\x82"}]}',
    "an encoded surrogate": with_content('"X"').replace(b"X", b"\xed\xa0\x80"),
    "an overlong slash": with_content('"X"').replace(b"X", b"\xc0\xaf"),
    "Latin-1": with_content('"X"').replace(b"X", "grün".encode("latin-1")),
}
WRONG_VALUES: dict[str, tuple[bytes, str | None]] = {
    "an array": (b"[]", None),
    "null": (b"null", None),
    "a number": (b"5", None),
    "a string": (b'"hello"', None),
    "messages null": (with_field('"messages":null'), "messages"),
    "messages a string": (with_field('"messages":"Hi"'), "messages"),
    "messages an object": (with_field('"messages":{}'), "messages"),
    "messages empty": (with_field('"messages":[]'), "messages"),
    "a message that is a string": (with_field('"messages":["Hi"]'), "messages"),
    "a message that is null": (with_field('"messages":[null]'), "messages"),
    "a message without role": (with_field('"messages":[{"content":"Hi"}]'), "messages"),
    "a role that is a number": (with_field('"messages":[{"role":1}]'), "messages"),
    "model null": (with_field('"model":null'), "model"),
    "model a number": (with_field('"model":5'), "model"),
    "model a list": (with_field('"model":["mock"]'), "model"),
    "stream a string": (with_field('"stream":"true"'), "stream"),
    "stream a number": (with_field('"stream":1'), "stream"),
    "stream options a list": (with_field('"stream_options":[]'), "stream_options"),
    "include_usage a string": (
        with_field('"stream_options":{"include_usage":"y"}'),
        "stream_options",
    ),
    "temperature a string": (with_field('"temperature":"hot"'), "temperature"),
    "temperature too low": (with_field('"temperature":-0.1'), "temperature"),
    "temperature too high": (with_field('"temperature":2.0001'), "temperature"),
    "temperature 1e999": (with_field('"temperature":1e999'), "temperature"),
    "temperature of 400 digits": (with_field(f'"temperature":{"9" * 400}'), "temperature"),
    "top_p too low": (with_field('"top_p":-1'), "top_p"),
    "top_p too high": (with_field('"top_p":1.1'), "top_p"),
    "frequency penalty too high": (with_field('"frequency_penalty":2.5'), "frequency_penalty"),
    "frequency penalty too low": (with_field('"frequency_penalty":-3'), "frequency_penalty"),
    "presence penalty too high": (with_field('"presence_penalty":3'), "presence_penalty"),
    "presence penalty a list": (with_field('"presence_penalty":[]'), "presence_penalty"),
    "no tokens": (with_field('"max_tokens":0'), "max_tokens"),
    "fewer than no tokens": (with_field('"max_tokens":-1'), "max_tokens"),
    "half a token": (with_field('"max_tokens":1.5'), "max_tokens"),
    "tokens a string": (with_field('"max_tokens":"7"'), "max_tokens"),
    "no completion tokens": (
        with_field('"max_completion_tokens":0'),
        "max_completion_tokens",
    ),
    "no choices": (with_field('"n":0'), "n"),
    "129 choices": (with_field('"n":129'), "n"),
    "true choices": (with_field('"n":true'), "n"),
    "response a string": (with_field('"response":"all"'), "response"),
    "include_cost a string": (with_field('"response":{"include_cost":"no"}'), "response"),
}
UNKNOWN_MODELS = {
    "unknown": "no-such-model",
    "dots": "gpt..4",
    "a parent": "../../etc/passwd",
    "a provider's parent": "up/../secret",
    "a wildcard": "*",
    "a rest of subjects": "mock.>",
    "a space": "mock mock",
    "blank": "  ",
    "a newline": "mock\nX-Evil: 1",
    "a carriage return": "mock\r",
    "NUL": "mock\0",
    "10 kB": "m" * 10_000,
    "10 kB of dots": "." * 10_000,
    "an emoji": "\U0001f600",
    "letters that look alike": "m\u043eck",
    "right to left": "\u202emock",
    "a quote": "mo'ck\"",
    "a subject of ours": "ledger.ingress.x.model.request.start",
    "markup": "<script>alert(1)</script>",
    "a slash at the end": "up/",
    "only a slash": "/",
    "a template": "{{7*7}}${HOME}",
    "not the same case": "MOCK",
}


def rows(table: dict[str, Any]) -> Any:
    return pytest.mark.parametrize("case", table.values(), ids=table.keys())


@rows(NO_JSON)
def test_what_is_no_json(client: httpx.Client, case: bytes) -> None:
    error = refusal(client.post(CHAT, content=case), 400, INVALID, "invalid_json")
    assert (error["param"], error["provider"]) == (None, None)
    assert serves(client)


@rows(NO_UTF8)
def test_what_is_no_utf8(client: httpx.Client, case: bytes) -> None:
    error = refusal(client.post(CHAT, content=case), 400, INVALID, "invalid_encoding")
    assert (error["param"], error["provider"]) == (None, None)
    assert serves(client)


@rows(WRONG_VALUES)
def test_values_that_cannot_be(client: httpx.Client, case: tuple[bytes, str | None]) -> None:
    body, param = case
    for path in (CHAT, "/proxy/mock"):
        error = refusal(client.post(path, content=body), 400, INVALID, "invalid_value")
        assert error["param"] == param
        assert (param or "object") in error["message"]
    assert serves(client)


@rows(UNKNOWN_MODELS)
def test_models_that_are_not_there(client: httpx.Client, case: str) -> None:
    response = client.post(CHAT, content=with_model(case))
    error = refusal(response, 404, INVALID, "model_not_found")
    assert error["param"] == "model"
    assert len(error["message"]) < 250 and error["message"].isprintable()
    assert serves(client)


@pytest.mark.parametrize("name", ["no-such-model", "..%2F..%2Fetc", "a%00b", "%ff%fe", "a" * 9000])
def test_models_of_the_path_that_are_not_there(client: httpx.Client, name: str) -> None:
    response = client.post(f"/proxy/{name}", json={"messages": [message("x")]})
    assert refusal(response, 404, INVALID, "model_not_found")["param"] == "model"
    assert serves(client)


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"messages": [message("x")]}, "missing_model", "model"),
        ({"messages": [message("x")], "model": ""}, "missing_model", "model"),
        ({"model": "mock"}, "missing_messages", "messages"),
        ({}, "missing_model", "model"),
    ],
)
def test_what_is_missing(client: httpx.Client, body: Any, code: str, param: str) -> None:
    error = refusal(client.post(CHAT, json=body), 400, INVALID, code)
    assert error["param"] == param
    assert serves(client)


@pytest.mark.parametrize(
    "body",
    [
        with_field(f'"seed":{"9" * 5000}'),
        with_field('"x":1e999'),
        with_field('"max_tokens":18446744073709551616'),
        with_field(f'"x":{nested(900)}'),
        with_content(nested(900)),
        with_field('"x":' + '{"a":' * 400 + "1" + "}" * 400),
        with_content('"\\u0000"'),
        with_content('"\\ud83d\\ude00 \u202e\u0000"'.replace("\u0000", "\\u0000")),
        with_content("5"),
        with_content("null"),
        with_content('[{"type":"text"},{"type":"none"},5,null,[]]'),
        with_field('"stop":{}'),
        with_field('"":{"":""}'),
        with_field('"routing":"x","budget":null'),
        with_field('"model":"no","model":"mock"'),
        with_field(f'"{"k" * 100_000}":1'),
        with_field(",".join(f'"k{at}":{at}' for at in range(20_000))),
        b" \t\r\n" + with_field('"a":1') + b"\r\n ",
        json.dumps({"model": "mock", "messages": [message("x")] * 50_000}).encode(),
        with_content(json.dumps("x" * 3_000_000)),
    ],
)
def test_what_looks_odd_and_is_good(client: httpx.Client, body: bytes) -> None:
    assert client.post(CHAT, content=body).status_code == 200


@pytest.mark.parametrize("levels", range(930, 1000, 5))
def test_a_depth_that_only_one_side_could_bear_is_no_gateway_error(
    gateway: Gateway, client: httpx.Client, levels: int
) -> None:
    for model in ("mock", "up-model"):
        for body in (with_content(nested(levels)), with_field(f'"x":{nested(levels)}')):
            answer = client.post(CHAT, content=body.replace(b'"mock"', f'"{model}"'.encode()))
            assert answer.status_code in (200, 400), answer.text


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x", None]
)
def test_the_content_type_is_not_asked_for(client: httpx.Client, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    assert client.post(CHAT, content=with_field('"a":1'), headers=headers).status_code == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_other_methods_are_refused_and_told_the_right_one(
    client: httpx.Client, method: str
) -> None:
    for path in (CHAT, "/proxy/mock"):
        response = client.request(method, path)
        refusal(response, 405, INVALID, "method_not_allowed")
        assert response.headers["allow"] == "POST"
    assert serves(client)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1",
        "/v2/chat/completions",
        "/v1/chat",
        "/v1/chat/completions/x",
        "/%2e%2e/admin",
        "/a%0d%0aX:y",
        "/%00",
        "/v1/" + "a" * 5000,
    ],
)
def test_unknown_paths(client: httpx.Client, path: str) -> None:
    refusal(client.post(path, json={}), 404, "not_found_error", "unknown_path")
    assert serves(client)


def test_a_body_over_the_limit_is_refused_so_that_an_honest_client_reads_it(
    client: httpx.Client,
) -> None:
    response = client.post(CHAT, content=b"x" * (40 * MIB))
    error = refusal(response, 413, INVALID, "request_too_large")
    assert "33554432 bytes" in error["message"]
    assert serves(client)


def test_a_chunked_body_over_the_limit_is_refused_as_well(client: httpx.Client) -> None:
    response = client.post(CHAT, content=(b"x" * MIB for _ in range(40)))
    refusal(response, 413, INVALID, "request_too_large")
    assert serves(client)


# Below HTTP


GOOD = with_field('"a":1')
AUTH = f"Authorization: Bearer {KEY}\r\n".encode()
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def head(*lines: bytes, start: bytes = b"POST /v1/chat/completions HTTP/1.1") -> bytes:
    return b"\r\n".join([start, b"Host: x", AUTH + b"".join(line + b"\r\n" for line in lines)])


def sized(size: bytes | int, *lines: bytes, body: bytes = GOOD, **start: bytes) -> bytes:
    length = size if isinstance(size, bytes) else b"%d" % size
    return head(b"Content-Length: " + length, *lines, **start) + b"\r\n" + body


def chunks(body: bytes = GOOD, *lines: bytes) -> bytes:
    return head(b"Transfer-Encoding: chunked", *lines) + b"\r\n" + in_chunks(body)


def in_chunks(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


SIZE = len(GOOD)
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


def rest(line: socket.socket) -> bytes:
    received = []
    while data := line.recv(65536):
        received.append(data)
    return b"".join(received)


def answers(received: bytes) -> list[httpx.Response]:
    """Whole responses, one after the other, each with its length given."""
    found = []
    while received:
        lines, _, received = received.partition(b"\r\n\r\n")
        status, *headers = lines.split(b"\r\n")
        fields = [(name, value.strip()) for name, _, value in (h.partition(b":") for h in headers)]
        size = int(next(value for name, value in fields if name.lower() == b"content-length"))
        body, received = received[:size], received[size:]
        found.append(httpx.Response(int(status.split()[1]), headers=fields, content=body))
    return found


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


# Any bytes and any JSON


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
documents = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=12,
)
FIELDS = (
    "messages", "model", "stream", "stream_options", "temperature", "top_p", "max_tokens", "n",
    "frequency_penalty", "presence_penalty", "max_completion_tokens", "tools", "tool_choice",
    "logprobs", "stop", "response", "routing", "budget", "response_format", "user", "seed",
)  # fmt: skip
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "system", "tool", "x"])},
        optional={"content": documents, "tool_calls": documents, "name": documents},
    ),
    min_size=1,
    max_size=3,
)
nearly_good = st.builds(
    lambda fields, texts: {"model": "mock", "messages": texts, **fields},
    st.dictionaries(st.sampled_from(FIELDS), documents, max_size=3),
    messages,
)
often = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def survives(client: httpx.Client, body: bytes) -> None:
    response = client.post(CHAT, content=body, timeout=5)
    if response.status_code == 200:
        return
    assert 400 <= response.status_code < 500, response.text
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code", "provider", "request_id"}
    assert error["type"] == INVALID and error["request_id"] == response.headers["x-request-id"]


@often
@given(body=nearly_good)
def test_any_value_of_any_field(client: httpx.Client, body: Any) -> None:
    survives(client, json.dumps(body).encode())


@often
@given(body=documents)
def test_any_json(client: httpx.Client, body: Any) -> None:
    survives(client, json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass"))


@often
@given(body=st.binary(max_size=300))
def test_any_bytes(client: httpx.Client, body: bytes) -> None:
    survives(client, body)


@often
@given(data=st.data())
def test_a_good_body_with_a_byte_changed(client: httpx.Client, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, SIZE - 1))
    byte = data.draw(st.integers(0, 255))
    survives(client, GOOD[:at] + bytes([byte]) + GOOD[at + 1 :])


async def test_whatever_was_let_in_has_ended(gateway: Gateway) -> None:
    """The last test of this file: the ledger knows no call without an end, the queue is empty."""
    connection = await Connection.connect(BusConfig(url=gateway.bus), name="test")

    async def left_open() -> set[str]:
        records = await read_subject(connection, subjects.LEDGER, subjects.LEDGER_SUBJECTS)
        events = [decode_event(record.data) for record in records]
        begun = {event.call_id for event in events if isinstance(event, RequestStart)}
        ended = [event.call_id for event in events if isinstance(event, Terminal)]
        assert len(begun) > 200 and len(ended) == len(set(ended))
        return begun.difference(ended)

    async def waiting() -> list[Stored]:
        return await read_subject(connection, subjects.WORK, subjects.WORK_SUBJECTS)

    try:
        async with asyncio.timeout(10):
            while True:
                if not await left_open() and not await waiting():
                    break
                await asyncio.sleep(0.05)
    finally:
        await connection.close()
