"""The parameters of a chat as the anthropic adapter says them, and those it has no words for."""

import json
from typing import Any

import pytest

from tests.contract.anthropic_asked import NEW, WEATHER, asked, refused
from tests.contract.anthropic_stage import anthropic_at, message, text_block
from tests.contract.provider_contract import ask_of, both, outcome
from tests.upstream import Upstream, json_reply
from workers.http import Http
from workers.providers.base import Provider


@pytest.fixture
def provider(upstream: Upstream, http: Http) -> Provider:
    upstream.script(json_reply(message(text_block("x"))))
    return anthropic_at(upstream.url, http)


async def test_the_least_request_gets_the_limit_that_anthropic_demands(
    provider: Provider, upstream: Upstream
) -> None:
    assert await asked(provider, upstream) == {
        "model": NEW,
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": [text_block("Tell me")]}],
    }
    assert (await asked(provider, upstream, engine=""))["model"] == "the-clients-name"


async def test_parameters_have_their_names_at_anthropic_and_numbers_stay_as_written(
    provider: Provider, upstream: Upstream
) -> None:
    ask = ask_of()._replace(
        body=b'{"messages":[{"role":"user","content":"x"}],"temperature":0.50,"top_p":1e-1,'
        b'"top_k":40,"max_tokens":100,"max_completion_tokens":200,"stop":"END","user":"u-1"}'
    )
    await provider.complete(ask)
    sent = upstream.requests[0].body
    assert b'"temperature":0.50' in sent and b'"top_p":1e-1' in sent and b'"top_k":40' in sent
    assert json.loads(sent)["max_tokens"] == 200
    assert json.loads(sent)["stop_sequences"] == ["END"]
    assert json.loads(sent)["metadata"] == {"user_id": "u-1"}
    sent = await asked(provider, upstream, stop=["a", "b"], max_tokens=7)
    assert (sent["stop_sequences"], sent["max_tokens"]) == (["a", "b"], 7)


async def test_a_stream_is_asked_for_by_its_flag(provider: Provider, upstream: Upstream) -> None:
    await outcome(provider, ask_of(stream=True, stream_options={"include_usage": True}))
    assert upstream.requests[0].json["stream"] is True
    assert "stream_options" not in upstream.requests[0].json


async def test_what_is_the_gateways_own_stays_here(provider: Provider, upstream: Upstream) -> None:
    ours = {"metadata": {"a": "b"}, "drop_params": False, "store": False, "n": 1, "logprobs": False}
    assert set(await asked(provider, upstream, **ours)) == {"model", "max_tokens", "messages"}


