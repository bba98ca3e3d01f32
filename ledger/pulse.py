"""Pings and their pongs: how we know that a server lives, and that it has all we sent."""

import asyncio
from collections import deque
from collections.abc import Callable

_EVERY = 5.0
_MISSED_PONGS = 2


class Pulse:
    """The pings of one connection, from `begin` to `end` of each of its wires.

    `send` writes a ping; `on_silence` is called once so many of the regular ones had no answer.
    """

    def __init__(self, send: Callable[[], None], on_silence: Callable[[], None]) -> None:
        self._send = send
        self._on_silence = on_silence
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._pongs: deque[asyncio.Future[None] | None] = deque()
        self._unanswered = 0

    def begin(self) -> None:
        self._unanswered = 0
        self._timer = self._loop.call_later(_EVERY, self._beat)

    def end(self, error: Exception) -> None:
        """Stop, and end every wait with an error."""
        if self._timer is not None:
            self._timer.cancel()
        for pong in self._pongs:
            if pong is not None and not pong.done():
                pong.set_exception(error)
        self._pongs.clear()

    def ask(self) -> asyncio.Future[None]:
        """Send a ping; done when all that was sent before it has reached the server."""
        pong: asyncio.Future[None] = self._loop.create_future()
        self._pongs.append(pong)
        self._send()
        return pong

    def on_pong(self) -> None:
        self._unanswered = 0
        pong = self._pongs.popleft() if self._pongs else None
        if pong is not None and not pong.done():
            pong.set_result(None)

    def _beat(self) -> None:
        if self._unanswered >= _MISSED_PONGS:
            self._on_silence()
            return
        self._unanswered += 1
        self._pongs.append(None)
        self._send()
        self._timer = self._loop.call_later(_EVERY, self._beat)
