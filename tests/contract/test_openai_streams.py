"""Streams of the openai adapter: what leaves when, and what is never a good end."""

import asyncio
import json

import pytest

from schemas.usage import Usage
from tests.contract.provider_contract import (
    ask_of,
    read,
)
from tests.upstream import (
    CUT,
    DONE,
    Upstream,
    chat_answer,
    chat_chunk,
    event,
    event_stream,
    json_reply,
    usage,
)
from workers.providers.base import Deltas, Provider, StreamEnd


async def test_unknown_fields_of_a_chunk_pass_untouched(
    provider: Provider, upstream: Upstream
) -> None:
    odd = '"odd":{"n":12345678901234567890123,"f":0.10}'
    choice = f'{{"index":0,"delta":{{"content":"x",{odd}}},{odd},"logprobs":null}}'
    chunk = f'{{"system_fingerprint":"fp",{odd},"choices":[{choice}],"usage":null}}'.encode()
    upstream.script(event_stream(event(chunk), event(chat_chunk({}, finish_reason="stop")), DONE))
    told = await read(provider, ask_of(stream=True))
    assert told.deltas[0].parts[0].decode() == (
        f'{{"system_fingerprint":"fp",{odd},"choices":[{choice}],"id":"chatcmpl-0193-call",'
        f'"model":"the-clients-name","created":1700000000,"provider":"acme"}}'
    )


async def test_events_of_one_read_leave_together(provider: Provider, upstream: Upstream) -> None:
    together = b"".join(event(chat_chunk(text)) for text in "abc")
    gate = asyncio.Event()
    end = event(chat_chunk({}, finish_reason="stop")) + DONE
    upstream.script(event_stream(together, gate, event(chat_chunk("d")) + end))
    pieces = provider.stream(ask_of(stream=True))
    first = await anext(pieces)
    assert isinstance(first, Deltas) and len(first.parts) == 3 and first.text_bytes == 3
    gate.set()
    rest = [piece async for piece in pieces]
    assert [type(piece) for piece in rest] == [Deltas, StreamEnd]


async def test_a_chunk_without_choices_waits_for_one_and_does_not_begin_the_answer(
    provider: Provider, upstream: Upstream
) -> None:
    early = event(chat_chunk({}, choices=[], first="filter"))
    upstream.script(event_stream(early, CUT))
    told = await read(provider, ask_of(stream=True))
    assert told.chunks == [] and told.failure is not None
    assert told.failure.retryable
    upstream.script(event_stream(early, event(chat_chunk("Hi", finish_reason="stop")), DONE))
    told = await read(provider, ask_of(stream=True))
    assert told.end is not None and told.text() == "Hi"
    assert [chunk.get("first") for chunk in told.chunks] == ["filter", None]


async def test_a_chunk_after_the_finish_releases_what_was_held(
    provider: Provider, upstream: Upstream
) -> None:
    upstream.script(
        event_stream(
            event(chat_chunk("x", finish_reason="stop", usage=usage(1, 1))),
            event(chat_chunk({}, choices=[], late="filter")),
            DONE,
        )
    )
    told = await read(provider, ask_of(stream=True))
    assert told.end is not None and told.end.last == b""
    assert [bool(chunk["choices"]) for chunk in told.chunks] == [True, False]
    assert told.end.finish_reason == "stop"
    assert told.end.usage == Usage(input=1, output=1, status="reported")


async def test_a_stream_may_end_without_done_once_all_choices_finished(
    provider: Provider, upstream: Upstream
) -> None:
    upstream.script(
        event_stream(event(chat_chunk("x")), event(chat_chunk({}, finish_reason="length")))
    )
    told = await read(provider, ask_of(stream=True))
    assert told.end is not None and told.end.finish_reason == "length"