async def test_tools_have_an_input_schema_that_is_an_object(
    provider: Provider, upstream: Upstream
) -> None:
    tools = [
        WEATHER,
        {"type": "function", "function": {"name": "now", "strict": True}},
        {"type": "function", "function": {"name": "f", "parameters": {"properties": {}}}},
        {"type": "function", "function": {"name": "g", "parameters": None, "strict": False}},
    ]
    sent = await asked(provider, upstream, tools=tools)
    assert sent["tools"] == [
        {
            "name": "get_weather",
            "description": "The weather.",
            "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
        {"name": "now", "input_schema": {"type": "object"}, "strict": True},
        {"name": "f", "input_schema": {"type": "object", "properties": {}}},
        {"name": "g", "input_schema": {"type": "object"}},
    ]
    assert "tool_choice" not in sent
    broken = {"type": "function", "function": {"name": "h", "parameters": [1]}}
    await refused(provider, "tools", tools=[broken])


@pytest.mark.parametrize(
    ("wish", "parallel", "choice"),
    [
        ("auto", None, {"type": "auto"}),
        ("required", None, {"type": "any"}),
        ("none", None, {"type": "none"}),
        ("none", False, {"type": "none"}),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        ("required", False, {"type": "any", "disable_parallel_tool_use": True}),
        ("auto", True, {"type": "auto"}),
        (None, True, None),
        (
            {"type": "function", "function": {"name": "get_weather"}},
            False,
            {"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True},
        ),
    ],
)
async def test_the_choice_of_tools_and_whether_several_may_be_called_at_once(
    provider: Provider, upstream: Upstream, wish: Any, parallel: bool | None, choice: Any
) -> None:
    sent = await asked(
        provider, upstream, tools=[WEATHER], tool_choice=wish, parallel_tool_calls=parallel
    )
    assert sent.get("tool_choice") == choice
    sent = await asked(provider, upstream, tool_choice=wish, parallel_tool_calls=parallel)
    assert "tool_choice" not in sent, "without tools there is nothing to choose"


async def test_a_choice_that_is_none_is_refused(provider: Provider) -> None:
    await refused(provider, "tool_choice", tools=[WEATHER], tool_choice="any")
    await refused(provider, "tool_choice", tools=[WEATHER], tool_choice=7)


async def test_a_schema_for_the_answer_is_anthropics_output_format(
    provider: Provider, upstream: Upstream
) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    wish = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    sent = await asked(provider, upstream, response_format=wish, reasoning_effort="low")
    assert sent["output_config"] == {
        "effort": "low",
        "format": {"type": "json_schema", "schema": schema},
    }
    sent = await asked(provider, upstream, response_format={"type": "text"})
    assert "output_config" not in sent


async def test_json_without_a_schema_is_refused_or_left_out(
    provider: Provider, upstream: Upstream
) -> None:
    wish = {"type": "json_object"}
    assert "json_schema" in await refused(provider, "response_format", response_format=wish)
    await refused(provider, "response_format", response_format={"type": "json_schema"})
    sent = await asked(provider, upstream, response_format=wish, drop_params=True)
    assert set(sent) == {"model", "max_tokens", "messages"}


@pytest.mark.parametrize(
    ("tier", "theirs"),
    [
        ("auto", "auto"),
        ("default", "standard_only"),
        ("priority", "auto"),
        ("standard_only", "standard_only"),
    ],
)
async def test_service_tiers_have_their_words_at_anthropic(
    provider: Provider, upstream: Upstream, tier: str, theirs: str
) -> None:
    assert (await asked(provider, upstream, service_tier=tier))["service_tier"] == theirs
    await refused(provider, "service_tier", service_tier="flex")
    sent = await asked(provider, upstream, service_tier="flex", drop_params=True)
    assert "service_tier" not in sent


FOREIGN: list[tuple[str, Any]] = [
    ("frequency_penalty", 0.5),
    ("functions", [{"name": "f"}]),
    ("inference_geo", "us"),
    ("logit_bias", {"50256": -100}),
    ("logprobs", True),
    ("modalities", ["text", "audio"]),
    ("n", 2),
    ("presence_penalty", 0.5),
    ("seed", 7),
    ("speed", "fast"),
    ("top_logprobs", 2),
]


@both
@pytest.mark.parametrize(("name", "value"), FOREIGN)
async def test_what_anthropic_has_no_word_for_is_refused_by_name(
    provider: Provider, upstream: Upstream, stream: bool, name: str, value: Any
) -> None:
    failure = await outcome(provider, ask_of(stream=stream, **{name: value}))
    assert (failure.info.status, failure.info.param) == (400, name)
    assert f"'{name}'" in failure.info.message and "drop_params" in failure.info.message
    assert upstream.requests == []


@pytest.mark.parametrize("by_request", [True, False])
async def test_what_anthropic_has_no_word_for_is_left_out_on_demand(
    upstream: Upstream, http: Http, by_request: bool
) -> None:
    upstream.script(json_reply(message(text_block("x"))))
    provider = anthropic_at(upstream.url, http, drop_params=not by_request)
    fields: dict[str, Any] = dict(FOREIGN)
    if by_request:
        fields["drop_params"] = True
    sent = await asked(provider, upstream, **fields)
    assert set(sent) == {"model", "max_tokens", "messages"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"messages": 7}',
        b'{"messages": [7]}',
        b'{"messages": [{"content": "no role"}]}',
        b'{"messages": [], "tools": [{"type": "web_search"}]}',
        b'{"messages": [], "max_tokens": "many"}',
        b'{"messages": [{"role": "user", "content": "\xff"}]}',
        b'{"messages": [{"role": "assistant", "thinking_blocks": ' + b"[" * 5000 + b"]" * 5000,
    ],
)
async def test_a_body_that_is_no_chat_is_refused(
    provider: Provider, upstream: Upstream, body: bytes
) -> None:
    failure = await outcome(provider, ask_of()._replace(body=body))
    assert (failure.info.status, failure.reached) == (400, False)
    assert upstream.requests == []
