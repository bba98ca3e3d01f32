"""What the anthropic adapter asks: everything a canonical chat can say, in Anthropic's words."""

import base64
import json
from typing import Any, cast

import anthropic.types
import pytest
from pydantic import TypeAdapter

from tests.contract.anthropic_stage import anthropic_at, message, text_block
from tests.contract.provider_contract import ask_of, both, outcome
from tests.upstream import Upstream, json_reply
from workers.http import Http
from workers.providers.base import AttemptFailed, Provider

CACHE = {"type": "ephemeral"}
HOUR = {"type": "ephemeral", "ttl": "1h"}
PIXEL = "iVBORw0KGgo="
OLD, NEW = "claude-sonnet-4-5-20250929", "claude-opus-5-5"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city": "Paris", "days": 1.50}'},
}
THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "c2lnbmVk"}
REDACTED = {"type": "redacted_thinking", "data": "ZW5jcnlwdGVk"}
NO_LONGER_IN_THE_SDK = {"temperature", "top_k", "top_p"}
_PARAMETERS = anthropic.types.message_create_params.MessageCreateParamsNonStreaming
_CREATE: TypeAdapter[Any] = TypeAdapter(_PARAMETERS)


@pytest.fixture
def provider(upstream: Upstream, http: Http) -> Provider:
    upstream.script(json_reply(message(text_block("x"))))
    return anthropic_at(upstream.url, http)


async def asked(
    provider: Provider, upstream: Upstream, engine: str = NEW, **fields: Any
) -> dict[str, Any]:
    """What arrives at Anthropic, which must be what its own SDK would send."""
    await provider.complete(ask_of(**fields)._replace(engine=engine))
    sent = cast("dict[str, Any]", upstream.requests[-1].json)
    known = {name: value for name, value in sent.items() if name not in NO_LONGER_IN_THE_SDK}
    assert set(known) <= {*_PARAMETERS.__required_keys__, *_PARAMETERS.__optional_keys__}
    _CREATE.validate_python(known)
    return sent


async def turns(provider: Provider, upstream: Upstream, *messages: Any) -> list[dict[str, Any]]:
    sent = await asked(provider, upstream, messages=list(messages))
    return cast("list[dict[str, Any]]", sent["messages"])


async def refused(provider: Provider, param: str, engine: str = NEW, **fields: Any) -> str:
    """The message of the 400 that names `param`, before anything was sent."""
    failure = await outcome(provider, ask_of(**fields)._replace(engine=engine))
    assert (failure.info.status, failure.info.param) == (400, param)
    assert not failure.reached
    return failure.info.message


def user(*content: Any, **more: Any) -> dict[str, Any]:
    only_text = len(content) == 1 and isinstance(content[0], str)
    return {"role": "user", "content": content[0] if only_text else list(content), **more}


def result(call_id: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content, **more}


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


async def test_system_and_developer_messages_become_the_system_prompt_in_their_order(
    provider: Provider, upstream: Upstream
) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        user("Hello"),
        {"role": "assistant", "content": "Hi."},
        {"role": "developer", "content": [{"type": "text", "text": "Now be funny."}]},
        user("Go on"),
    ]
    sent = await asked(provider, upstream, messages=messages)
    assert sent["system"] == [text_block("Be brief."), text_block("Now be funny.")]
    assert [turn["role"] for turn in sent["messages"]] == ["user", "assistant", "user"]


async def test_neighbours_of_one_role_become_one_turn_and_empty_texts_none(
    provider: Provider, upstream: Upstream
) -> None:
    sent = await turns(
        provider,
        upstream,
        user("a"),
        user({"type": "text", "text": "b"}, {"type": "text", "text": " \n"}),
        {"role": "assistant", "content": ""},
        user("c", name="Ann"),
        {"role": "assistant", "content": "d"},
        {"role": "assistant", "content": None, "refusal": "No."},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "Never."}]},
        user("e"),
    )
    assert sent == [
        {"role": "user", "content": [text_block("a"), text_block("b"), text_block("c")]},
        {
            "role": "assistant",
            "content": [text_block("d"), text_block("No."), text_block("Never.")],
        },
        {"role": "user", "content": [text_block("e")]},
    ]


