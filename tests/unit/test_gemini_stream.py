"""Streams of generateContent: however they are cut, the same comes out."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.ids import Clock
from schemas.usage import Usage
from tests.contract.gemini_stage import call, candidate, chat_answer, usage_of
from tests.contract.provider_contract import ask_of
from tests.folding import Folded, folded, splits
from tests.upstream import event
from workers.failures import Failures
from workers.providers.base import AttemptFailed
from workers.providers.gemini.answers import ChatFolder
from workers.sse import Parser

FIXTURES = Path(__file__).parents[1] / "fixtures" / "gemini"
FAILURES = Failures("google", (), Clock())


def fold(*blocks: bytes) -> Folded:
    """What the client gets of a stream in these blocks."""
    return folded(blocks, Parser(), ChatFolder(ask_of(stream=True), FAILURES))


def texts(got: Folded, field: str = "content") -> str:
    chunks = [json.loads(part) for part in (*got.parts, got.end.last)]
    return "".join(chunk["choices"][0]["delta"].get(field) or "" for chunk in chunks)


def said(text: str, **fields: Any) -> bytes:
    return event({"candidates": [candidate({"text": text}, index=0)], **fields})


EVERYTHING = b"".join(
    [
        (FIXTURES / "thinking.sse").read_bytes().replace(b'"finishReason": "STOP",', b""),
        b": a comment\n\n",
        event(
            {"candidates": [candidate({"text": "Grüße 👋🏽 \u2028"}, index=at) for at in (0, 1)]}
        ).replace(b"\n", b"\r"),
        (FIXTURES / "tools.sse").read_bytes(),
        event({"candidates": [candidate({"text": "é"}, reason="MAX_TOKENS", index=1)]}),
        event({"usageMetadata": usage_of(Usage(input=5, output=4, reasoning=3))}),
    ]
)
AT_ONCE = fold(EVERYTHING)


def test_a_stream_of_everything_is_understood() -> None:
    assert texts(AT_ONCE, "reasoning_content").startswith("**Sum of primes**")
    assert "Grüße 👋🏽 \u2028" in texts(AT_ONCE)
    assert AT_ONCE.end.finish_reason == "tool_calls"
    assert json.loads(AT_ONCE.end.last)["choices"][0]["finish_reason"] == "length"
    assert AT_ONCE.end.usage == Usage(input=5, output=4, reasoning=3, status="reported")
    tools = [part for part in AT_ONCE.parts if b"tool_calls" in part and b"function" in part]
    assert [json.loads(part)["choices"][0]["delta"]["tool_calls"][0]["id"] for part in tools] == [
        "8f2b1a3c",
        "a90c77d1",
    ]


def test_a_stream_cut_at_every_byte_gives_the_same() -> None:
    bytewise = [EVERYTHING[at : at + 1] for at in range(len(EVERYTHING))]
    assert fold(*bytewise) == AT_ONCE


@given(splits(EVERYTHING))
def test_a_stream_cut_anywhere_gives_the_same(blocks: list[bytes]) -> None:
    assert fold(*blocks) == AT_ONCE


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=8), st.data()
)
def test_any_text_survives_any_cut(pieces: list[str], data: st.DataObject) -> None:
    end = event({"candidates": [candidate(reason="STOP")]})
    stream = b"".join(said(piece) for piece in pieces) + end
    got = fold(*data.draw(splits(stream)))
    assert texts(got) == "".join(pieces)
    assert got.text_bytes == len("".join(pieces).encode())


def test_a_character_cut_in_the_middle_is_put_together() -> None:
    stream = event(json.dumps(chat_answer({"text": "a👋🏽é"}), ensure_ascii=False).encode())
    middle = stream.index("👋".encode()) + 2
    assert texts(fold(stream[:middle], stream[middle:])) == "a👋🏽é"


def test_a_very_large_delta_arrives_whole() -> None:
    text = "wörd " * 60_000
    stream = event(chat_answer({"text": text}))
    blocks = [stream[at : at + 4096] for at in range(0, len(stream), 4096)]
    got = fold(*blocks)
    assert texts(got) == text and got.text_bytes == len(text.encode()) > 300_000


def test_large_arguments_arrive_whole() -> None:
    got = fold(event(chat_answer(call("f", {"x": ["é" * 10] * 30_000}))))
    (shown,) = json.loads(got.parts[0])["choices"][0]["delta"]["tool_calls"]
    assert json.loads(shown["function"]["arguments"]) == {"x": ["é" * 10] * 30_000}


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_comments_keep_alives_names_and_unknown_events_change_nothing(end: bytes) -> None:
    plain = [said("a"), event(chat_answer({"text": "b"}))]
    noisy = [
        b": keep-alive\n\n",
        b"event: message\nid: 7\nretry: 3000\n",
        plain[0],
        b"\n\n\n",
        b'event: news\ndata: {"somethingNew": {"a": [1]}}\n\n',
        plain[1],
        b": bye\n\n",
    ]
    assert fold(b"".join(noisy).replace(b"\n", end)) == fold(*plain)


def test_unknown_fields_and_parts_change_nothing() -> None:
    part = {"text": "a", "somethingNew": {}, "videoMetadata": None}
    odd = candidate({"executableCode": {"code": "1"}}, part, reason="STOP", tokenCount=3)
    got = fold(event({"candidates": [odd], "modelStatus": {"modelStage": "STABLE"}}))
    assert texts(got) == "a"


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b": nothing\n\n",
        said("a"),
        said("a") + event(chat_answer({"text": "b"}))[:-2],
        event({"usageMetadata": {"promptTokenCount": 3}}),
    ],
)
def test_a_stream_that_stops_before_its_reason_never_ends_well(stream: bytes) -> None:
    with pytest.raises(AttemptFailed) as caught:
        fold(stream)
    assert caught.value.info.status == 502


def test_without_usage_it_is_estimated_from_all_that_was_said() -> None:
    answer = chat_answer({"text": "x" * 40}, call("f", {"a": 1}))
    del answer["usageMetadata"]
    got = fold(event(answer))
    assert got.end.usage == Usage(input=2, output=-(-(40 + 1 + 7) // 4), status="estimated")
