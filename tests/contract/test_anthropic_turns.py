"""Conversations as the anthropic adapter tells them: system prompt, turns, calls, images, files."""

import base64
import json
from typing import Any, cast

import pytest

from tests.contract.anthropic_asked import CALL, THOUGHT, WEATHER, asked, refused, result, user
from tests.contract.anthropic_stage import anthropic_at, message, text_block
from tests.contract.provider_contract import ask_of
from tests.upstream import Upstream, json_reply
from workers.http import Http
from workers.providers.base import AttemptFailed, Provider

CACHE = {"type": "ephemeral"}
HOUR = {"type": "ephemeral", "ttl": "1h"}
PIXEL = "iVBORw0KGgo="
REDACTED = {"type": "redacted_thinking", "data": "ZW5jcnlwdGVk"}


@pytest.fixture
def provider(upstream: Upstream, http: Http) -> Provider:
    upstream.script(json_reply(message(text_block("x"))))
    return anthropic_at(upstream.url, http)


async def turns(provider: Provider, upstream: Upstream, *messages: Any) -> list[dict[str, Any]]:
    sent = await asked(provider, upstream, messages=list(messages))
    return cast("list[dict[str, Any]]", sent["messages"])


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