async def test_calls_and_their_results_are_blocks_of_both_sides_turns(
    provider: Provider, upstream: Upstream
) -> None:
    other = {"id": "call.2:x", "type": "function", "function": {"name": "now", "arguments": ""}}
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    sent = await turns(
        provider,
        upstream,
        user("Weather?"),
        {"role": "assistant", "content": "Let me see.", "tool_calls": [CALL, other]},
        result("call_1", [{"type": "text", "text": "Rain"}, image]),
        result("call.2:x", ""),
        user("And tomorrow?"),
    )
    assert sent[1]["content"] == [
        text_block("Let me see."),
        {
            "type": "tool_use",
            "id": "call_1",
            "name": "get_weather",
            "input": {"city": "Paris", "days": 1.5},
        },
        {"type": "tool_use", "id": "call_2_x", "name": "now", "input": {}},
    ]
    source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    assert sent[2] == {
        "role": "user",
        "content": [
            {
                "type": "tool_result",
                "tool_use_id": "call_1",
                "content": [text_block("Rain"), {"type": "image", "source": source}],
            },
            {"type": "tool_result", "tool_use_id": "call_2_x"},
            text_block("And tomorrow?"),
        ],
    }
    assert b'"days":1.50' in upstream.requests[0].body


@pytest.mark.parametrize("arguments", ['{"city": ', "[]", '"Paris"', "7"])
async def test_a_call_whose_arguments_are_no_object_is_refused(
    provider: Provider, arguments: str
) -> None:
    call = {**CALL, "function": {"name": "f", "arguments": arguments}}
    messages = [user("x"), {"role": "assistant", "tool_calls": [call]}, result("call_1", "y")]
    assert "'call_1'" in await refused(provider, "messages", messages=messages)


async def test_thoughts_go_back_before_what_came_of_them_if_they_are_signed(
    provider: Provider, upstream: Upstream
) -> None:
    unsigned = [{"type": "thinking", "thinking": "?"}, {"type": "reasoning.text", "text": "?"}]
    sent = await turns(
        provider,
        upstream,
        user("Weather?"),
        {
            "role": "assistant",
            "content": "Let me see.",
            "reasoning_content": "Hm.",
            "thinking_blocks": [THOUGHT, *unsigned, REDACTED],
            "tool_calls": [CALL],
        },
        result("call_1", "Rain"),
    )
    kinds = ["thinking", "redacted_thinking", "text", "tool_use"]
    assert [block["type"] for block in sent[1]["content"]] == kinds
    assert sent[1]["content"][:2] == [THOUGHT, REDACTED]


async def test_images_and_files_come_along_or_are_fetched_by_anthropic(
    provider: Provider, upstream: Upstream
) -> None:
    text = base64.b64encode("Grün".encode()).decode()
    (turn,) = await turns(
        provider,
        upstream,
        user(
            {"type": "image_url", "image_url": {"url": "https://h/a.png", "detail": "low"}},
            {"type": "image_url", "image_url": f"DATA:Image/JPEG;name=x;base64,{PIXEL}"},
            {
                "type": "file",
                "file": {
                    "filename": "a.pdf",
                    "file_data": "data:application/pdf;base64,JVBERi0=",
                },
            },
            {"type": "file", "file": {"file_id": "file_011"}},
            {"type": "file", "file": {"file_data": "https://h/b.pdf"}},
            {"type": "file", "file": {"file_data": f"data:text/markdown;base64,{text}"}},
        ),
    )
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}
    jpeg = {"type": "base64", "media_type": "image/jpeg", "data": PIXEL}
    plain = {"type": "text", "media_type": "text/plain", "data": "Grün"}
    assert turn["content"] == [
        {"type": "image", "source": {"type": "url", "url": "https://h/a.png"}},
        {"type": "image", "source": jpeg},
        {"type": "document", "source": pdf, "title": "a.pdf"},
        {"type": "document", "source": {"type": "file", "file_id": "file_011"}},
        {"type": "document", "source": {"type": "url", "url": "https://h/b.pdf"}},
        {"type": "document", "source": plain},
    ]
    assert len(upstream.requests) == 1, "nothing is fetched here"


