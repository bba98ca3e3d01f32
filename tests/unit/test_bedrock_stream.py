"""Streams of Converse folded without a socket: cut at any byte, the same comes out."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.ids import Clock
from schemas.usage import Usage
from tests.contract.bedrock_stage import (
    BEGIN,
    ending,
    event,
    exception,
    frame,
    text_block,
    thought_block,
    tool_block,
)
from tests.contract.provider_contract import ask_of
from tests.folding import Folded, folded, splits
from workers.failures import Failures
from workers.providers.base import AttemptFailed
from workers.providers.bedrock.answer import ConverseFolder
from workers.providers.bedrock.events import EventParser

FAILURES = Failures("acme", (), Clock())
UNKNOWN = event("somethingNew", {"contentBlockIndex": 0}) + event("keepAlive", b"")
NO_UTF8_ESCAPES = frame(
    '{"contentBlockIndex":1,"delta":{"text":"日本語 😀"}}'.encode(),
    {":event-type": "contentBlockDelta", ":message-type": "event"},
)
STREAM = b"".join(
    [
        BEGIN,
        *thought_block(0, "I thi", "nk"),
        *text_block(1, "Hel", "", "lö"),
        NO_UTF8_ESCAPES,
        UNKNOWN,
        *tool_block(2, "tooluse_a", "weather", '{"city', '": "Köln"}'),
        *tool_block(3, "tooluse_b", "time"),
        *ending("tool_use"),
    ]
)


def fold(*blocks: bytes) -> Folded:
    ask = ask_of(stream=True)
    return folded(blocks, EventParser(), ConverseFolder(ask, FAILURES))


def deltas(got: Folded) -> list[dict[str, Any]]:
    return [json.loads(part)["choices"][0]["delta"] for part in got.parts]


WHOLE = fold(STREAM)


@given(splits(STREAM))
@example([STREAM[at : at + 1] for at in range(len(STREAM))])
def test_a_stream_cut_anywhere_gives_the_same(blocks: list[bytes]) -> None:
    got = fold(*blocks)
    assert got == WHOLE


def test_a_stream_has_thoughts_text_and_calls_in_order() -> None:
    told = deltas(WHOLE)
    assert told[0] == {"role": "assistant", "reasoning_content": "I thi"}
    assert told[2] == {
        "thinking_blocks": [{"type": "thinking", "thinking": "I think", "signature": "c2lnbmVk"}]
    }
    assert "".join(delta.get("content", "") for delta in told) == "Hellö日本語 😀"
    calls = [call for delta in told for call in delta.get("tool_calls", ())]
    assert [call["index"] for call in calls] == [0, 0, 0, 1, 1]
    assert calls[0]["id"] == "tooluse_a" and calls[3]["function"]["name"] == "time"
    assert calls[1]["function"]["arguments"] + calls[2]["function"]["arguments"] == (
        '{"city": "Köln"}'
    )
    assert calls[4]["function"]["arguments"] == "{}", "no arguments are an empty object"
    assert WHOLE.end.finish_reason == "tool_calls"
    assert WHOLE.end.usage == Usage(input=7, output=3, status="reported")
    assert json.loads(WHOLE.end.last)["choices"][0]["finish_reason"] == "tool_calls"


def test_the_size_of_all_text_is_counted() -> None:
    assert WHOLE.text_bytes == len('I thinkHellö日本語 😀weather{"city": "Köln"}time{}'.encode())


@given(st.integers(1, 5))
def test_a_delta_of_300_kilobytes_arrives_whole(pieces: int) -> None:
    text = "wörd " * 60_000
    stream = b"".join([*text_block(0, text), *ending()])
    size = -(-len(stream) // pieces)
    got = fold(*(stream[at : at + size] for at in range(0, len(stream), size)))
    assert "".join(delta["content"] for delta in deltas(got)) == text


def test_thoughts_that_are_hidden_come_back_as_they_were() -> None:
    hidden = {"contentBlockIndex": 0, "delta": {"reasoningContent": {"redactedContent": "aGk="}}}
    stop = event("contentBlockStop", {"contentBlockIndex": 0})
    got = fold(event("contentBlockDelta", hidden), stop, *text_block(1, "x"), *ending())
    assert deltas(got)[0]["thinking_blocks"] == [{"type": "redacted_thinking", "data": "aGk="}]


def test_blocks_that_are_not_ended_end_with_the_message() -> None:
    got = fold(*tool_block(0, "a", "time")[:1], *thought_block(1, "hm")[:2], *ending("tool_use"))
    told = deltas(got)
    assert told[1]["reasoning_content"] == "hm"
    assert told[2]["tool_calls"][0]["function"]["arguments"] == "{}"
    assert told[3]["thinking_blocks"][0]["thinking"] == "hm"


def test_what_a_tool_of_the_vendor_does_is_not_the_clients_to_do() -> None:
    start = {"toolUse": {"toolUseId": "a", "name": "search", "type": "server_tool_use"}}
    piece = {"contentBlockIndex": 0, "delta": {"toolUse": {"input": "{}"}}}
    result = {"contentBlockIndex": 1, "delta": {"toolResult": [{"text": "found"}]}}
    got = fold(
        event("contentBlockStart", {"contentBlockIndex": 0, "start": start}),
        event("contentBlockDelta", piece),
        event("contentBlockStart", {"contentBlockIndex": 1, "start": {"toolResult": {}}}),
        event("contentBlockDelta", result),
        *text_block(2, "It is so"),
        *ending(),
    )
    assert deltas(got) == [{"role": "assistant", "content": "It is so"}]


@pytest.mark.parametrize(
    ("stop", "reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("tool_use", "tool_calls"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("guardrail_intervened", "content_filter"),
        ("content_filtered", "content_filter"),
        ("malformed_model_output", "stop"),
        ("malformed_tool_use", "stop"),
        ("something_new", "stop"),
    ],
)
def test_every_reason_to_stop_has_its_finish_reason(stop: str, reason: str) -> None:
    assert fold(*text_block(0, "x"), *ending(stop)).end.finish_reason == reason


def test_a_stream_without_text_still_has_a_first_and_a_last_chunk() -> None:
    got = fold(BEGIN, *ending("guardrail_intervened"))
    assert deltas(got) == [{"role": "assistant", "content": ""}]
    assert got.end.finish_reason == "content_filter"


def test_guardrails_tell_what_they_did() -> None:
    trace = {"guardrail": {"actionReason": "Guardrail blocked."}}
    got = fold(*text_block(0, "no"), *ending("guardrail_intervened", trace=trace))
    assert json.loads(got.end.last)["trace"] == trace
    stop = {"stopReason": "end_turn", "additionalModelResponseFields": {"stop_sequence": "x"}}
    got = fold(*text_block(0, "no"), event("messageStop", stop), ending()[1])
    assert json.loads(got.end.last)["additionalModelResponseFields"] == {"stop_sequence": "x"}


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        (
            {"inputTokens": 5, "outputTokens": 2, "totalTokens": 7},
            Usage(input=5, output=2, status="reported"),
        ),
        (
            {"inputTokens": 0, "outputTokens": 0, "totalTokens": 0},
            Usage(status="reported"),
        ),
        (
            {
                "inputTokens": 12,
                "outputTokens": 56,
                "totalTokens": 10_268,
                "cacheReadInputTokens": 10_132,
                "cacheWriteInputTokens": 68,
                "cacheDetails": [
                    {"ttl": "1h", "inputTokens": 60},
                    {"ttl": "5m", "inputTokens": 8},
                ],
            },
            Usage(
                input=12,
                cached_input=10_132,
                cache_write=8,
                cache_write_1h=60,
                output=56,
                status="reported",
            ),
        ),
        ({"inputTokens": "many"}, Usage()),
        ({"inputTokens": -1, "outputTokens": 2}, Usage()),
        ({}, Usage()),
        ([], Usage()),
        (None, Usage(input=2, output=1, status="estimated")),
    ],
)
def test_usage_is_read_by_the_rule_of_bedrock(usage: Any, read: Usage) -> None:
    stop = event("messageStop", {"stopReason": "end_turn"})
    metadata = event("metadata", {"usage": usage, "metrics": {"latencyMs": 1}})
    assert fold(*text_block(0, "abc"), stop, metadata).end.usage == read


@pytest.mark.parametrize(
    ("kind", "status", "shown", "retryable"),
    [
        ("throttlingException", 429, "rate_limit_error", True),
        ("validationException", 400, "invalid_request_error", False),
        ("internalServerException", 502, "provider_error", True),
        ("modelStreamErrorException", 502, "provider_error", True),
        ("serviceUnavailableException", 502, "provider_error", True),
        ("modelTimeoutException", 504, "provider_error", True),
        ("accessDeniedException", 502, "provider_error", False),
        ("somethingNewException", 502, "provider_error", True),
    ],
)
def test_an_exception_in_the_stream_is_told_by_the_table(
    kind: str, status: int, shown: str, retryable: bool
) -> None:
    with pytest.raises(AttemptFailed) as caught:
        fold(BEGIN, exception(kind, "It went wrong", originalStatusCode=500))
    assert (caught.value.info.status, caught.value.info.type) == (status, shown)
    assert caught.value.retryable is retryable
    if status in (400, 429):
        assert caught.value.info.message == "It went wrong"


def test_an_error_without_a_payload_is_told_too() -> None:
    headers = {":message-type": "error", ":error-code": "InternalError", ":error-message": "Oh"}
    with pytest.raises(AttemptFailed, match="Oh"):
        fold(frame(b"", headers))


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        BEGIN,
        BEGIN + text_block(0, "x")[0],
        STREAM[: len(STREAM) // 2],
        event("messageStop", b"{}"),
        event("contentBlockDelta", b"[]"),
        event("contentBlockDelta", b"\xff\xfe"),
        event("contentBlockDelta", b"[" * 100_000),
        event("contentBlockStart", {"contentBlockIndex": "x"}),
        event("metadata", {"usage": {}, "trace": {}}),
    ],
)
def test_a_stream_that_is_none_never_ends_well(stream: bytes) -> None:
    with pytest.raises(AttemptFailed) as caught:
        fold(stream)
    assert (caught.value.info.status, caught.value.info.type) == (502, "provider_error")
