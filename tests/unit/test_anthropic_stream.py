"""Streams of Anthropic's typed events: the same chunks come out, wherever the bytes are cut."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.ids import Clock
from schemas.usage import Usage
from tests.contract.anthropic_stage import event, message_events, text_block
from tests.contract.provider_contract import ask_of
from tests.folding import Folded, folded, splits
from workers.failures import Failures
from workers.providers.anthropic.stream import MessageFolder
from workers.providers.base import AttemptFailed
from workers.sse import Parser

FIXTURES = Path(__file__).parents[1] / "fixtures" / "anthropic"


def says(*texts: str) -> bytes:
    deltas = [{"type": "text_delta", "text": text} for text in texts]
    return b"".join(message_events([(text_block(""), deltas)]))


STREAMS = [
    *(path.read_bytes() for path in sorted(FIXTURES.glob("*.sse")) if path.stem != "overloaded"),
    says("wör", "😀 ", "d"),
]


def fold(*blocks: bytes) -> Folded:
    failures = Failures("anthropic", (), Clock())
    return folded(blocks, Parser(), MessageFolder(ask_of(stream=True), failures))


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


def test_a_character_may_be_cut_in_its_middle() -> None:
    stream = says("😀")
    middle = stream.index("😀".encode()) + 2
    told = fold(stream[:middle], stream[middle:])
    assert said(told) == "😀" and told.text_bytes == 4


def test_a_huge_delta_arrives_whole() -> None:
    huge = "é" * 150_000
    stream = says(huge)
    told = fold(*(stream[at : at + 65_536] for at in range(0, len(stream), 65_536)))
    assert said(told) == huge and told.text_bytes == 300_000


@pytest.mark.parametrize(
    "between",
    [
        b": keep-alive\n\n",
        b"\n\n",
        b"event: ping\ndata:\n\n",
        event("ping"),
        event("event_from_the_future", delta=[1, {"type": "text_delta", "text": "x"}][1]),
        event("content_block_delta", index=0, delta={"type": "delta_from_the_future", "x": 1}),
        event("content_block_delta", index=0, delta={"type": "input_json_delta"}),
        event("content_block_start", index=9, content_block={"type": "container_upload"}),
        event("content_block_stop", index=77),
        event("message_delta", delta={}),
        b"data: {}\n\n",
        b"retry: 3000\nid: 7\n\n",
    ],
)
def test_what_says_nothing_changes_nothing(between: bytes) -> None:
    start, ping, begin, a, b, stop, delta, end = message_events(
        [(text_block(""), [{"type": "text_delta", "text": text} for text in "ab"])]
    )
    plain = fold(start + ping + begin + a + b + stop + delta + end)
    assert fold(start + begin + between + a + between + b + between + stop + delta + end) == plain


def test_carriage_returns_change_nothing() -> None:
    for stream in STREAMS:
        assert fold(stream.replace(b"\n", b"\r\n")) == fold(stream)


def test_nothing_is_read_behind_the_end() -> None:
    stream = says("a")
    assert fold(stream + b"data: [DONE]\n\n" + says("b") + b"data: garbage\n\n") == fold(stream)


def test_the_names_of_events_say_nothing_that_their_data_does_not() -> None:
    stream = says("a", "b")
    lines = stream.split(b"\n")
    nameless = b"\n".join(line for line in lines if not line.startswith(b"event:"))
    assert fold(nameless) == fold(stream)


def test_blocks_may_be_streamed_side_by_side() -> None:
    def call(index: int) -> bytes:
        block = {"type": "tool_use", "id": f"toolu_{index}", "name": "f", "input": {"a": index}}
        return event("content_block_start", index=index, content_block=block)

    def piece(index: int, text: str) -> bytes:
        delta = {"type": "input_json_delta", "partial_json": text}
        return event("content_block_delta", index=index, delta=delta)

    start, *_, delta, end = message_events([])
    told = fold(
        start
        + call(3)
        + call(1)
        + piece(1, "{}")
        + event("content_block_stop", index=3)
        + event("content_block_stop", index=1)
        + delta
        + end
    )
    deltas = [json.loads(part)["choices"][0]["delta"] for part in told.parts]
    calls = [one for delta in deltas for one in delta.get("tool_calls", ())]
    assert [(one["index"], one.get("id")) for one in calls[:2]] == [(0, "toolu_3"), (1, "toolu_1")]
    assert [(one["index"], one["function"]) for one in calls[2:]] == [
        (1, {"arguments": "{}"}),
        (0, {"arguments": '{"a": 3}'}),
    ]


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=5))
def test_whatever_was_counted_on_the_way_the_last_count_stands(counts: list[int]) -> None:
    """Never the sum of what was told, however often it is told."""
    start, *_ = message_events([], Usage(input=1, cache_write=50, output=2))
    told = [
        event(
            "message_delta",
            delta={"stop_reason": "end_turn"},
            usage={"output_tokens": count, "cache_creation_input_tokens": count},
        )
        for count in counts
    ]
    usage = fold(start + b"".join(told) + event("message_stop")).end.usage
    assert usage == Usage(input=1, cache_write=counts[-1], output=counts[-1], status="reported")


def test_a_stream_that_ends_without_a_reason_has_no_end() -> None:
    start, *_, end = message_events([])
    with pytest.raises(AttemptFailed):
        fold(start + end)
