"""The event streams of AWS (`application/vnd.amazon.eventstream`) out of blocks of bytes.

A message is its length and that of its headers, a CRC of those, headers, payload, a CRC of it all;
numbers are big-endian. Source: docs.aws.amazon.com/transcribe/latest/dg/event-stream.html
"""

import struct
from collections.abc import Iterator
from functools import lru_cache
from zlib import crc32

import msgspec

from workers.sse import MAX_EVENT_BYTES, BrokenStream, Event

_PRELUDE = struct.Struct(">III")
_CRC = struct.Struct(">I")
_LENGTH = struct.Struct(">H")
_SMALLEST = _PRELUDE.size + _CRC.size
# Sizes of the values of headers, by their type; those with a length of their own are not here.
_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
_BYTES, _STRING = 6, 7


class EventParser:
    """Takes a stream block by block, cut anywhere, and gives the events that are complete.

    An event's name is its event or exception type, and its id the message type: `event`,
    `exception`, or `error`, whose data then is `{"message": ...}` and whose name the error's code.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max = max_event_bytes
        self._rest = bytearray()

    def feed(self, block: bytes) -> Iterator[Event]:
        """The events that `block` completes; the iterator must be exhausted before the next block.

        Raises BrokenStream in its place among the events.
        """
        self._rest += block
        start = 0
        while len(self._rest) - start >= _SMALLEST:
            size, header_size = self._sizes(start)
            if len(self._rest) - start < size:
                break
            message = bytes(self._rest[start : start + size])
            start += size
            yield _event(message, header_size)
        del self._rest[:start]

    def _sizes(self, start: int) -> tuple[int, int]:
        size, header_size, crc = _PRELUDE.unpack_from(self._rest, start)
        if crc32(self._rest[start : start + 8]) != crc:
            raise BrokenStream("the head of an event is damaged")
        if size > self._max:
            raise BrokenStream(f"an event is longer than {self._max} bytes")
        if size < _SMALLEST + header_size:
            raise BrokenStream("an event is shorter than its headers")
        return size, header_size


def _event(message: bytes, header_size: int) -> Event:
    if crc32(message[: -_CRC.size]) != _CRC.unpack_from(message, len(message) - _CRC.size)[0]:
        raise BrokenStream("an event is damaged")
    body = _PRELUDE.size + header_size
    headers = _headers(message[_PRELUDE.size : body])
    kind = headers.get(b":message-type", b"event")
    if kind == b"error":
        said = headers.get(b":error-message", b"").decode(errors="replace")
        data = msgspec.json.encode({"message": said})
        return Event(data, headers.get(b":error-code", b""), kind)
    name = headers.get(b":exception-type" if kind == b"exception" else b":event-type", b"")
    return Event(message[body : -_CRC.size], name, kind)


@lru_cache(maxsize=64)
def _headers(block: bytes) -> dict[bytes, bytes]:
    """The headers that hold text or bytes; the events of a type all have the same."""
    headers: dict[bytes, bytes] = {}
    at = 0
    try:
        while at < len(block):
            name = block[at + 1 : at + 1 + block[at]]
            at += 1 + len(name)
            kind = block[at]
            at += 1
            if kind in (_BYTES, _STRING):
                size = _LENGTH.unpack_from(block, at)[0]
                at += _LENGTH.size
                headers[name] = block[at : at + size]
            else:
                size = _SIZES[kind]
            at += size
    except (IndexError, KeyError, struct.error) as error:
        raise BrokenStream("the headers of an event cannot be read") from error
    if at != len(block):
        raise BrokenStream("the headers of an event cannot be read")
    return headers
