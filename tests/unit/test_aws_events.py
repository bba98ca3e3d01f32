"""The framing of AWS event streams: cut anywhere, damaged anywhere, and as botocore reads it."""

import struct
from collections.abc import Iterable
from contextlib import suppress
from typing import Any
from zlib import crc32

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import example, given
from hypothesis import strategies as st

from tests.contract.bedrock_stage import event, exception, frame
from tests.folding import splits
from workers.providers.bedrock.events import EventParser
from workers.sse import BrokenStream, Event

TEXTS = {":message-type": "event", ":event-type": "chunk", "ümläut": "wörter", "empty": ""}
# Every type of header that there is, of which only text and bytes mean anything here.
ALL_TYPES = b"".join(
    bytes([len(name)]) + name + value
    for name, value in {
        b"true": b"\x00",
        b"false": b"\x01",
        b"byte": b"\x02\x7f",
        b"short": b"\x03\x00\x01",
        b"int": b"\x04\x00\x00\x00\x01",
        b"long": b"\x05" + bytes(7) + b"\x01",
        b"bytes": b"\x06\x00\x02hi",
        b":event-type": b"\x07\x00\x05chunk",
        b"time": b"\x08" + bytes(8),
        b"uuid": b"\x09" + bytes(range(16)),
    }.items()
)


def framed(headers: bytes, payload: bytes) -> bytes:
    head = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    message = head + struct.pack(">I", crc32(head)) + headers + payload
    return message + struct.pack(">I", crc32(message))


STREAM = (
    frame(b'{"a":1}', TEXTS)
    + event("contentBlockDelta", {"delta": {"text": "wörd"}})
    + frame(b"", TEXTS)
    + framed(ALL_TYPES, b"\x00\xff")
    + framed(b"", b"bare")
    + exception("throttlingException", "slow down")
    + frame(b"", {":message-type": "error", ":error-code": "Bad", ":error-message": "sö"})
)


def parsed(blocks: Iterable[bytes], parser: EventParser | None = None) -> list[Event]:
    parser = parser or EventParser()
    return [event for block in blocks for event in parser.feed(block)]


def test_events_have_their_names_types_and_payloads() -> None:
    assert parsed([STREAM]) == [
        Event(b'{"a":1}', b"chunk", b"event"),
        Event(b'{"delta": {"text": "w\\u00f6rd"}}', b"contentBlockDelta", b"event"),
        Event(b"", b"chunk", b"event"),
        Event(b"\x00\xff", b"chunk", b"event"),
        Event(b"bare", b"", b"event"),
        Event(b'{"message": "slow down"}', b"throttlingException", b"exception"),
        Event('{"message":"sö"}'.encode(), b"Bad", b"error"),
    ]


def test_botocore_reads_the_same() -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(STREAM)
    theirs: list[Any] = list(buffer)
    ours = parsed([STREAM])
    assert [message.payload for message in theirs[:6]] == [event.data for event in ours[:6]]
    assert theirs[3].headers[":event-type"] == "chunk"
    assert theirs[3].headers["uuid"] == bytes(range(16))
    assert theirs[5].headers[":exception-type"] == "throttlingException"


@given(splits(STREAM))
@example([STREAM[at : at + 1] for at in range(len(STREAM))])
def test_a_stream_cut_anywhere_gives_the_same_events(blocks: list[bytes]) -> None:
    assert parsed(blocks) == parsed([STREAM])


@given(st.integers(0, len(STREAM) - 1), st.integers(1, 255))
def test_no_damaged_byte_passes(at: int, change: int) -> None:
    """A CRC of 32 bits finds every change of one byte; a length that grew waits for the rest."""
    damaged = bytearray(STREAM)
    damaged[at] ^= change
    good = parsed([STREAM])
    try:
        got = parsed([bytes(damaged)])
    except BrokenStream:
        return
    assert got == good[: len(got)] and len(got) < len(good)


@given(st.binary(max_size=200))
def test_garbage_is_a_broken_stream_or_waits(garbage: bytes) -> None:
    with suppress(BrokenStream):
        assert parsed([garbage]) == []


def headed(size: int, header_size: int) -> bytes:
    head = struct.pack(">II", size, header_size)
    return head + struct.pack(">I", crc32(head)) + bytes(20)


@pytest.mark.parametrize(
    ("stream", "says"),
    [
        (headed(2000, 0), "longer than 1000"),
        (headed(0xFFFFFFFF, 0), "longer than 1000"),
        (headed(20, 8), "shorter than its headers"),
        (headed(0, 0), "shorter than its headers"),
        (headed(16, 0)[:12] + bytes(4), "damaged"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "the head of an event is damaged"),
        (framed(b"\x01", b""), "cannot be read"),
        (framed(b"\x01a\x07\xff\xffshort", b""), "cannot be read"),
        (framed(b"\x01a\x07\xff", b""), "cannot be read"),
        (framed(b"\x01a\x2a", b""), "cannot be read"),
        (framed(b"\x05a", b""), "cannot be read"),
        (framed(b"\x01a\x09" + bytes(3), b""), "cannot be read"),
    ],
)
def test_what_is_no_event_breaks_the_stream(stream: bytes, says: str) -> None:
    with pytest.raises(BrokenStream, match=says):
        parsed([stream], EventParser(max_event_bytes=1000))


def test_what_came_before_the_break_is_told() -> None:
    parser = EventParser()
    events = parser.feed(event("a", {}) + b"x" * 16)
    assert next(events).name == b"a"
    with pytest.raises(BrokenStream):
        next(events)
