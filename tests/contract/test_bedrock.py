"""The bedrock adapter keeps the contract of providers, in Bedrock's own words."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from schemas.config import ProviderConfig
from schemas.ids import Clock
from schemas.usage import Price, Rates, Usage, cost_of
from tests.contract.bedrock_stage import (
    BEGIN,
    EVENT_STREAM,
    KEY,
    BedrockStage,
    converse_answer,
    ending,
    event,
    event_stream,
    exception,
    text_block,
    token_usage,
)
from tests.contract.provider_contract import (
    CLIENT_KEY,
    ProviderContract,
    Scene,
    Stage,
    ask_of,
    both,
    outcome,
    read,
)
from tests.upstream import Reply, Upstream, json_reply
from workers.http import Http
from workers.providers import make
from workers.providers.base import AttemptFailed, Provider

FIXTURES = Path(__file__).parent.parent / "fixtures" / "bedrock"
# Claude Sonnet 4.5 in us-east-1, USD per million tokens: input 3, output 15, cache read 0.30, cache
# write 3.75, kept for an hour 6 (aws.amazon.com/bedrock/pricing).
SONNET = Price(
    id="bedrock/claude-sonnet-4-5",
    rates=Rates(
        input=3_000_000_000,
        output=15_000_000_000,
        cached_input=300_000_000,
        cache_write=3_750_000_000,
        cache_write_1h=6_000_000_000,
    ),
)


@pytest.fixture
def provider(upstream: Upstream, http: Http) -> Provider:
    """The bedrock adapter, with an API key, at the scripted server."""
    config = ProviderConfig(
        dialect="bedrock", base_url=upstream.url, region="us-east-1", api_key=KEY
    )
    return make("acme", config, http, Clock())


class TestBedrock(ProviderContract):
    @pytest.fixture
    async def stage(self, provider: Provider, upstream: Upstream) -> AsyncIterator[Stage]:
        yield BedrockStage(provider, upstream)


def recorded(name: str) -> Reply:
    """An answer of tests/fixtures/bedrock: whole, or as a stream of events."""
    answer = json.loads((FIXTURES / f"{name}.json").read_text())
    if "events" not in answer:
        return json_reply(answer)
    return event_stream(*(event(kind, payload) for kind, payload in answer["events"]))


async def answered(provider: Provider, upstream: Upstream, name: str) -> tuple[Any, Usage, str]:
    """Message, usage and finish reason of a recorded answer."""
    upstream.script(recorded(name))
    answer = await provider.complete(ask_of())
    return json.loads(answer.body)["choices"][0]["message"], answer.usage, answer.finish_reason


async def test_the_documented_answer(provider: Provider, upstream: Upstream) -> None:
    message, usage, reason = await answered(provider, upstream, "text")
    assert message["content"].startswith("Here is a list of 3 pop songs")
    assert set(message) == {"role", "content"} and reason == "stop"
    assert usage == Usage(input=125, output=60, status="reported")


async def test_the_documented_call_of_a_tool(provider: Provider, upstream: Upstream) -> None:
    message, usage, reason = await answered(provider, upstream, "tool")
    (call,) = message["tool_calls"]
    assert call["id"] == "tooluse_kZJMlvQmRJ6eAyJE5GIl7Q"
    assert call["function"]["name"] == "top_song"
    assert json.loads(call["function"]["arguments"]) == {"sign": "WZPZ"}
    assert message["content"] == "I will look up the most popular song on WZPZ."
    assert reason == "tool_calls" and usage.prompt == 375


async def test_the_documented_thoughts(provider: Provider, upstream: Upstream) -> None:
    message, _, _ = await answered(provider, upstream, "thinking")
    assert message["reasoning_content"] == "27 times 453 is 12231."
    assert message["content"] == "12231"
    assert message["thinking_blocks"] == [
        {
            "type": "thinking",
            "thinking": "27 times 453 is 12231.",
            "signature": "EqQBCkYIBxgCKkDx",
        },
        {"type": "redacted_thinking", "data": "aGlkZGVu"},
    ]


async def test_thoughts_come_back_as_they_were_told(provider: Provider, upstream: Upstream) -> None:
    message, _, _ = await answered(provider, upstream, "thinking")
    await provider.complete(ask_of(messages=[{"role": "user", "content": "a"}, message]))
    wire = json.loads((FIXTURES / "thinking.json").read_text())
    assert upstream.requests[-1].json["messages"][1] == wire["output"]["message"]


async def test_the_documented_intervention_of_a_guardrail(
    provider: Provider, upstream: Upstream
) -> None:
    upstream.script(recorded("guardrail"))
    answer = await provider.complete(ask_of())
    shown = json.loads(answer.body)
    assert answer.finish_reason == "content_filter"
    assert shown["trace"]["guardrail"]["inputAssessment"]["3o06191495ze"]
    assert answer.usage == Usage(status="reported")


async def test_the_documented_stream(provider: Provider, upstream: Upstream) -> None:
    upstream.script(recorded("text_stream"))
    told = await read(provider, ask_of(stream=True))
    assert told.end is not None and told.end.finish_reason == "length"
    assert told.text() == " Title: The"
    assert told.end.usage == Usage(input=47, output=20, status="reported")


async def test_the_documented_stream_of_a_call(provider: Provider, upstream: Upstream) -> None:
    upstream.script(recorded("tool_stream"))
    told = await read(provider, ask_of(stream=True))
    assert told.end is not None and told.end.finish_reason == "tool_calls"
    deltas = [chunk["choices"][0]["delta"] for chunk in told.chunks]
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    assert calls[0]["id"] == "tooluse_kZJMlvQmRJ6eAyJE5GIl7Q"
    assert "".join(call["function"]["arguments"] for call in calls) == '{"sign": "WZPZ"}'


async def test_text_with_citations_is_text(provider: Provider, upstream: Upstream) -> None:
    cited = {"content": [{"text": "It is so."}], "citations": [{"title": "A"}]}
    server_tool = {"toolUseId": "a", "name": "search", "input": {}, "type": "server_tool_use"}
    blocks = [{"toolUse": server_tool}, {"text": "Look: "}, {"citationsContent": cited}]
    upstream.script(json_reply(converse_answer(*blocks)))
    shown = json.loads((await provider.complete(ask_of())).body)
    assert shown["choices"][0]["message"]["content"] == "Look: It is so."
    assert "tool_calls" not in shown["choices"][0]["message"]


@both
@pytest.mark.parametrize(
    ("usage", "nanos"),
    [
        (Usage(input=1001, status="reported"), 3_003_000),
        (Usage(output=1001, status="reported"), 15_015_000),
        (Usage(input=1, cached_input=1001, status="reported"), 3_000 + 300_300),
        (Usage(input=1, cache_write=1001, status="reported"), 3_000 + 3_753_750),
        (Usage(input=1, cache_write_1h=1001, status="reported"), 3_000 + 6_006_000),
    ],
    ids=["input", "output", "cached", "written", "written for an hour"],
)
async def test_every_class_of_tokens_costs_what_is_published(
    provider: Provider, upstream: Upstream, stream: bool, usage: Usage, nanos: int
) -> None:
    headers = BedrockStage(provider, upstream).play(Scene(usage=usage))
    if stream:
        told = await read(provider, ask_of(headers, stream=True))
        assert told.end is not None
        got = told.end.usage
    else:
        got = (await provider.complete(ask_of(headers))).usage
    assert got == usage
    assert cost_of(got, SONNET).total == nanos


async def test_the_cache_is_counted_beside_the_input(
    provider: Provider, upstream: Upstream
) -> None:
    """Thoughts are within the output, cached tokens not within the input."""
    _, usage, _ = await answered(provider, upstream, "cached")
    assert usage == Usage(
        input=21,
        cached_input=8586,
        cache_write=500,
        cache_write_1h=1500,
        output=393,
        status="reported",
    )
    assert usage.prompt + usage.completion == 11_000
    assert cost_of(usage, SONNET).total == (
        21 * 3_000 + 8586 * 300 + 500 * 3_750 + 1500 * 6_000 + 393 * 15_000
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"<html>",
        b"\xff",
        b"[" * 100_000,
        b'{"output":{"message":{"content":"x"}},"stopReason":"end_turn"}',
        b'{"output":{"message":{"content":[{"text":1}]}},"stopReason":"end_turn"}',
        b'{"output":{"message":{"content":[]}},"stopReason":null}',
    ],
)
async def test_a_garbage_answer_is_a_502(
    provider: Provider, upstream: Upstream, body: bytes
) -> None:
    upstream.script(json_reply(body))
    failure = await outcome(provider, ask_of())
    assert (failure.info.status, failure.info.type) == (502, "provider_error")
    upstream.script(Reply(headers=EVENT_STREAM, steps=(body,)))
    failure = await outcome(provider, ask_of(stream=True))
    assert (failure.info.status, failure.info.type) == (502, "provider_error")


async def test_garbage_for_usage_is_unknown_and_never_zero(
    provider: Provider, upstream: Upstream
) -> None:
    answer = converse_answer({"text": "x"}, usage={"inputTokens": "many"})
    upstream.script(json_reply(answer))
    assert (await provider.complete(ask_of())).usage == Usage()


async def test_an_exception_after_text_keeps_the_text_and_is_not_retried(
    provider: Provider, upstream: Upstream
) -> None:
    text = text_block(0, "Hello")[0]
    upstream.script(event_stream(BEGIN, text + exception("modelStreamErrorException", "Oh")))
    told = await read(provider, ask_of(stream=True))
    assert told.text() == "Hello" and told.end is None and told.failure is not None
    assert told.failure.info.status == 502 and "Oh" in told.failure.info.message
    assert not told.failure.retryable


async def test_a_throttled_stream_is_a_rate_limit(provider: Provider, upstream: Upstream) -> None:
    upstream.script(event_stream(BEGIN, exception("throttlingException", "Too many tokens")))
    failure = await outcome(provider, ask_of(stream=True))
    assert (failure.info.status, failure.info.message) == (429, "Too many tokens")
    assert failure.retryable


async def test_a_stream_without_metadata_is_estimated(
    provider: Provider, upstream: Upstream
) -> None:
    upstream.script(event_stream(BEGIN, *text_block(0, "Hello"), ending()[0]))
    told = await read(provider, ask_of(stream=True))
    assert told.end is not None and told.end.usage.status == "estimated"


async def test_a_damaged_stream_is_a_502(provider: Provider, upstream: Upstream) -> None:
    damaged = bytearray(text_block(0, "Hello")[0])
    damaged[-1] ^= 1
    upstream.script(event_stream(BEGIN, bytes(damaged)))
    failure = await outcome(provider, ask_of(stream=True))
    assert failure.info.status == 502 and "damaged" in failure.info.message


async def test_the_connection_is_kept_after_a_stream(
    provider: Provider, upstream: Upstream
) -> None:
    BedrockStage(provider, upstream).play(Scene())
    for _ in range(3):
        told = await read(provider, ask_of(stream=True))
        assert told.end is not None
    assert upstream.connections == 1


async def test_embeddings_are_refused(provider: Provider) -> None:
    with pytest.raises(AttemptFailed) as caught:
        await provider.embed(ask_of()._replace(body=b'{"input":"x"}'))
    failure = caught.value
    assert (failure.info.status, failure.info.param) == (400, "model")
    assert "embed" in failure.info.message and not failure.reached


@both
async def test_the_clients_own_key_goes_without_anything_of_our_account(
    http: Http, upstream: Upstream, stream: bool
) -> None:
    config = ProviderConfig(
        dialect="bedrock",
        base_url=upstream.url,
        region="us-east-1",
        headers={"X-Amz-Ours": "a", "X-Api-Key": "ours", "X-Team": "b"},
        options={
            "access_key_id": "AKIDEXAMPLE",
            "secret_access_key": "our-secret-0123456789",
            "session_token": "our-token-0123456789",
        },
    )
    provider = make("acme", config, http, Clock())
    BedrockStage(provider, upstream).play(Scene())
    client = {"X-Trace": "abc", "X-Amz-Security-Token": "theirs", "X-Amz-Date": "theirs"}
    ask = ask_of(client, stream=stream)._replace(credential=CLIENT_KEY)
    if stream:
        assert (await read(provider, ask)).end is not None
    else:
        await provider.complete(ask)
    headers = upstream.requests[0].headers
    assert headers["Authorization"] == f"Bearer {CLIENT_KEY}"
    assert (headers["X-Trace"], headers["X-Team"]) == ("abc", "b")
    assert not any(name.lower().startswith("x-amz") for name in headers)
    shown = str(dict(headers))
    assert not any(ours in shown for ours in ("AKIDEXAMPLE", "our-", "'ours'"))


async def test_no_message_shows_a_secret(http: Http, upstream: Upstream) -> None:
    secrets = {"secret_access_key": "our-secret-0123456789", "session_token": "our-token-01234"}
    config = ProviderConfig(
        dialect="bedrock",
        base_url=upstream.url,
        region="us-east-1",
        options={"access_key_id": "AKIDEXAMPLE", **secrets},
    )
    provider = make("acme", config, http, Clock())
    upstream.script(json_reply({"message": f"You sent {secrets}"}, 400))
    failure = await outcome(provider, ask_of())
    assert failure.info.message.startswith("You sent")
    assert not any(secret in failure.info.message for secret in secrets.values())


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"base_url": "ftp://x"}, "providers.acme.base_url"),
        ({"base_url": "https://x/?a=b"}, "providers.acme.base_url"),
        ({}, "providers.acme.region"),
        ({"region": "eu", "options": {"acess_key_id": "x"}}, "providers.acme.options.acess_key_id"),
        (
            {"region": "eu", "options": {"access_key_id": "x"}},
            "providers.acme.options.secret_access_key",
        ),
        (
            {"region": "eu", "options": {"secret_access_key": "x"}},
            "providers.acme.options.access_key_id",
        ),
        (
            {"base_url": "https://x", "options": {"access_key_id": "x", "secret_access_key": "y"}},
            "providers.acme.region",
        ),
        ({"region": "eu", "options": {"fetch_private": "maybe"}}, "options.fetch_private"),
    ],
)
async def test_a_wrong_setting_is_named(http: Http, settings: dict[str, Any], names: str) -> None:
    with pytest.raises(ValueError, match=names):
        make("acme", ProviderConfig(dialect="bedrock", **settings), http, Clock())


async def test_a_token_usage_of_the_stage_is_as_documented() -> None:
    """The stage counts what the fixtures count."""
    usage = Usage(input=21, cached_input=8586, cache_write=500, cache_write_1h=1500, output=393)
    wire = json.loads((FIXTURES / "cached.json").read_text())["usage"]
    assert token_usage(usage) == wire
