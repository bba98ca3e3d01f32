"""Newline-delimited JSON out of blocks of bytes: each line is an event; pure, incremental."""

from collections.abc import Iterator

from workers.sse import MAX_EVENT_BYTES, BrokenStream, Event


class Lines:
    """Takes a stream block by block, cut anywhere, and gives the lines that are complete.

    A line is complete with its line feed; a carriage return before it is dropped, and so are empty
    lines and what the end of the stream cuts off.
    """

    def __init__(self, max_line_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max = max_line_bytes
        self._rest: list[bytes] = []
        self._rest_size = 0

    def feed(self, block: bytes) -> Iterator[Event]:
        """The lines that `block` completes; the iterator must be exhausted before the next block.

        Raises BrokenStream in its place among them, for invalid UTF-8 and a line beyond all bounds.
        """
        if b"\n" not in block:
            self._keep(block)
            return
        *lines, rest = block.split(b"\n")
        if self._rest:
            lines[0] = b"".join((*self._rest, lines[0]))
            self._rest.clear()
            self._rest_size = 0
        for line in lines:
            if shown := line.strip(b"\r\t "):
                yield Event(self._checked(shown))
        if rest:
            self._keep(rest)

    def _keep(self, rest: bytes) -> None:
        self._rest.append(rest)
        self._rest_size += len(rest)
        if self._rest_size > self._max:
            raise BrokenStream(f"a line is longer than {self._max} bytes")

    def _checked(self, line: bytes) -> bytes:
        if not line.isascii():
            try:
                line.decode()
            except UnicodeDecodeError as error:
                raise BrokenStream("a line is not valid UTF-8") from error
        return line
