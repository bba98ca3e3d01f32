"""A body that is no call is refused by its name: bytes, JSON, values, models."""

import json
from typing import Any

import httpx
import pytest

from tests.flow.bad_input.bodies import (
    CHAT,
    INVALID,
    nested,
    rows,
    serves,
    with_content,
    with_field,
)
from tests.flow.gateway import message, refusal


def with_model(name: Any) -> bytes:
    return json.dumps({"model": name, "messages": [message("x")]}).encode()


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
    "routing a string": (with_field('"routing":"x"'), "routing"),
    "100,000 levels of routing": (with_field(f'"routing":{nested(100_000)}'), "routing"),
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
        with_field('"routing":null,"budget":null'),
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
