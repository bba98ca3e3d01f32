"""Server-sent events out of blocks of bytes, as the HTML standard reads them: pure, incremental."""

from collections.abc import Iterator
from typing import NamedTuple

from schemas.config import MEGABYTE

MAX_EVENT_BYTES = 16 * MEGABYTE
_BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One event: its data lines joined by newlines, valid UTF-8; its name and the last id seen."""

    data: bytes
    name: bytes = b""
    id: bytes = b""


class BrokenStream(ValueError):
    """What came is not an event stream: invalid UTF-8, or an event beyond all bounds."""


class Parser:
    """Takes a stream block by block, cut anywhere, and gives the events that are complete.

    An event is complete with the empty line after it; what the end of the stream cuts off is
    dropped, as the standard says.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max = max_event_bytes
        self._rest: list[bytes] = []
        self._rest_size = 0
        self._data: list[bytes] = []
        self._data_size = 0
        self._name = b""
        self._id = b""
        self._started = False
        self._after_cr = False

    def feed(self, block: bytes) -> Iterator[Event]:
        """The events that `block` completes; the iterator must be exhausted before the next block.

        Raises BrokenStream in its place among the events.
        """
        for line in self._lines(block):
            if line.startswith(b"data:"):
                self._add_data(line[6:] if line[5:6] == b" " else line[5:])
            elif not line:
                if self._data:
                    yield self._event()
                self._name = b""
            elif not line.startswith(b":"):
                self._field(line)

    def _lines(self, block: bytes) -> list[bytes]:
        """The lines that are complete; the rest waits for its end. CR, LF and CRLF end a line."""
        if self._after_cr and block:
            self._after_cr = False
            block = block.removeprefix(b"\n")
        if b"\n" not in block and b"\r" not in block:
            self._rest.append(block)
            self._rest_size += len(block)
            self._bound(self._rest_size + self._data_size)
            return []
        if self._rest:
            self._rest.append(block)
            block = b"".join(self._rest)
            self._rest.clear()
            self._rest_size = 0
        lines = block.splitlines()
        if block.endswith(b"\r"):
            self._after_cr = True
        elif not block.endswith(b"\n"):
            self._rest.append(lines.pop())
            self._rest_size = len(self._rest[0])
        if not self._started:
            self._started = True
            lines[0] = lines[0].removeprefix(_BOM)
        return lines

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"event":
            self._name = value
        elif name == b"id" and b"\0" not in value:
            self._id = value
        elif name == b"data":
            self._add_data(value)

    def _add_data(self, line: bytes) -> None:
        self._data.append(line)
        self._data_size += len(line) + 1
        self._bound(self._data_size)

    def _event(self) -> Event:
        data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
        self._data.clear()
        self._data_size = 0
        if not data.isascii():
            try:
                data.decode()
            except UnicodeDecodeError as error:
                raise BrokenStream("an event is not valid UTF-8") from error
        return Event(data, self._name, self._id)

    def _bound(self, size: int) -> None:
        if size > self._max:
            raise BrokenStream(f"an event is longer than {self._max} bytes")
