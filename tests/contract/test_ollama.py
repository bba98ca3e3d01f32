"""The ollama adapter keeps the contract of providers, and asks as Ollama's own API wants it."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from schemas.config import ProviderConfig
from schemas.ids import Clock
from tests.contract.ollama_stage import ARGUMENTS, KEY, OllamaStage, answer_of
from tests.contract.provider_contract import (
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

PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(24)).decode()
SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}]


@pytest.fixture
def provider(upstream: Upstream, http: Http) -> Provider:
    """The ollama adapter, at the scripted server."""
    config = ProviderConfig(
        dialect="ollama", base_url=upstream.url, api_key=KEY, headers={"X-Org": "ours"}
    )
    return make("ollama", config, http, Clock())


class TestOllama(ProviderContract):
    @pytest.fixture
    async def stage(self, provider: Provider, upstream: Upstream) -> AsyncIterator[Stage]:
        yield OllamaStage(provider, upstream)

    @both
    async def test_a_tool_call_arrives_whole(self, stage: Stage, stream: bool) -> None:
        """In one piece, as Ollama sends it, and with an id, which Ollama does not give it."""
        ask = ask_of(stage.play(Scene(tool="get_weather")), stream=stream, tools=TOOLS)
        if stream:
            told = await read(stage.provider, ask)
            assert told.end is not None and told.end.finish_reason == "tool_calls"
            (call,) = [
                call
                for chunk in told.chunks
                for call in chunk["choices"][0]["delta"].get("tool_calls", ())
            ]
            assert call.pop("index") == 0
            assert sum(deltas.text_bytes for deltas in told.deltas) > 0
        else:
            answer = await stage.provider.complete(ask)
            assert answer.finish_reason == "tool_calls"
            (call,) = json.loads(answer.body)["choices"][0]["message"]["tool_calls"]
        assert json.loads(call["function"].pop("arguments")) == ARGUMENTS
        assert call == {
            "id": "call_0193-call_0",
            "type": "function",
            "function": {"name": "get_weather"},
        }


async def sent(provider: Provider, upstream: Upstream, **fields: Any) -> dict[str, Any]:
    """What arrives at Ollama of a chat with these fields."""
    upstream.script(json_reply(answer_of("x")))
    await provider.complete(ask_of(**fields))
    shown: dict[str, Any] = upstream.requests[-1].json
    return shown


async def refusal(provider: Provider, **fields: Any) -> AttemptFailed:
    """The 400 that a chat with these fields gets before anything is sent."""
    failure = await outcome(provider, ask_of(**fields))
    assert failure.info.status == 400 and not failure.reached and not failure.falls_back
    return failure


async def test_messages_keep_their_roles_and_their_order(
    provider: Provider, upstream: Upstream
) -> None:
    shown = await sent(
        provider,
        upstream,
        messages=[
            {"role": "developer", "content": "Be brief."},
            {
                "role": "user",
                "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}],
            },
            {"role": "assistant", "content": "Hello", "reasoning_content": "A greeting."},
            {"role": "assistant", "content": None, "refusal": "No."},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "Never."}]},
        ],
    )
    assert (shown["model"], shown["stream"]) == ("the-engine", False)
    assert shown["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello", "thinking": "A greeting."},
        {"role": "assistant", "content": "No."},
        {"role": "assistant", "content": "Never."},
    ]
    assert upstream.requests[0].path == "/api/chat"


async def test_calls_of_tools_have_objects_and_results_the_name_of_their_tool(
    provider: Provider, upstream: Upstream
) -> None:
    def call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
        return {
            "id": call_id,
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }

    shown = await sent(
        provider,
        upstream,
        messages=[
            {"role": "user", "content": "Weather? Time?"},
            {
                "role": "assistant",
                "tool_calls": [call("a", "get_weather", '{"n": 1.50}'), call("b", "get_time", "")],
            },
            {"role": "tool", "tool_call_id": "b", "content": "noon"},
            {"role": "tool", "tool_call_id": "a", "content": "sunny"},
            {"role": "tool", "tool_call_id": "gone", "content": "?"},
            {"role": "tool", "name": "get_luck", "content": "good"},
        ],
        tools=TOOLS,
    )
    assert shown["messages"][1] == {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"id": "a", "function": {"name": "get_weather", "arguments": {"n": 1.5}}},
            {"id": "b", "function": {"name": "get_time", "arguments": {}}},
        ],
    }
    assert b'{"n":1.50}' in upstream.requests[0].body
    assert shown["messages"][2:] == [
        {"role": "tool", "content": "noon", "tool_name": "get_time", "tool_call_id": "b"},
        {"role": "tool", "content": "sunny", "tool_name": "get_weather", "tool_call_id": "a"},
        {"role": "tool", "content": "?", "tool_call_id": "gone"},
        {"role": "tool", "content": "good", "tool_name": "get_luck"},
    ]
    assert shown["tools"] == TOOLS


@both
async def test_images_go_as_bytes_beside_the_text(
    provider: Provider, upstream: Upstream, stream: bool
) -> None:
    OllamaStage(provider, upstream).play(Scene())
    parts = [
        {"type": "text", "text": "What"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
        {"type": "text", "text": " is it?"},
    ]
    ask = ask_of(stream=stream, messages=[{"role": "user", "content": parts}])
    if stream:
        assert (await read(provider, ask)).end is not None
    else:
        await provider.complete(ask)
    assert upstream.requests[0].json["messages"] == [
        {"role": "user", "content": "What is it?", "images": [PIXEL]}
    ]


async def test_a_remote_image_is_fetched_where_the_operator_lets_it(
    upstream: Upstream, http: Http
) -> None:
    config = ProviderConfig(
        dialect="ollama", base_url=upstream.url, options={"fetch_private": "true"}
    )
    provider = make("ollama", config, http, Clock())
    picture = Reply(headers={"Content-Type": "image/png"}, steps=(base64.b64decode(PIXEL),))
    upstream.script(picture, json_reply(answer_of("x")))
    parts = [{"type": "image_url", "image_url": f"{upstream.url}/cat.png"}]
    await provider.complete(ask_of(messages=[{"role": "user", "content": parts}]))
    assert [request.path for request in upstream.requests] == ["/cat.png", "/api/chat"]
    assert upstream.requests[1].json["messages"][0]["images"] == [PIXEL]


async def test_a_remote_image_at_a_private_address_is_refused(
    provider: Provider, upstream: Upstream
) -> None:
    parts = [{"type": "image_url", "image_url": {"url": f"{upstream.url}/cat.png"}}]
    for stream in (False, True):
        failure = await refusal(
            provider, stream=stream, messages=[{"role": "user", "content": parts}]
        )
        assert failure.info.param == "messages"
    assert not upstream.requests


async def test_parameters_are_options_with_ollamas_names(
    provider: Provider, upstream: Upstream
) -> None:
    shown = await sent(
        provider,
        upstream,
        max_tokens=100,
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        stop="END",
        seed=7,
        frequency_penalty=0.1,
        presence_penalty=0.2,
        logprobs=True,
        top_logprobs=2,
        user="u",
    )
    assert shown["options"] == {
        "num_predict": 100,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "stop": ["END"],
        "seed": 7,
        "frequency_penalty": 0.1,
        "presence_penalty": 0.2,
    }
    assert shown["logprobs"] is True and shown["top_logprobs"] == 2
    plain = await sent(provider, upstream)
    assert set(plain) == {"model", "messages", "stream"}


async def test_ollamas_own_parameters_pass_as_they_are(
    provider: Provider, upstream: Upstream
) -> None:
    native = {"keep_alive": "10m", "think": "high", "format": SCHEMA}
    shown = await sent(
        provider,
        upstream,
        **native,
        options={"num_ctx": 8192, "mirostat": 2, "num_predict": 100_000, "seed": 1},
        max_tokens=10,
        reasoning_effort="none",
    )
    assert {name: shown[name] for name in native} == native
    assert shown["options"] == {"num_ctx": 8192, "mirostat": 2, "num_predict": 10, "seed": 1}


@pytest.mark.parametrize(
    ("wished", "expected"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, "json"),
        ({"type": "json_schema", "json_schema": {"name": "w", "schema": SCHEMA}}, SCHEMA),
    ],
)
async def test_structured_output(
    provider: Provider, upstream: Upstream, wished: Any, expected: Any
) -> None:
    shown = await sent(provider, upstream, response_format=wished)
    assert shown.get("format") == expected


@pytest.mark.parametrize(
    ("effort", "expected"),
    [
        ("none", False),
        ("minimal", "low"),
        ("low", "low"),
        ("medium", "medium"),
        ("high", "high"),
        ("xhigh", "high"),
    ],
)
async def test_the_effort_of_reasoning_is_a_level_of_thinking(
    provider: Provider, upstream: Upstream, effort: str, expected: Any
) -> None:
    assert (await sent(provider, upstream, reasoning_effort=effort))["think"] == expected


@pytest.mark.parametrize(("choice", "offered"), [(None, True), ("auto", True), ("none", False)])
async def test_tools_are_offered_unless_none_shall_be_called(
    provider: Provider, upstream: Upstream, choice: Any, offered: bool
) -> None:
    shown = await sent(provider, upstream, tools=TOOLS, tool_choice=choice)
    assert ("tools" in shown) is offered and "tool_choice" not in shown


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"logit_bias": {"1": 5}}, "logit_bias"),
        ({"tool_choice": "required", "tools": TOOLS}, "tool_choice"),
        (
            {"tool_choice": {"type": "function", "function": {"name": "get_weather"}}},
            "tool_choice",
        ),
    ],
)
async def test_a_parameter_that_ollama_has_no_word_for_is_refused_or_dropped(
    provider: Provider, upstream: Upstream, fields: dict[str, Any], param: str
) -> None:
    failure = await refusal(provider, **fields)
    assert failure.info.param == param and f"'{param}'" in failure.info.message
    shown = await sent(provider, upstream, **fields, drop_params=True)
    assert not {param, "drop_params"} & set(shown)
    assert ("tools" in shown) is ("tools" in fields)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"reasoning_effort": "enormous"}, "reasoning_effort"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"tools": [{"type": "web_search", "function": {"name": "f"}}]}, "tools"),
        ({"options": [1]}, "options"),
        ({"temperature": "hot"}, "temperature"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "image_url": "https://h/x.png"},
                            {"type": "file", "file": {"file_id": "x"}},
                        ],
                    }
                ]
            },
            "messages",
        ),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "[1]"}}],
                    }
                ]
            },
            "messages",
        ),
    ],
)
async def test_what_ollama_cannot_do_is_a_400_that_names_the_parameter(
    provider: Provider, fields: dict[str, Any], param: str
) -> None:
    for stream in (False, True):
        failure = await refusal(provider, stream=stream, **fields)
        assert failure.info.param == param
