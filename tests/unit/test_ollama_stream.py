"""Streams of Ollama's lines: the same chunks come out, wherever the bytes are cut."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.ids import Clock
from tests.contract.ollama_stage import answer_of, end, line, text
from tests.contract.provider_contract import ask_of
from tests.folding import Folded, folded, splits
from tests.mutations import mutated
from workers.failures import Failures
from workers.ndjson import Lines
from workers.providers.base import AttemptFailed
from workers.providers.ollama import LineFolder

FIXTURES = Path(__file__).parents[1] / "fixtures" / "ollama"
STREAMS = [
    *(path.read_bytes() for path in sorted(FIXTURES.glob("*.ndjson"))),
    text("wör") + text("😀 ") + text("d") + end(),
]
LINES = [[json.loads(one) for one in stream.splitlines()] for stream in STREAMS]


def fold(*blocks: bytes) -> Folded:
    failures = Failures("ollama", (), Clock())
    return folded(blocks, Lines(), LineFolder(ask_of(stream=True), failures))


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
    stream = text(huge) + end()
    told = fold(*(stream[at : at + 65_536] for at in range(0, len(stream), 65_536)))
    assert said(told) == huge and told.text_bytes == 300_000


@pytest.mark.parametrize(
    "between",
    [
        b"\n\r\n",
        line({"status": "loading model"}),
        line({"model": "m", "from_the_future": [1, {"message": "x"}]}),
        line({"message": None, "done": False, "error": None}),
        text(""),
        line(answer_of(done=False, images=None, tool_calls=[], thinking="")),
    ],
)
def test_what_says_nothing_changes_nothing(between: bytes) -> None:
    plain = fold(text("a") + text("b") + end())
    assert fold(between + text("a") + between + text("b") + between + end()) == plain


def test_carriage_returns_change_nothing() -> None:
    for stream in STREAMS:
        assert fold(stream.replace(b"\n", b"\r\n")) == fold(stream)


def test_nothing_is_read_behind_the_end() -> None:
    stream = text("a") + end()
    assert fold(stream + text("b") + b"garbage\n") == fold(stream)


def test_text_in_the_last_line_counts() -> None:
    told = fold(text("a") + line({**answer_of("b"), "eval_count": 1}))
    assert said(told) == "ab" and told.text_bytes == 2


def test_an_answer_without_a_word_is_an_answer() -> None:
    told = fold(end(done_reason="length"))
    assert said(told) == "" and told.end.finish_reason == "length"


@given(st.sampled_from(LINES).flatmap(mutated).filter(lambda told: isinstance(told, list)))
def test_one_odd_thing_does_no_more_than_break_the_stream(told: list[Any]) -> None:
    try:
        fold(b"".join(json.dumps(one).encode() + b"\n" for one in told))
    except AttemptFailed as failed:
        assert failed.info.status == 502
