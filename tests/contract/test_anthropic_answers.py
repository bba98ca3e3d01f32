"""What the anthropic adapter answers: recorded messages and streams, and reasons to stop."""

import json
from pathlib import Path
from typing import Any

import pytest

from schemas.usage import Usage
from tests.contract.anthropic_stage import (
    AnthropicStage,
    anthropic_at,
    event,
    message,
    message_events,
    text_block,
)
from tests.contract.provider_contract import Scene, Told, ask_of, both, read
from tests.upstream import Upstream, event_stream, json_reply
from workers.http import Http
from workers.providers.base import Answer, Provider

FIXTURES = Path(__file__).parents[1] / "fixtures" / "anthropic"
SIGNATURE = "WaUjzkypQ2mUEVM36O2TxuC06KN8xyfbJwyem2dw3URve/op91XWHOEBLLqIOMfFG/UvLEczmEsUjavL"
CITED = {
    "type": "char_location",
    "cited_text": "The grass is green.",
    "document_index": 0,
    "document_title": "Example Document",
    "file_id": None,
    "start_char_index": 0,
    "end_char_index": 20,
}


@pytest.fixture
def provider(upstream: Upstream, http: Http) -> Provider:
    return anthropic_at(upstream.url, http)


async def whole(provider: Provider, upstream: Upstream, body: Any) -> tuple[Answer, dict[str, Any]]:
    """The answer, and the message in it."""
    upstream.script(json_reply(body))
    answer = await provider.complete(ask_of())
    (choice,) = json.loads(answer.body)["choices"]
    assert choice["finish_reason"] == answer.finish_reason
    return answer, choice["message"]


async def streamed(provider: Provider, upstream: Upstream, *events: bytes) -> Told:
    upstream.script(event_stream(*events))
    told = await read(provider, ask_of(stream=True))
    assert told.end is not None
    return told


def deltas_of(told: Told) -> list[dict[str, Any]]:
    return [chunk["choices"][0]["delta"] for chunk in told.chunks]


def gathered(told: Told, name: str) -> list[Any]:
    return [delta[name] for delta in deltas_of(told) if name in delta]


async def test_a_message_is_its_text(provider: Provider, upstream: Upstream) -> None:
    answer, said = await whole(provider, upstream, (FIXTURES / "message.json").read_bytes())
    assert said == {"role": "assistant", "content": "Hi! My name is Claude."}
    assert answer.finish_reason == "stop"
    assert answer.usage == Usage(input=2095, output=503, status="reported")


async def test_uses_of_tools_are_calls(provider: Provider, upstream: Upstream) -> None:
    answer, said = await whole(provider, upstream, (FIXTURES / "tool_use.json").read_bytes())
    assert said["content"] == "I'll check the current weather in San Francisco for you."
    weather, time = said["tool_calls"]
    assert (weather["id"], weather["type"]) == ("toolu_01A09q90qw90lq917835lq9", "function")
    assert weather["function"]["name"] == "get_weather"
    assert json.loads(weather["function"]["arguments"]) == {
        "location": "San Francisco, CA",
        "unit": "celsius",
    }
    assert time["function"] == {"name": "get_time", "arguments": "{}"}
    assert answer.finish_reason == "tool_calls"


async def test_thoughts_are_shown_and_kept_with_their_signatures(
    provider: Provider, upstream: Upstream
) -> None:
    answer, said = await whole(provider, upstream, (FIXTURES / "thinking.json").read_bytes())
    assert said["reasoning_content"] == "Let me analyze this step by step…"
    thinking, redacted = said["thinking_blocks"]
    assert thinking == {
        "type": "thinking",
        "thinking": "Let me analyze this step by step…",
        "signature": SIGNATURE,
    }
    assert set(redacted) == {"type", "data"} and redacted["data"].startswith("EmwKAhgB")
    assert answer.usage == Usage(input=39, output=288, reasoning=842, status="reported")
    assert answer.usage.completion == 1130


@both
async def test_thoughts_that_were_received_can_be_given_back(
    provider: Provider, upstream: Upstream, stream: bool
) -> None:
    name = "thinking.sse" if stream else "thinking.json"
    recorded = (FIXTURES / name).read_bytes()
    if stream:
        told = await streamed(provider, upstream, recorded)
        blocks = [block for given in gathered(told, "thinking_blocks") for block in given]
        said = {"thinking_blocks": blocks}
    else:
        _, said = await whole(provider, upstream, recorded)
    said = {"role": "assistant", "content": "It is 21.", **said}
    upstream.script(json_reply(message(text_block("x"))))
    await provider.complete(ask_of(messages=[said, {"role": "user", "content": "Sure?"}]))
    returned = upstream.requests[-1].json["messages"][0]["content"]
    assert returned[:2] == said["thinking_blocks"] and len(returned) == 3


async def test_a_thought_whose_text_is_kept_back_is_only_its_signature(
    provider: Provider, upstream: Upstream
) -> None:
    thought = {"type": "thinking", "thinking": "", "signature": SIGNATURE}
    _, said = await whole(provider, upstream, message(thought, text_block("x")))
    assert said["thinking_blocks"] == [thought] and "reasoning_content" not in said
    signed = [{"type": "signature_delta", "signature": SIGNATURE}]
    begun = {"type": "thinking", "thinking": "", "signature": ""}
    told = await streamed(provider, upstream, *message_events([(begun, signed)]))
    assert gathered(told, "thinking_blocks") == [[thought]]
    assert gathered(told, "reasoning_content") == []


