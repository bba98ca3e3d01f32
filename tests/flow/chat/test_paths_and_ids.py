"""Chat completions by every path that serves them, and the ids and times a call is known by."""

import re

import pytest

from tests.flow.chat.playing import both, play, said
from tests.flow.gateway import Gateway, basic, message, told


@both
@pytest.mark.parametrize("prefix", ["/v1", "/ai/v1", "/api/v1"])
def test_every_prefix_serves_chat(gateway: Gateway, prefix: str, stream: bool) -> None:
    play(gateway, stream, "Hel", "lo")
    response = gateway.post(f"{prefix}/chat/completions", json=basic(stream=stream))
    assert response.status_code == 200
    assert said(response, stream) == "Hello"


@both
@pytest.mark.parametrize(
    ("path", "name", "engine"),
    [
        ("up-model", "up-model", "engine-1"),
        ("up/other", "up/other", "org/engine-2"),
        ("up%2Fother", "up/other", "org/engine-2"),
        ("spaced%20name%2C%20100%25", "spaced name, 100%", "engine-3"),
        ("up/some/thing:free", "up/some/thing:free", "some/thing:free"),
        ("up-model?model=mock", "up-model", "engine-1"),
    ],
)
def test_the_model_may_be_named_by_the_path(
    gateway: Gateway, path: str, name: str, engine: str, stream: bool
) -> None:
    play(gateway, stream, "Hello")
    body = {"model": "of the body", "messages": [message("Hi")], "stream": stream}
    for fields in (body, {k: v for k, v in body.items() if k != "model"}):
        response = gateway.post(f"/proxy/{path}", json=fields)
        assert said(response, stream) == "Hello"
        answer = told(response)[0] if stream else response.json()
        assert answer["model"] == name
    assert [request.json["model"] for request in gateway.up.requests] == [engine, engine]


@both
def test_the_id_of_a_call_is_the_same_everywhere(gateway: Gateway, stream: bool) -> None:
    play(gateway, stream, "Hello", "again")
    response = gateway.post(json=basic(stream=stream))
    request_id = response.headers["x-request-id"]
    assert re.fullmatch(r"req_[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f-]{21}", request_id)
    for answer in told(response) if stream else [response.json()]:
        assert answer["id"] == f"chatcmpl-{request_id.removeprefix('req_')}"
        assert answer["model"] == "up-model"
        assert answer["provider"] == "up"
        assert answer["created"] > 1_700_000_000


@both
def test_latencies_add_up(gateway: Gateway, stream: bool) -> None:
    play(gateway, stream, "Hello")
    response = gateway.post(json=basic(stream=stream))
    latency = (told(response)[-1] if stream else response.json())["latency"]
    assert 0 < latency["network_time_ms"] <= latency["ttfb_ms"] <= latency["total_time_ms"]
    rest = latency["total_time_ms"] - latency["ttfb_ms"]
    assert latency["processing_time_ms"] == pytest.approx(rest, abs=0.001)
