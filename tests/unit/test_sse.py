"""The event stream parser: the standard's rules, and the same events at any split of the bytes."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.sse import BrokenStream, Event, Parser


def parse(*blocks: bytes) -> list[Event]:
    parser = Parser()
    return [event for block in blocks for event in parser.feed(block)]


def data(*blocks: bytes) -> list[bytes]:
    return [event.data for event in parse(*blocks)]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_every_line_end_counts(end: bytes) -> None:
    assert data(end.join([b"data: a", b"", b"data: b", b"", b""])) == [b"a", b"b"]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data:a\n\n", [b"a"]),
        (b"data:  a \n\n", [b" a "]),
        (b"data\n\n", [b""]),
        (b"data:\n\n", [b""]),
        (b"data: a\ndata: b\ndata\n\n", [b"a\nb\n"]),
        (b": comment\ndata: a\n:\n\n", [b"a"]),
        (b"database: a\nretry: 5\nfoo\n\ndata: b\n\n", [b"b"]),
        (b"event: ping\n\n\n\ndata: a\n\n", [b"a"]),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [b"a"]),
        (b"data: a\n\ndata: unfinished\n", [b"a"]),
        (
            "data: no\u2028line\x0bends\x1chere\n\n".encode(),
            ["no\u2028line\x0bends\x1chere".encode()],
        ),
        (b"", []),
    ],
)
def test_fields_are_read_as_the_standard_says(stream: bytes, expected: list[bytes]) -> None:
    assert data(stream) == expected


def test_names_belong_to_one_event_and_ids_stay() -> None:
    stream = b"event: error\nid: 7\ndata: a\n\ndata: b\n\nid: bad\0\ndata: c\n\nid\ndata: d\n\n"
    assert parse(stream) == [
        Event(b"a", b"error", b"7"),
        Event(b"b", b"", b"7"),
        Event(b"c", b"", b"7"),
        Event(b"d", b"", b""),
    ]


def test_an_event_leaves_with_the_block_that_completes_it() -> None:
    parser = Parser()
    assert list(parser.feed(b"data: a\n\ndata: b\n")) == [Event(b"a")]
    assert list(parser.feed(b"\ndata: c")) == [Event(b"b")]
    assert list(parser.feed(b"\r\n\r")) == [Event(b"c")]
    assert list(parser.feed(b"\n\r\n")) == []


def test_a_delta_of_300_kilobytes_in_small_reads_is_one_event() -> None:
    text = b"x" * 300_000
    stream = b"data: " + text + b"\n\n"
    assert data(*(stream[at : at + 1000] for at in range(0, len(stream), 1000))) == [text]


def test_invalid_utf8_breaks_the_stream_after_the_events_before_it() -> None:
    seen = []
    with pytest.raises(BrokenStream):
        for event in Parser().feed(b"data: good\n\ndata: \xff\n\ndata: never\n\n"):
            seen.append(event.data)
    assert seen == [b"good"]


@pytest.mark.parametrize(
    "blocks",
    [
        [b"data: " + b"x" * 100],
        [b"data: x"] + [b"x"] * 100,
        [b"data: xxxxxxxxx\n"] * 20,
        [b"\ndata: " + b"x" * 90, b"x" * 10],
        [b":x"] * 60,
    ],
    ids=["one block", "one line", "many lines", "after a line", "a comment"],
)
def test_an_event_without_end_is_given_up(blocks: list[bytes]) -> None:
    parser = Parser(max_event_bytes=100)
    with pytest.raises(BrokenStream):
        for block in blocks:
            assert list(parser.feed(block)) == []


def test_empty_data_lines_do_not_pile_up_for_ever() -> None:
    with pytest.raises(BrokenStream):
        list(Parser(max_event_bytes=100).feed(b"data:\n" * 1000))


LINES = st.one_of(
    st.sampled_from([b"", b"data", b"data:", b":", b"event: x", b"id: 1", b"retry: 3"]),
    st.text(max_size=12).map(lambda text: b"data: " + text.encode("utf-8", "replace")),
    st.text(max_size=12).map(lambda text: text.encode("utf-8", "replace")),
)


@st.composite
def streams_and_cuts(draw: st.DrawFn) -> tuple[bytes, list[int]]:
    lines = draw(st.lists(LINES, max_size=12))
    ends = draw(
        st.lists(st.sampled_from([b"\n", b"\r\n", b"\r"]), min_size=len(lines), max_size=len(lines))
    )
    bom = draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    stream = bom + b"".join(line + end for line, end in zip(lines, ends, strict=True))
    stream += draw(st.binary(max_size=3))
    cuts = draw(st.lists(st.integers(0, len(stream)), max_size=len(stream)))
    return stream, sorted(cuts)


def outcome(blocks: list[bytes]) -> tuple[list[Event], bool]:
    parser, events = Parser(), []
    try:
        for block in blocks:
            for event in parser.feed(block):
                events.append(event)
    except BrokenStream:
        return events, True
    return events, False


@given(streams_and_cuts())
def test_the_split_of_the_bytes_makes_no_difference(case: tuple[bytes, list[int]]) -> None:
    stream, cuts = case
    blocks = [stream[start:end] for start, end in pairwise([0, *cuts, len(stream)])]
    assert outcome(blocks) == outcome([stream])
    assert outcome([stream[at : at + 1] for at in range(len(stream))]) == outcome([stream])


@given(st.lists(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\r\n"))))
def test_what_was_written_is_what_is_read(texts: list[str]) -> None:
    stream = b"".join(b"data: " + text.encode() + b"\n\n" for text in texts)
    assert data(stream) == [text.encode() for text in texts]