async def test_citations_are_given_as_anthropic_gives_them(
    provider: Provider, upstream: Upstream
) -> None:
    _, said = await whole(provider, upstream, (FIXTURES / "citations.json").read_bytes())
    assert said["content"] == (
        "According to the document, the grass is green and water is essential for life."
    )
    assert said["citations"][0] == CITED
    assert [cited["type"] for cited in said["citations"]] == ["char_location", "page_location"]
    told = await streamed(provider, upstream, (FIXTURES / "citations.sse").read_bytes())
    assert told.text() == "According to the document, the grass is green"
    assert gathered(told, "citations") == [[CITED]]


async def test_a_refusal_is_a_filtered_answer_with_its_reason(
    provider: Provider, upstream: Upstream
) -> None:
    answer, said = await whole(provider, upstream, (FIXTURES / "refusal.json").read_bytes())
    reason = "This request was declined because it could enable cyber harm."
    assert said == {"role": "assistant", "content": None, "refusal": reason}
    assert answer.finish_reason == "content_filter"
    end = event(
        "message_delta",
        delta={"stop_reason": "refusal", "stop_details": {"explanation": reason}},
        usage={"output_tokens": 22},
    )
    told = await streamed(provider, upstream, message_events([])[0], end, event("message_stop"))
    assert gathered(told, "refusal") == [reason]
    assert told.finish_reasons() == {0: "content_filter"}


async def test_a_recorded_stream_says_hello(provider: Provider, upstream: Upstream) -> None:
    told = await streamed(provider, upstream, (FIXTURES / "message.sse").read_bytes())
    assert deltas_of(told) == [
        {"role": "assistant", "content": "Hello"},
        {"content": "!"},
        {},
    ]
    assert told.end is not None
    assert told.end.usage == Usage(input=25, output=15, status="reported")


async def test_a_recorded_stream_calls_tools_piece_by_piece(
    provider: Provider, upstream: Upstream
) -> None:
    told = await streamed(provider, upstream, (FIXTURES / "tool_use.sse").read_bytes())
    pieces = [call for calls in gathered(told, "tool_calls") for call in calls]
    begun = [piece for piece in pieces if "id" in piece]
    assert [(one["index"], one["function"]["name"]) for one in begun] == [
        (0, "get_weather"),
        (1, "get_time"),
    ]
    arguments = ["", ""]
    for piece in pieces:
        arguments[piece["index"]] += piece["function"]["arguments"]
    assert json.loads(arguments[0]) == {"location": "San Francisco, CA", "unit": "fahrenheit"}
    assert arguments[1] == "{}"
    assert told.end is not None and told.end.finish_reason == "tool_calls"
    assert told.end.usage == Usage(input=472, output=89, status="reported")


async def test_a_recorded_stream_thinks_and_signs(provider: Provider, upstream: Upstream) -> None:
    told = await streamed(provider, upstream, (FIXTURES / "thinking.sse").read_bytes())
    ((thinking,), (redacted,)) = gathered(told, "thinking_blocks")
    assert "".join(gathered(told, "reasoning_content")) == thinking["thinking"]
    assert thinking["signature"].startswith("EqQBCgIY") and redacted["data"].startswith("EmwKAhgB")
    assert told.text() == "The greatest common divisor of 1071 and 462 is **21**."
    assert told.end is not None
    assert told.end.usage == Usage(input=44, output=39, reasoning=271, status="reported")
    text = told.text() + thinking["thinking"]
    assert sum(deltas.text_bytes for deltas in told.deltas) == len(text.encode())


@both
async def test_what_a_scene_thinks_is_told(
    provider: Provider, upstream: Upstream, stream: bool
) -> None:
    AnthropicStage(provider, upstream).play(Scene(thinks="Hm.", tool="f"))
    if stream:
        told = await read(provider, ask_of(stream=True))
        assert gathered(told, "reasoning_content") == ["Hm."]
    else:
        answer = await provider.complete(ask_of())
        said = json.loads(answer.body)["choices"][0]["message"]
        assert said["reasoning_content"] == "Hm." and said["tool_calls"]


@both
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("pause_turn", "stop"),
        ("refusal", "content_filter"),
        ("reason_from_the_future", "stop"),
    ],
)
async def test_every_reason_to_stop_is_one_of_the_four(
    provider: Provider, upstream: Upstream, stream: bool, theirs: str, ours: str
) -> None:
    if stream:
        block = (text_block(""), [{"type": "text_delta", "text": "x"}])
        told = await streamed(provider, upstream, *message_events([block], stop_reason=theirs))
        assert told.end is not None
        assert (told.end.finish_reason, told.finish_reasons()) == (ours, {0: ours})
    else:
        answer, _ = await whole(provider, upstream, message(text_block("x"), stop_reason=theirs))
        assert answer.finish_reason == ours


async def test_blocks_of_anthropics_own_tools_are_passed_over(
    provider: Provider, upstream: Upstream
) -> None:
    search = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
    found = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
    _, said = await whole(provider, upstream, message(search, found, text_block("x")))
    assert said == {"role": "assistant", "content": "x"}
    piece = {"type": "input_json_delta", "partial_json": '{"query": "x"}'}
    text = (text_block(""), [{"type": "text_delta", "text": "x"}])
    told = await streamed(
        provider, upstream, *message_events([(search, [piece]), (found, []), text])
    )
    assert deltas_of(told) == [{"role": "assistant", "content": "x"}, {}]


async def test_an_answer_without_a_word_is_an_empty_one(
    provider: Provider, upstream: Upstream
) -> None:
    _, said = await whole(provider, upstream, message())
    assert said["content"] == ""
    told = await streamed(provider, upstream, *message_events([]))
    assert told.text() == "" and told.finish_reasons() == {0: "stop"}
