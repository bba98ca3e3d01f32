"""Streams of Cohere's typed events: the same chunks come out, wherever the bytes are cut."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.ids import Clock
from tests.contract.cohere_stage import START, end, named, piece, text
from tests.contract.provider_contract import ask_of
from tests.folding import Folded, folded, splits
from tests.mutations import mutated
from tests.upstream import event
from workers.exchange import Whole
from workers.failures import Failures
from workers.providers.base import AttemptFailed
from workers.providers.cohere.answer import EventFolder, chat_answer
from workers.sse import Parser

FIXTURES = Path(__file__).parents[1] / "fixtures" / "cohere"
STREAMS = [
    *(path.read_bytes() for path in sorted(FIXTURES.glob("*.sse"))),
    START + text("wör") + text("😀 ") + text("d") + end(),
]
EVENTS = [
    [json.loads(data) for data in re.findall(rb"^data: (.*)$", stream, re.MULTILINE)]
    for stream in STREAMS
]
ANSWERS = [
    json.loads((FIXTURES / f"{name}.json").read_bytes()) for name in ("chat", "thinking", "tools")
]


def fold(*blocks: bytes) -> Folded:
    failures = Failures("cohere", (), Clock())
    return folded(blocks, Parser(), EventFolder(ask_of(stream=True), failures))


def said(told: Folded) -> str:
    deltas = [json.loads(part)["choices"][0]["delta"] for part in told.parts]
    return "".join(delta.get("content", "") for delta in deltas)


@given(st.sampled_from(STREAMS).flatmap(lambda stream: st.tuples(st.just(stream), splits(stream))))
def test_any_split_of_the_bytes_gives_the_same(case: tuple[bytes, list[bytes]]) -> None:
    stream, blocks = case
    assert fold(*blocks) == fold(stream)


@pytest.mark.parametrize("stream", STREAMS)
def test_byte_by_byte_gives_the_same(stream: bytes) -> None:
    assert fold(*(stream[at : at + 1] for at in range(len(stream)))) == fold(stream)


def test_a_huge_delta_arrives_whole() -> None:
    huge = "é" * 150_000
    stream = START + text(huge) + end()
    told = fold(*(stream[at : at + 65_536] for at in range(0, len(stream), 65_536)))
    assert said(told) == huge and told.text_bytes == 300_000


@pytest.mark.parametrize(
    "between",
    [
        b": keep-alive\n\n",
        b"\n\n",
        b"event: ping\ndata:\n\n",
        named({"type": "debug", "prompt": "<|START|>"}),
        named({"type": "from-the-future", "delta": [1, {"message": "x"}]}),
        named({"type": "content-end", "index": 0}),
        b'data: {"type": "citation-end", "index": 0}\n\n',
        b'data: {"type": "tool-call-end", "index": 4, "more": null}\n\n',
        b"data: {}\n\n",
    ],
)
def test_what_says_nothing_changes_nothing(between: bytes) -> None:
    plain = fold(START + text("a") + text("b") + end())
    assert fold(START + between + text("a") + between + text("b") + between + end()) == plain


def test_carriage_returns_change_nothing() -> None:
    for stream in STREAMS:
        assert fold(stream.replace(b"\n", b"\r\n")) == fold(stream)


def test_nothing_is_read_behind_the_end() -> None:
    stream = START + text("a") + end()
    assert fold(stream + b"data: [DONE]\n\n" + text("b") + b"data: garbage\n\n") == fold(stream)


def test_calls_are_numbered_by_their_beginnings_whatever_their_index() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": ""}}
    argued = {"tool_calls": {"function": {"arguments": "{}"}}}
    told = fold(
        START
        + piece("tool-call-start", {"tool_calls": {"id": "a", **call}}, 2)
        + piece("tool-call-start", {"tool_calls": call}, 5)
        + piece("tool-call-delta", argued, 5)
        + piece("tool-call-delta", argued, 2)
        + end("TOOL_CALL")
    )
    calls = [json.loads(part)["choices"][0]["delta"]["tool_calls"][0] for part in told.parts]
    assert [(one["index"], one.get("id")) for one in calls] == [
        (0, "a"),
        (1, "call_1"),
        (1, None),
        (0, None),
    ]
    assert told.end.finish_reason == "tool_calls"


def test_an_answer_without_a_word_is_an_answer() -> None:
    told = fold(START + end("MAX_TOKENS"))
    assert said(told) == "" and told.end.finish_reason == "length"


@given(st.sampled_from(EVENTS).flatmap(mutated).filter(lambda events: isinstance(events, list)))
def test_one_odd_thing_does_no_more_than_break_the_stream(events: list[Any]) -> None:
    try:
        fold(b"".join(event(json.dumps(one).encode()) for one in events))
    except AttemptFailed as failed:
        assert failed.info.status == 502


@given(st.sampled_from(ANSWERS).flatmap(mutated))
def test_one_odd_thing_in_an_answer_does_no_more_than_break_it(body: Any) -> None:
    got = Whole(json.dumps(body).encode(), 0, 0)
    try:
        chat_answer(got, ask_of(), Failures("cohere", (), Clock()))
    except AttemptFailed as failed:
        assert failed.info.status == 502
