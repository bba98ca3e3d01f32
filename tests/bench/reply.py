"""One reply as it arrives: is it complete, in order, and the one that was asked for?"""

import msgspec

from tests.bench import wire


class _Message(msgspec.Struct, frozen=True):
    content: str


class _Choice(msgspec.Struct, frozen=True):
    message: _Message


class _Answer(msgspec.Struct, frozen=True):
    choices: tuple[_Choice, ...]


_answer = msgspec.json.Decoder(_Answer)


class Reply:
    """Reads the marks out of a reply. Times are monotonic ns.

    `chunks` 0 means one JSON body. `first` is when the first mark was read, `late` how long each
    mark was under way, `indexes` which marks came, in the order in which they came.
    """

    __slots__ = ("_chunks", "_done", "_rest", "_stopped", "_strange", "_tag", "first", "indexes",
                 "intended", "late", "status")  # fmt: skip

    def __init__(self, tag: bytes, chunks: int, intended: int) -> None:
        self.intended = intended
        self.status = 0
        self.first = 0
        self.late: list[int] = []
        self.indexes: list[int] = []
        self._tag = tag
        self._chunks = chunks
        self._rest = b""
        self._strange = self._done = self._stopped = False

    def feed(self, data: bytes, now: int) -> None:
        """Take a piece of the body, cut anywhere, that was read at `now`."""
        self._rest += data
        if not self._chunks:
            return
        end = self._rest.rfind(b"\n") + 1
        lines, self._rest = self._rest[:end], self._rest[end:]
        self._read(lines, now)
        self._done = self._done or b"[DONE]" in lines
        self._stopped = self._stopped or b'"stop"' in lines

    def _read(self, text: bytes, now: int) -> None:
        for tag, index, sent in wire.MARK.findall(text):
            if not self.first:
                self.first = now
            self._strange = self._strange or tag != self._tag
            self.indexes.append(int(index))
            self.late.append(now - int(sent))

    def fault(self, now: int) -> str:
        """What is wrong with the reply that ended at `now`; empty when nothing is."""
        if self.status != 200:
            return f"status {self.status}"
        if not self._chunks:
            try:
                answer = _answer.decode(self._rest)
            except msgspec.DecodeError:
                return "invalid"
            self._read(b"".join(c.message.content.encode() for c in answer.choices), now)
        elif not (self._done and self._stopped):
            return "incomplete"
        return self._disorder()

    def _disorder(self) -> str:
        if self._strange:
            return "crossed"
        expected = list(range(max(self._chunks, 1)))
        if self.indexes == expected:
            return ""
        if len(set(self.indexes)) < len(self.indexes):
            return "repeated"
        return "reordered" if sorted(self.indexes) == expected else "missing"

    def excerpt(self) -> str:
        """The beginning of what is not yet read, to explain a fault."""
        return self._rest[:300].decode(errors="replace")
