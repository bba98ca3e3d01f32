"""The anthropic adapter keeps the contract of providers: answers, failures, headers, settings."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from schemas.config import ProviderConfig
from schemas.ids import Clock
from tests.contract.anthropic_stage import (
    KEY,
    AnthropicStage,
    anthropic_at,
    error,
    event,
    message,
    message_events,
    text_block,
    text_stream,
)
from tests.contract.provider_contract import (
    CLIENT_KEY,
    ProviderContract,
    Stage,
    ask_of,
    both,
    outcome,
    read,
)
from tests.upstream import Reply, Upstream, event_stream, json_reply
from workers.http import Http
from workers.providers import make
from workers.providers.anthropic import Anthropic
from workers.providers.base import AttemptFailed, Provider


@pytest.fixture
def provider(upstream: Upstream, http: Http) -> Provider:
    return anthropic_at(upstream.url, http)


def good(stream: bool) -> Reply:
    return text_stream("Hello") if stream else json_reply(message(text_block("Hello")))


async def ask(provider: Provider, stream: bool, **fields: Any) -> None:
    """An attempt that must end well."""
    if stream:
        assert (await read(provider, ask_of(stream=True, **fields))).end is not None
    else:
        await provider.complete(ask_of(**fields))


class TestAnthropic(ProviderContract):
    @pytest.fixture
    async def stage(self, provider: Provider, upstream: Upstream) -> AsyncIterator[Stage]:
        yield AnthropicStage(provider, upstream)


@both
async def test_the_key_and_the_version_go_in_the_headers_that_anthropic_documents(
    provider: Provider, upstream: Upstream, stream: bool
) -> None:
    upstream.script(good(stream))
    await ask(provider, stream)
    request = upstream.requests[0]
    assert (request.method, request.path) == ("POST", "/v1/messages")
    assert request.headers["x-api-key"] == KEY
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert request.headers["Content-Type"] == "application/json"
    assert "Authorization" not in request.headers


async def test_the_clients_headers_for_anthropic_arrive_behind_those_of_the_configuration(
    upstream: Upstream, http: Http
) -> None:
    provider = anthropic_at(
        upstream.url,
        http,
        headers={"anthropic-beta": "context-1m-2025-08-07"},
        options={"version": "2026-10-21"},
    )
    upstream.script(good(False))
    client = {
        "Anthropic-Beta": "output-128k-2025-02-19",
        "Anthropic-Version": "1999-01-01",
        "anthropic-dangerous-direct-browser-access": "true",
        "OpenAI-Organization": "org-theirs",
        "X-Api-Key": "theirs",
        "X-Trace": "abc",
    }
    await provider.complete(ask_of(client))
    headers = upstream.requests[0].headers
    assert headers["anthropic-beta"] == "context-1m-2025-08-07"
    assert headers["anthropic-version"] == "2026-10-21"
    assert headers["anthropic-dangerous-direct-browser-access"] == "true"
    assert (headers["x-api-key"], headers["X-Trace"]) == (KEY, "abc")
    assert "OpenAI-Organization" not in headers
    await anthropic_at(upstream.url, http).complete(ask_of(client))
    assert upstream.requests[1].headers["anthropic-beta"] == "output-128k-2025-02-19"


@both
async def test_the_clients_own_key_goes_without_anything_of_our_account(
    http: Http, upstream: Upstream, stream: bool
) -> None:
    ours = {"X-Copy": f"key={KEY}", "anthropic-workspace-id": "wrkspc_ours", "X-Region": "eu"}
    provider = anthropic_at(upstream.url, http, headers=ours)
    upstream.script(good(stream))
    asked = ask_of(stream=stream)._replace(credential=CLIENT_KEY)
    if stream:
        assert (await read(provider, asked)).end is not None
    else:
        await provider.complete(asked)
    headers = upstream.requests[0].headers
    assert [value for name, value in headers.items() if name.lower() == "x-api-key"] == [CLIENT_KEY]
    assert headers["X-Region"] == "eu" and headers["anthropic-version"] == "2023-06-01"
    assert not any(KEY in value or "wrkspc_ours" in value for value in headers.values())
    assert CLIENT_KEY.encode() not in upstream.requests[0].body
    await ask(provider, stream)
    assert upstream.requests[1].headers["x-api-key"] == KEY


@both
async def test_a_refused_key_of_the_client_is_the_clients_to_mend(
    provider: Provider, upstream: Upstream, stream: bool
) -> None:
    said = error("authentication_error", f"invalid x-api-key: {CLIENT_KEY}")
    upstream.script(json_reply(said, 401))
    failure = await outcome(provider, ask_of(stream=stream)._replace(credential=CLIENT_KEY))
    assert (failure.info.status, failure.info.type) == (401, "authentication_error")
    assert "own+key" not in repr(failure.info) and not failure.falls_back


@both
@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 429, 500, 529])
async def test_no_message_holds_a_key(
    provider: Provider, upstream: Upstream, stream: bool, status: int
) -> None:
    said = error("api_error", f"Wrong key {KEY}, or was it sk-ant-other-key-123?")
    upstream.script(json_reply(said, status))
    failure = await outcome(provider, ask_of(stream=stream))
    for secret in (KEY, "sk-ant-other"):
        assert secret not in failure.info.message and secret not in str(failure)


ERRORS = [
    ("invalid_request_error", 400, False),
    ("authentication_error", 502, False),
    ("billing_error", 502, False),
    ("permission_error", 502, False),
    ("not_found_error", 404, False),
    ("request_too_large", 413, False),
    ("rate_limit_error", 429, True),
    ("api_error", 502, True),
    ("timeout_error", 502, True),
    ("overloaded_error", 502, True),
    ("error_from_the_future", 502, True),
]


@pytest.mark.parametrize(("kind", "status", "retryable"), ERRORS)
async def test_an_error_before_the_first_piece_of_a_stream_has_the_status_of_its_type(
    provider: Provider, upstream: Upstream, kind: str, status: int, retryable: bool
) -> None:
    upstream.script(event_stream(event("error", error={"type": kind, "message": "Sorry."})))
    told = await read(provider, ask_of(stream=True))
    assert told.failure is not None and told.deltas == []
    assert (told.failure.info.status, told.failure.retryable) == (status, retryable)
    assert told.failure.cost_known
    upstream.script(json_reply(error(kind, "Sorry.")))
    whole = await outcome(provider, ask_of())
    assert (whole.info.status, whole.retryable) == (status, retryable)


async def test_an_overload_in_the_middle_of_a_stream_is_told_after_what_came(
    provider: Provider, upstream: Upstream
) -> None:
    begun = message_events([(text_block(""), [{"type": "text_delta", "text": "Hel"}])])[:4]
    overloaded = event("error", error={"type": "overloaded_error", "message": "Overloaded"})
    upstream.script(event_stream(*begun, overloaded))
    told = await read(provider, ask_of(stream=True))
    assert told.text() == "Hel" and told.end is None and told.failure is not None
    assert (told.failure.info.status, told.failure.info.type) == (502, "provider_error")
    assert "Overloaded" in told.failure.info.message and not told.failure.retryable
    assert not told.failure.cost_known, "what had been said by then may be charged"


@both
async def test_an_overload_is_retried_when_the_provider_says(
    provider: Provider, upstream: Upstream, stream: bool
) -> None:
    said = error("overloaded_error", "Overloaded")
    upstream.script(json_reply(said, 529, {"Retry-After": "7", "request-id": "req_011"}))
    failure = await outcome(provider, ask_of(stream=stream))
    assert (failure.info.status, failure.retry_after, failure.retryable) == (502, 7, True)
    assert "Overloaded" in failure.info.message


@both
@pytest.mark.parametrize(
    "reply",
    [
        Reply(headers={"Content-Type": "text/html"}, steps=(b"<html>Sign in</html>",)),
        json_reply(b"nonsense"),
        json_reply([]),
        json_reply({}),
        json_reply({"content": "text"}),
        json_reply({"content": [{"text": "no type"}]}),
        json_reply({"content": [{"type": "text", "text": 7}]}),
        json_reply(b'{"content": [{"type": "tool_use", "input": {"a": "\xff"}}]}'),
        json_reply(b'{"content": ' + b"[" * 5000 + b"]" * 5000 + b"}"),
        Reply(status=302, headers={"Location": "http://127.0.0.1:1/"}),
        Reply(status=204),
    ],
    ids=[
        "html",
        "no json",
        "list",
        "empty",
        "text for blocks",
        "no type",
        "wrong type",
        "utf-8",
        "too deep",
        "redirect",
        "no content",
    ],
)
async def test_an_answer_that_is_none_is_a_provider_error(
    provider: Provider, upstream: Upstream, reply: Reply, stream: bool
) -> None:
    upstream.script(reply)
    failure = await outcome(provider, ask_of(stream=stream))
    assert (failure.info.status, failure.info.type) == (502, "provider_error")
    assert "<" not in failure.info.message
    assert len(upstream.requests) == 1, "no redirect is followed"


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"data: {",
        event("content_block_delta", index=0, delta={"type": "text_delta", "text": 7}),
        event("content_block_delta", index=7, delta={"type": "input_json_delta"}),
        event("content_block_start", index=1, content_block={"text": "no type"}),
        b"data: [1, 2]\n\n",
        b'data: {"a": ' + b"[" * 5000 + b"]" * 5000 + b"}\n\n",
        b'data: {"type": "content_block_delta", "delta": {"text": "\xff"}}\n\n',
        event("message_stop"),
    ],
    ids=[
        "no end",
        "half an event",
        "text of a wrong type",
        "a block that has not begun",
        "a block without a type",
        "no object",
        "too deep",
        "invalid UTF-8",
        "no reason to stop",
    ],
)
async def test_a_broken_stream_shows_what_came_and_never_ends_well(
    provider: Provider, upstream: Upstream, broken: bytes
) -> None:
    begun = message_events([(text_block(""), [{"type": "text_delta", "text": "x"}])])[:4]
    upstream.script(event_stream(*begun, broken))
    told = await read(provider, ask_of(stream=True))
    assert told.text() == "x" and told.end is None and told.failure is not None
    assert (told.failure.info.status, told.failure.info.type) == (502, "provider_error")
    assert not told.failure.retryable


async def test_a_stream_may_break_off_behind_the_reason_to_stop(
    provider: Provider, upstream: Upstream
) -> None:
    events = message_events([(text_block(""), [{"type": "text_delta", "text": "x"}])])
    upstream.script(event_stream(*events[:-1]))
    told = await read(provider, ask_of(stream=True))
    assert told.end is not None and told.end.usage.output == 3


async def test_embeddings_are_refused_with_a_reason(provider: Provider, upstream: Upstream) -> None:
    body = json.dumps({"model": "m", "input": "hello"}).encode()
    with pytest.raises(AttemptFailed) as caught:
        await provider.embed(ask_of()._replace(body=body))
    assert (caught.value.info.status, caught.value.info.param) == (400, "model")
    assert "embeddings" in caught.value.info.message and not caught.value.reached
    assert upstream.requests == []


def test_base_urls_are_completed_and_checked(http: Http) -> None:
    def url_of(base_url: str) -> str:
        provider = anthropic_at(base_url, http)
        assert isinstance(provider, Anthropic)
        return provider.url

    assert url_of("https://api.anthropic.com") == "https://api.anthropic.com/v1/messages"
    assert url_of("https://api.anthropic.com/v1/") == "https://api.anthropic.com/v1/messages"
    assert url_of("https://h/anthropic/v1?a=1") == "https://h/anthropic/v1/messages?a=1"
    for wrong in ("", "localhost:80", "ftp://host/v1"):
        with pytest.raises(ValueError, match=r"providers\.anthropic\.base_url"):
            url_of(wrong)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"version": "newest"}, r"providers\.mine\.options\.version: expected a date"),
        ({"version": "2023-06-01\r\nX-A: b"}, r"providers\.mine\.options\.version"),
        ({"verison": "2023-06-01"}, r"providers\.mine\.options\.verison: expected only"),
    ],
)
def test_a_wrong_option_is_named(http: Http, options: dict[str, str], named: str) -> None:
    config = ProviderConfig(
        dialect="anthropic", base_url="https://api.anthropic.com/v1", options=options
    )
    with pytest.raises(ValueError, match=named):
        make("mine", config, http, Clock())
