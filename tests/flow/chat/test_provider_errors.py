"""Errors of the provider as the client is told them, in whole answers and in streams."""

import pytest

from tests.flow.chat.playing import both, said
from tests.flow.gateway import UP_KEY, Gateway, basic, refusal, told
from tests.upstream import chat_answer, chat_chunk, chat_stream, event, event_stream, json_reply


@both
@pytest.mark.parametrize(
    ("status", "shown", "kind", "code"),
    [
        (400, 400, "invalid_request_error", "bad"),
        (404, 404, "invalid_request_error", "bad"),
        (413, 413, "invalid_request_error", "bad"),
        (422, 422, "invalid_request_error", "bad"),
        (401, 502, "provider_error", "provider_auth"),
        (403, 502, "provider_error", "provider_auth"),
        (418, 502, "provider_error", "bad"),
    ],
)
def test_what_a_provider_refuses_is_told_by_the_table(
    gateway: Gateway, status: int, shown: int, kind: str, code: str, stream: bool
) -> None:
    error = {"message": f"No good, {UP_KEY}.", "type": "t", "code": "bad", "param": "seed"}
    gateway.up.script(json_reply({"error": error}, status=status))
    error = refusal(gateway.post(json=basic(stream=stream)), shown, kind, code)
    assert error["provider"] == "up"
    assert error["param"] == ("seed" if kind == "invalid_request_error" else None)
    assert UP_KEY not in error["message"]
    assert len(gateway.up.requests) == 1


@both
def test_a_provider_that_fails_is_asked_three_times(gateway: Gateway, stream: bool) -> None:
    gateway.up.script(json_reply({"error": {"message": "oh"}}, status=503))
    refusal(gateway.post(json=basic(stream=stream)), 502, "provider_error", None)
    assert len(gateway.up.requests) == 3


@both
def test_a_provider_that_recovers_is_not_noticed(gateway: Gateway, stream: bool) -> None:
    good = chat_stream("Hello") if stream else json_reply(chat_answer("Hello"))
    failing = json_reply({"error": {"message": "oh"}}, status=500)
    gateway.up.script(failing, failing, good)
    response = gateway.post(json=basic(stream=stream))
    assert said(response, stream) == "Hello"
    assert len(gateway.up.requests) == 3


@both
def test_the_providers_rate_limit_names_its_wait(gateway: Gateway, stream: bool) -> None:
    busy = json_reply(
        {"error": {"message": "slow down, please"}}, status=429, headers={"Retry-After": "77"}
    )
    gateway.up.script(busy)
    response = gateway.post(json=basic(stream=stream))
    refusal(response, 429, "rate_limit_error", "rate_limit_exceeded")
    assert response.headers["retry-after"] == "77"
    assert len(gateway.up.requests) == 1, "a wait longer than any client has is not waited for"


def test_a_stream_that_breaks_ends_with_an_error_and_without_done(gateway: Gateway) -> None:
    gateway.up.script(event_stream(event(chat_chunk("Hel")), event(chat_chunk("lo"))))
    response = gateway.post(json=basic(stream=True))
    assert response.status_code == 200
    *chunks, last = told(response)
    assert [chunk["choices"][0]["delta"]["content"] for chunk in chunks] == ["Hel", "lo"]
    assert last["error"]["type"] == "provider_error"
    assert last["error"]["request_id"] == response.headers["x-request-id"]
    assert len(gateway.up.requests) == 1, "what was shown is not begun again"
