"""What waits for the socket: kept over a loss, and handed over piece by piece when it is slow."""

from collections import deque
from typing import Protocol

_BLOCK = 256 * 1024


class Socket(Protocol):
    """Where bytes go; `writable` turns False once it has enough."""

    @property
    def writable(self) -> bool: ...

    def write(self, data: bytes, /) -> None: ...


class Outbox:
    """Publishes in their order, with subscriptions before them and pings after them.

    A ping confirms all that was put before it. Only publishes outlive the loss of a connection.
    """

    def __init__(self) -> None:
        self._blocks: deque[bytes] = deque()
        self._blocks_size = 0
        self._open: list[bytes] = []
        self._open_size = 0
        self._controls: list[bytes] = []
        self._pings = 0

    @property
    def size(self) -> int:
        """Bytes of publishes not yet handed over."""
        return self._blocks_size + self._open_size

    def put(self, head: bytes, headers: bytes, data: bytes) -> bool:
        """Add one publish; True when enough is there to be worth a write at once."""
        self._open += (head, headers, data, b"\r\n")
        self._open_size += len(head) + len(headers) + len(data) + 2
        if self._open_size < _BLOCK:
            return False
        self._blocks.append(b"".join(self._open))
        self._blocks_size += self._open_size
        self._open.clear()
        self._open_size = 0
        return True

    def put_control(self, line: bytes) -> None:
        self._controls.append(line)

    def put_ping(self) -> None:
        self._pings += 1

    def forget_controls(self) -> None:
        """Drop what concerns the lost connection only."""
        self._controls.clear()
        self._pings = 0

    def write_to(self, socket: Socket) -> None:
        """Hand over as much as the socket takes."""
        if self._controls:
            socket.write(b"".join(self._controls))
            self._controls.clear()
        while self._blocks and socket.writable:
            block = self._blocks.popleft()
            self._blocks_size -= len(block)
            socket.write(block)
        if not socket.writable:
            return
        if self._pings:
            self._open.append(b"PING\r\n" * self._pings)
            self._pings = 0
        if self._open:
            socket.write(b"".join(self._open))
            self._open.clear()
            self._open_size = 0