@pytest.mark.parametrize(
    "steps",
    [
        (event(chat_chunk("x")),),
        (event(chat_chunk("x")), event(chat_chunk("y", index=1, finish_reason="stop"))),
        (event(chat_chunk("x")), b"data: {"),
        (event(chat_chunk("x")), event(b'{"choices": [')),
        (event(chat_chunk("x")), event(b'{"choices": [{"delta": 7}]}')),
        (event(chat_chunk("x")), event(b"[1, 2]")),
        (event(chat_chunk("x")), event(b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}")),
        (event(chat_chunk("x")), b'data: {"choices": [{"delta": {"content": "\xff"}}]}\n\n'),
        (event(chat_chunk("x")), event({"error": {"message": "overloaded", "code": None}})),
        (event(chat_chunk("x")), b'event: error\ndata: {"message": "overloaded"}\n\n'),
    ],
    ids=[
        "no finish",
        "one of two choices unfinished",
        "half an event",
        "half a chunk",
        "delta of a wrong type",
        "no object",
        "too deep",
        "invalid UTF-8",
        "error object",
        "error event",
    ],
)
async def test_a_broken_stream_shows_what_came_and_never_ends_well(
    provider: Provider, upstream: Upstream, steps: tuple[bytes, ...]
) -> None:
    upstream.script(event_stream(b"".join(steps)))
    told = await read(provider, ask_of(stream=True))
    assert told.text().startswith("x") and told.end is None
    assert told.failure is not None
    assert (told.failure.info.status, told.failure.info.type) == (502, "provider_error")
    assert not told.failure.retryable


@pytest.mark.parametrize("steps", [(), (DONE,), (b": nothing to say\n\n",)])
async def test_a_stream_that_says_nothing_is_broken_and_may_be_retried(
    provider: Provider, upstream: Upstream, steps: tuple[bytes, ...]
) -> None:
    upstream.script(event_stream(*steps))
    told = await read(provider, ask_of(stream=True))
    assert told.deltas == [] and told.failure is not None
    assert (told.failure.info.status, told.failure.retryable) == (502, True)


async def test_an_error_in_a_stream_keeps_its_own_status(
    provider: Provider, upstream: Upstream
) -> None:
    upstream.script(
        event_stream(event({"error": {"message": "slow down", "type": "rate_limit_error"}}))
    )
    told = await read(provider, ask_of(stream=True))
    assert told.failure is not None and told.failure.info.status == 429
    upstream.script(event_stream(event({"error": {"message": "no such tool", "code": 400}})))
    told = await read(provider, ask_of(stream=True))
    assert told.failure is not None
    assert (told.failure.info.status, told.failure.info.message) == (400, "no such tool")


async def test_reasoning_and_tool_names_count_as_text(
    provider: Provider, upstream: Upstream
) -> None:
    call = {"index": 0, "function": {"name": "abc", "arguments": "{}"}}
    upstream.script(
        event_stream(
            event(chat_chunk({"reasoning_content": "hmm", "reasoning": "hmm"})),
            event(chat_chunk({"content": [{"type": "text", "text": "été"}, {"type": "image"}]})),
            event(chat_chunk({"tool_calls": [call], "refusal": "no"})),
            event(chat_chunk({}, finish_reason="stop")),
        )
    )
    told = await read(provider, ask_of(stream=True))
    assert told.end is not None
    assert sum(deltas.text_bytes for deltas in told.deltas) == 3 + 5 + 5 + 2
    assert told.end.usage.output == 4


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("eos", "stop"), ("eos_token", "stop"), ("stop_sequence", "stop"), ("model_length", "length")],
)
async def test_why_an_answer_ended_is_told_in_openais_words(
    provider: Provider, upstream: Upstream, theirs: str, ours: str
) -> None:
    answer = chat_answer("Hi", choices=2)
    answer["choices"][1] |= {"finish_reason": theirs, "odd": 0.10}
    last = chat_chunk("Hi", finish_reason=theirs)
    upstream.script(json_reply(answer), event_stream(event(last), DONE))
    whole = json.loads((await provider.complete(ask_of())).body)
    told = await read(provider, ask_of(stream=True))
    assert [choice["finish_reason"] for choice in whole["choices"]] == ["stop", ours]
    assert whole["choices"][1]["odd"] == 0.10
    assert told.end is not None and told.end.finish_reason == ours
    assert told.finish_reasons() == {0: ours} and told.text() == "Hi"
