"""Newline-delimited JSON: the same lines at any split of the bytes, and bounds to what is kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.folding import splits
from workers.ndjson import Lines
from workers.sse import BrokenStream

STREAM = '{"a": 1}\n\r\n{"b": "😀é"}\r\n  \n{"c": "\\n"}\n{"cut": '.encode()


def fed(*blocks: bytes) -> list[bytes]:
    lines = Lines()
    return [event.data for block in blocks for event in lines.feed(block)]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"a\nb\n", [b"a", b"b"]),
        (b"a\r\nb\r\n", [b"a", b"b"]),
        (b"\n\n \n\r\na\n", [b"a"]),
        (b"a\nunfinished", [b"a"]),
        ("a\u2028b\x0bc\n".encode(), ["a\u2028b\x0bc".encode()]),
        (b"", []),
    ],
)
def test_a_line_is_complete_with_its_line_feed(stream: bytes, expected: list[bytes]) -> None:
    assert fed(stream) == expected


@given(splits(STREAM))
def test_any_split_gives_the_same_lines(blocks: list[bytes]) -> None:
    assert fed(*blocks) == [b'{"a": 1}', '{"b": "😀é"}'.encode(), b'{"c": "\\n"}']


@given(st.lists(st.binary(max_size=20), max_size=20))
def test_no_bytes_do_more_than_break_the_stream(blocks: list[bytes]) -> None:
    try:
        told = fed(*blocks)
    except BrokenStream:
        return
    assert all(line.decode() and b"\n" not in line for line in told)


def test_a_line_that_is_no_text_breaks_the_stream_after_those_before_it() -> None:
    told: list[bytes] = []
    with pytest.raises(BrokenStream, match="UTF-8"):
        for event in Lines().feed(b"a\n\xff\nb\n"):
            told.append(event.data)
    assert told == [b"a"]


@pytest.mark.parametrize("size", [1, 3, 8])
def test_a_line_without_end_is_not_kept_for_ever(size: int) -> None:
    lines = Lines(max_line_bytes=10)
    with pytest.raises(BrokenStream, match="longer than 10 bytes"):
        for _ in range(20):
            assert list(lines.feed(b"x" * size)) == []


def test_a_line_within_the_bound_passes_however_it_comes() -> None:
    lines = Lines(max_line_bytes=10)
    told = [event.data for _ in range(5) for event in lines.feed(b"xxxxx\nyyyyy")]
    assert told == [b"xxxxx", *[b"yyyyyxxxxx"] * 4]