@pytest.mark.parametrize(
    "message_",
    [
        user({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}),
        user({"type": "image_url", "image_url": {"url": "data:image/png,raw"}}),
        user({"type": "image_url"}),
        user({"type": "file", "file": {"file_data": "JVBERi0="}}),
        user({"type": "file", "file": {}}),
        user({"type": "file"}),
        user({"type": "file", "file": {"file_data": "data:text/plain;base64,/w=="}}),
        user({"type": "file", "file": {"file_data": "data:text/plain;base64,?"}}),
        user({"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}),
        user({"type": "hologram"}),
        {"role": "function", "name": "f", "content": "x"},
        {"role": "tool", "content": "x"},
        {"role": "assistant", "tool_calls": [{"id": 7}]},
        user({"text": 7}),
    ],
)
async def test_a_message_that_cannot_be_passed_on_is_refused(
    provider: Provider, message_: dict[str, Any]
) -> None:
    assert await refused(provider, "messages", messages=[message_])


async def test_cache_marks_on_parts_messages_tools_and_the_request_pass(
    provider: Provider, upstream: Upstream
) -> None:
    marked = {"type": "text", "text": "a", "cache_control": CACHE}
    sent = await asked(
        provider,
        upstream,
        messages=[
            {"role": "system", "content": [marked, {"type": "text", "text": "b"}]},
            user("c", cache_control=HOUR),
            {"role": "assistant", "content": "d", "tool_calls": [CALL], "cache_control": CACHE},
            result("call_1", "e", cache_control=HOUR),
            user(marked, {**marked, "cache_control": HOUR}, cache_control=CACHE),
            user("", cache_control=CACHE),
        ],
        tools=[{**WEATHER, "cache_control": HOUR}],
        cache_control=CACHE,
    )
    assert sent["system"] == [{**text_block("a"), "cache_control": CACHE}, text_block("b")]
    opening, said, closing = (turn["content"] for turn in sent["messages"])
    assert opening[0]["cache_control"] == HOUR
    assert [block.get("cache_control") for block in said] == [None, CACHE]
    assert [block["cache_control"] for block in closing] == [HOUR, CACHE, HOUR]
    assert sent["tools"][0]["cache_control"] == HOUR
    assert sent["cache_control"] == CACHE


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
    ("effort", "theirs"),
    [
        ("minimal", "low"),
        ("low", "low"),
        ("medium", "medium"),
        ("high", "high"),
        ("xhigh", "xhigh"),
        ("max", "max"),
    ],
)
async def test_newer_models_think_by_effort(
    provider: Provider, upstream: Upstream, effort: str, theirs: str
) -> None:
    sent = await asked(provider, upstream, reasoning_effort=effort)
    assert sent["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert sent["output_config"] == {"effort": theirs}


@pytest.mark.parametrize(
    ("effort", "limit", "budget"),
    [
        ("minimal", 20_000, 2000),
        ("low", 20_000, 4000),
        ("medium", 20_000, 10_000),
        ("high", 20_000, 16_000),
        ("xhigh", 20_000, 18_000),
        ("low", None, 1024),
        ("low", 1025, 1024),
    ],
)
async def test_older_models_think_within_a_budget_that_leaves_room_for_the_answer(
    provider: Provider, upstream: Upstream, effort: str, limit: int | None, budget: int
) -> None:
    sent = await asked(provider, upstream, OLD, reasoning_effort=effort, max_tokens=limit)
    assert sent["thinking"] == {"type": "enabled", "budget_tokens": budget}
    assert budget < sent["max_tokens"] and "output_config" not in sent


@pytest.mark.parametrize(
    ("engine", "by_effort"),
    [
        ("claude-3-7-sonnet-20250219", False),
        ("claude-3-7-sonnet-latest", False),
        ("claude-sonnet-4-20250514", False),
        ("claude-opus-4-1", False),
        ("claude-opus-4-5-20251101", False),
        ("claude-haiku-4-5", False),
        ("anthropic/claude-sonnet-4.5", False),
        ("claude-2.1", False),
        ("claude-instant-1.2", False),
        ("claude-opus-4-6", True),
        ("claude-sonnet-4-6", True),
        ("claude-sonnet-4.6", True),
        ("claude-sonnet-5", True),
        ("claude-sonnet-5@20260601", True),
        ("claude-sonnet-5-20260601", True),
        ("claude-fable-5-2", True),
        ("claude-mythos-preview", True),
        ("claude-opus-10", True),
        ("some-other-model", True),
    ],
)
async def test_how_a_model_thinks_follows_from_its_version(
    provider: Provider, upstream: Upstream, engine: str, by_effort: bool
) -> None:
    sent = await asked(provider, upstream, engine, reasoning_effort="high", max_tokens=9000)
    assert sent["thinking"]["type"] == ("adaptive" if by_effort else "enabled")
    sent = await asked(provider, upstream, engine, reasoning_effort="none")
    assert sent.get("thinking") == ({"type": "disabled"} if by_effort else None)


async def test_an_effort_that_cannot_be_is_refused_or_left_out(
    provider: Provider, upstream: Upstream
) -> None:
    await refused(provider, "reasoning_effort", reasoning_effort="infinite")
    said = await refused(provider, "reasoning_effort", OLD, reasoning_effort="low", max_tokens=1024)
    assert "1024" in said and "max_tokens" in said
    for engine, effort in ((NEW, "infinite"), (OLD, "low")):
        sent = await asked(
            provider, upstream, engine, reasoning_effort=effort, max_tokens=1024, drop_params=True
        )
        assert "thinking" not in sent and "output_config" not in sent


async def test_older_models_do_not_think_before_a_call_that_is_demanded(
    provider: Provider, upstream: Upstream
) -> None:
    named = {"type": "function", "function": {"name": "get_weather"}}
    for choice, thinks in (("required", False), (named, False), ("auto", True), ("none", True)):
        sent = await asked(
            provider,
            upstream,
            OLD,
            tools=[WEATHER],
            tool_choice=choice,
            reasoning_effort="low",
            max_tokens=5000,
        )
        assert ("thinking" in sent) is thinks


async def test_older_models_do_not_begin_to_think_between_a_call_and_its_result(
    provider: Provider, upstream: Upstream
) -> None:
    def row(**said: Any) -> list[dict[str, Any]]:
        turn = {"role": "assistant", "tool_calls": [CALL], **said}
        return [user("Weather?"), turn, result("call_1", "Rain"), result("call_1", "Sun")]

    async def thinks(engine: str, messages: list[dict[str, Any]]) -> bool:
        sent = await asked(
            provider, upstream, engine, messages=messages, reasoning_effort="low", max_tokens=5000
        )
        return "thinking" in sent

    assert not await thinks(OLD, row())
    assert await thinks(OLD, row(thinking_blocks=[THOUGHT]))
    assert await thinks(OLD, [*row(), user("And now?")])
    assert await thinks(NEW, row())


async def test_anthropics_own_words_for_thinking_and_output_pass_as_they_are(
    provider: Provider, upstream: Upstream
) -> None:
    thinking = {"type": "enabled", "budget_tokens": 2000, "display": "omitted"}
    sent = await asked(
        provider,
        upstream,
        thinking=thinking,
        output_config={"effort": "max"},
        reasoning_effort="low",
        max_tokens=3000,
    )
    assert sent["thinking"] == thinking and sent["output_config"] == {"effort": "max"}
    await refused(provider, "output_config", output_config=["effort"])


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


@pytest.mark.parametrize("depth", [100, 900, 980, 1000, 5000])
async def test_no_depth_of_nesting_is_more_than_a_refusal(provider: Provider, depth: int) -> None:
    thought = {"type": "redacted_thinking", "data": "x", "more": "deep"}
    said = {"role": "assistant", "content": "x", "thinking_blocks": [thought]}
    deep = '{"a":' * depth + "1" + "}" * depth
    body = json.dumps({"messages": [said]}).replace('"deep"', deep).encode()
    try:
        await provider.complete(ask_of()._replace(body=body))
    except AttemptFailed as failed:
        assert failed.info.status == 400 and depth > 900
    else:
        assert depth < 1000
