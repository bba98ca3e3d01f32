"""The cohere adapter keeps the contract of providers, and asks as Cohere's API v2 wants it."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from schemas.config import ProviderConfig
from schemas.ids import Clock
from tests.contract.cohere_stage import KEY, CohereStage, chat_answer
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
from tests.upstream import Upstream, json_reply
from workers.http import Http
from workers.providers import make
from workers.providers.base import AttemptFailed, Provider
from workers.providers.cohere import Cohere

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}


@pytest.fixture
def provider(upstream: Upstream, http: Http) -> Provider:
    """The cohere adapter, at the scripted server."""
    config = ProviderConfig(
        dialect="cohere", base_url=upstream.url, api_key=KEY, headers={"X-Org": "ours"}
    )
    return make("cohere", config, http, Clock())


class TestCohere(ProviderContract):
    @pytest.fixture
    async def stage(self, provider: Provider, upstream: Upstream) -> AsyncIterator[Stage]:
        yield CohereStage(provider, upstream)


async def sent(provider: Provider, upstream: Upstream, **fields: Any) -> dict[str, Any]:
    """What arrives at Cohere of a chat with these fields."""
    upstream.script(json_reply(chat_answer({"type": "text", "text": "x"})))
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
            {"role": "system", "content": [{"type": "text", "text": "Be"}]},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello", "reasoning_content": "A greeting."},
            {"role": "assistant", "content": None, "refusal": "No."},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "Never."}]},
            {"role": "user", "content": [{"type": "text", "text": "Bye"}]},
        ],
    )
    assert shown["model"] == "the-engine" and shown["stream"] is False
    assert shown["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "system", "content": "Be"},
        {"role": "user", "content": "Hi"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "A greeting."},
                {"type": "text", "text": "Hello"},
            ],
        },
        {"role": "assistant", "content": "No."},
        {"role": "assistant", "content": "Never."},
        {"role": "user", "content": [{"type": "text", "text": "Bye"}]},
    ]


async def test_images_go_as_they_are_because_cohere_fetches_them(
    provider: Provider, upstream: Upstream
) -> None:
    parts = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "https://h/cat.png", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
    ]
    shown = await sent(provider, upstream, messages=[{"role": "user", "content": parts}])
    assert shown["messages"][0]["content"] == parts


@pytest.mark.parametrize(
    ("result", "data"),
    [
        ('{"temperature": 24, "unit": "C"}', [{"temperature": 24, "unit": "C"}]),
        ('[{"a": 1}, {"b": 2}]', [{"a": 1}, {"b": 2}]),
        ("24 °C", [{"text": "24 °C"}]),
        ("[1, 2]", [{"text": "[1, 2]"}]),
        ("[]", [{"text": "[]"}]),
        ("{}", [{}]),
        ("", [{"text": ""}]),
        ("[" * 5000, [{"text": "[" * 5000}]),
    ],
    ids=["object", "objects", "text", "numbers", "none", "empty object", "empty", "deep"],
)
async def test_the_results_of_tools_are_documents_that_can_be_cited(
    provider: Provider, upstream: Upstream, result: str, data: list[dict[str, Any]]
) -> None:
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "Madrid"}'},
    }
    shown = await sent(
        provider,
        upstream,
        messages=[
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "reasoning_content": "I look.", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": result},
        ],
    )
    assert shown["messages"][1] == {
        "role": "assistant",
        "tool_calls": [call],
        "tool_plan": "I look.",
    }
    assert shown["messages"][2] == {
        "role": "tool",
        "tool_call_id": "call_1",
        "content": [{"type": "document", "document": {"data": one}} for one in data],
    }


@pytest.mark.parametrize(
    ("choice", "expected", "offered"),
    [
        (None, None, ["get_weather", "get_time"]),
        ("auto", None, ["get_weather", "get_time"]),
        ("none", "NONE", ["get_weather", "get_time"]),
        ("required", "REQUIRED", ["get_weather", "get_time"]),
        ({"type": "function", "function": {"name": "get_time"}}, "REQUIRED", ["get_time"]),
    ],
)
async def test_tools_and_the_choice_among_them(
    provider: Provider, upstream: Upstream, choice: Any, expected: str | None, offered: list[str]
) -> None:
    weather = {"name": "get_weather", "description": "Looks", "parameters": WEATHER, "strict": True}
    tools = [
        {"type": "function", "function": weather},
        {"type": "function", "function": {"name": "get_time"}},
    ]
    shown = await sent(provider, upstream, tools=tools, tool_choice=choice)
    assert [tool["function"]["name"] for tool in shown["tools"]] == offered
    assert shown.get("tool_choice") == expected
    assert shown["strict_tools"] is True
    if len(offered) == 2:
        assert shown["tools"][0]["function"] == {
            "name": "get_weather",
            "description": "Looks",
            "parameters": WEATHER,
        }


async def test_parameters_have_coheres_names(provider: Provider, upstream: Upstream) -> None:
    shown = await sent(
        provider,
        upstream,
        max_completion_tokens=100,
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        stop=["END", "STOP"],
        seed=7,
        frequency_penalty=0.1,
        presence_penalty=0.2,
        logprobs=True,
        top_logprobs=0,
        user="u",
        metadata={"a": "b"},
    )
    del shown["messages"], shown["model"], shown["stream"]
    assert shown == {
        "max_tokens": 100,
        "temperature": 0.5,
        "p": 0.9,
        "k": 40,
        "stop_sequences": ["END", "STOP"],
        "seed": 7,
        "frequency_penalty": 0.1,
        "presence_penalty": 0.2,
        "logprobs": True,
    }


@pytest.mark.parametrize(
    ("wished", "expected"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"type": "json_object"}),
        (
            {"type": "json_schema", "json_schema": {"name": "w", "schema": WEATHER}},
            {"type": "json_object", "json_schema": WEATHER},
        ),
    ],
)
async def test_structured_output(
    provider: Provider, upstream: Upstream, wished: Any, expected: Any
) -> None:
    shown = await sent(provider, upstream, response_format=wished)
    assert shown.get("response_format") == expected


@pytest.mark.parametrize(
    ("effort", "expected"),
    [
        ("none", {"type": "disabled"}),
        ("minimal", {"type": "enabled", "token_budget": 512}),
        ("low", {"type": "enabled", "token_budget": 1024}),
        ("medium", {"type": "enabled", "token_budget": 4096}),
        ("high", {"type": "enabled"}),
    ],
)
async def test_the_effort_of_reasoning_is_a_budget_of_thinking(
    provider: Provider, upstream: Upstream, effort: str, expected: Any
) -> None:
    assert (await sent(provider, upstream, reasoning_effort=effort))["thinking"] == expected


async def test_coheres_own_parameters_pass_as_they_are(
    provider: Provider, upstream: Upstream
) -> None:
    native = {
        "citation_options": {"mode": "FAST"},
        "documents": [{"id": "1", "data": {"text": "Sunny."}}, "Rainy."],
        "k": 3,
        "p": 0.4,
        "priority": 2,
        "safety_mode": "STRICT",
        "strict_tools": False,
        "thinking": {"type": "enabled", "token_budget": 99},
    }
    shown = await sent(provider, upstream, **native, top_p=0.9, reasoning_effort="low")
    assert {name: shown[name] for name in native} == native


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"logit_bias": {"1": 5}}, "logit_bias"),
        ({"verbosity": "low"}, "verbosity"),
    ],
)
async def test_a_parameter_that_cohere_has_no_word_for_is_refused_or_dropped(
    provider: Provider, upstream: Upstream, fields: dict[str, Any], param: str
) -> None:
    failure = await refusal(provider, **fields)
    assert failure.info.param == param and f"'{param}'" in failure.info.message
    shown = await sent(provider, upstream, **fields, drop_params=True)
    assert not {param, "drop_params"} & set(shown)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"reasoning_effort": "enormous"}, "reasoning_effort"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"tool_choice": "some"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"tools": [{"type": "web_search", "function": {"name": "f"}}]}, "tools"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"temperature": "hot"}, "temperature"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "system", "content": [{"type": "image_url"}]}]}, "messages"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {
                                "type": "input_audio",
                                "input_audio": {"data": "", "format": "wav"},
                            }
                        ],
                    }
                ]
            },
            "messages",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages",
        ),
    ],
)
async def test_what_cohere_cannot_do_is_a_400_that_names_the_parameter(
    provider: Provider, fields: dict[str, Any], param: str
) -> None:
    for stream in (False, True):
        failure = await refusal(provider, stream=stream, **fields)
        assert failure.info.param == param


@both
async def test_the_clients_own_key_goes_in_place_of_the_gateways(
    provider: Provider, upstream: Upstream, stream: bool
) -> None:
    CohereStage(provider, upstream).play(Scene())
    ask = ask_of({"X-Trace": "abc"}, stream=stream)
    for one in (ask._replace(credential=CLIENT_KEY), ask):
        if stream:
            assert (await read(provider, one)).end is not None
        else:
            await provider.complete(one)
    sent = [request.headers["Authorization"] for request in upstream.requests]
    assert sent == [f"Bearer {CLIENT_KEY}", f"Bearer {KEY}"]
    headers = upstream.requests[0].headers
    assert headers["X-Trace"] == "abc" and headers["X-Org"] == "ours"
    assert KEY not in str(headers) and CLIENT_KEY.encode() not in upstream.requests[0].body


def test_base_urls_are_completed_and_checked(http: Http) -> None:
    def url_of(base_url: str) -> str:
        config = ProviderConfig(dialect="cohere", base_url=base_url)
        provider = make("mine", config, http, Clock())
        assert isinstance(provider, Cohere)
        return provider.chat_url

    assert url_of("https://api.cohere.com/v2/") == "https://api.cohere.com/v2/chat"
    assert url_of("http://cohere.internal:8080") == "http://cohere.internal:8080/v2/chat"
    for wrong in ("", "localhost:80", "ftp://host/v2"):
        with pytest.raises(ValueError, match=r"providers\.mine\.base_url"):
            url_of(wrong)
