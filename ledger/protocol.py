"""The text protocol of NATS without any I/O: bytes in, messages and control lines out."""

from collections.abc import Callable, Mapping

import msgspec

_LONGEST_LINE = 1024 * 1024

_M = ord("M")
_H = ord("H")
_CONTROLS = frozenset((b"PING", b"PONG", b"+OK", b"-ERR", b"INFO"))


class ProtocolError(Exception):
    """What arrived is not the NATS protocol; the connection must be given up."""


class Message(msgspec.Struct, frozen=True, gc=False):
    """One delivered message; `headers` is the raw header block, empty if there is none."""

    subject: str
    reply: str
    data: bytes
    headers: bytes = b""

    @property
    def status(self) -> int:
        """The number in the first header line (`NATS/1.0 503`); 0 if there is none."""
        number = self.headers[9:12]
        return int(number) if self.headers[8:9] == b" " and number.isdigit() else 0

    @property
    def description(self) -> str:
        """What follows the status (`No Messages`); empty if there is none."""
        return self.headers.partition(b"\r\n")[0][13:].decode() if self.status else ""

    def header(self, name: str) -> str | None:
        """The last value of a header, by its exact name: the server's own stand behind all that a
        client has sent."""
        key = b"\r\n" + name.encode() + b":"
        start = self.headers.rfind(key)
        if start < 0:
            return None
        start += len(key)
        return self.headers[start : self.headers.index(b"\r\n", start)].strip().decode()


class ServerInfo(msgspec.Struct, frozen=True):
    """What a server says of itself when a client connects."""

    version: str = ""
    max_payload: int = 1024 * 1024
    headers: bool = False
    tls_required: bool = False
    tls_available: bool = False
    nonce: str = ""

    @property
    def version_tuple(self) -> tuple[int, int, int]:
        """`2.14.0-RC.1` as (2, 14, 0)."""
        parts = self.version.partition("-")[0].split(".")
        numbers = [int(part) for part in parts if part.isdecimal()]
        major, minor, patch = (*numbers, 0, 0, 0)[:3]
        return major, minor, patch


def header_block(headers: Mapping[str, str]) -> bytes:
    """Headers as they go over the wire; ValueError for what would end a line early."""
    lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
    if any(line.count("\n") + line.count("\r") > 2 for line in lines):
        raise ValueError("a header may not contain a line break")
    return b"NATS/1.0\r\n" + "".join(lines).encode() + b"\r\n"


class Parser:
    """Takes the stream of bytes in any pieces and calls `deliver` or `control` in its order.

    `deliver(sid, message)` gets messages; `control(verb, rest)` gets `PING`, `PONG`, `+OK`,
    `-ERR` and `INFO` with the rest of their line. Neither may raise.
    """

    def __init__(
        self, deliver: Callable[[bytes, Message], None], control: Callable[[bytes, bytes], None]
    ) -> None:
        self._deliver = deliver
        self._control = control
        self._pieces: list[bytes] = []
        self._held = 0
        self._needed = 0

    def feed(self, data: bytes) -> None:
        """Take what one read gave; raises ProtocolError for anything that is not NATS."""
        if self._held:
            self._pieces.append(data)
            self._held += len(data)
            if self._held < self._needed:
                return
            data = b"".join(self._pieces)
        try:
            done = self._parse(data)
        except (ValueError, IndexError) as error:
            raise ProtocolError(f"not the NATS protocol: {error}") from error
        self._held = len(data) - done
        self._pieces = [data[done:]] if self._held else []

    def _parse(self, data: bytes) -> int:
        """Handle every complete operation and return where the first incomplete one starts.

        `_needed` becomes the size that one must have before another look is worth it, so that a
        large message costs one join, not one per read.
        """
        deliver = self._deliver
        end = len(data)
        start = 0
        while start < end:
            eol = data.find(b"\r\n", start)
            if eol < 0:
                if end - start > _LONGEST_LINE:
                    raise ProtocolError("a line without an end")
                self._needed = 0
                return start
            kind = data[start]
            body = eol + 2
            if kind == _M:
                words = data[start + 4 : eol].split(b" ")
                stop = body + int(words[-1])
                if stop + 2 > end:
                    self._needed = stop + 2 - start
                    return start
                reply = str(words[2], "utf-8", "replace") if len(words) == 4 else ""
                subject = str(words[0], "utf-8", "replace")
                deliver(words[1], Message(subject, reply, data[body:stop]))
                start = stop + 2
            elif kind == _H:
                words = data[start + 5 : eol].split(b" ")
                stop = body + int(words[-1])
                if stop + 2 > end:
                    self._needed = stop + 2 - start
                    return start
                reply = str(words[2], "utf-8", "replace") if len(words) == 5 else ""
                split = body + int(words[-2])
                subject = str(words[0], "utf-8", "replace")
                deliver(words[1], Message(subject, reply, data[split:stop], data[body:split]))
                start = stop + 2
            else:
                verb, _, rest = data[start:eol].partition(b" ")
                if verb not in _CONTROLS:
                    raise ProtocolError(f"unknown operation {verb[:20]!r}")
                self._control(verb, rest)
                start = body
        return start
