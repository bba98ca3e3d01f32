"""Patience with a body that does not go on: one timer per answer instead of one per read."""

import asyncio
import math

import aiohttp

_TICK = 1.0


class Watch:
    """Closes a response while its reader waits too long, or waits on a connection that is gone.

    The reader then gets aiohttp's ClientConnectionError; `timed_out` says which of the two it was.
    Read timeouts of aiohttp are not used: they cost a timer per read, and when the framing of a
    body is malformed aiohttp closes the connection, drops the timer and tells the reader nothing.
    """

    __slots__ = ("_loop", "_patience", "_response", "_since", "_timer", "_until", "timed_out")

    def __init__(
        self, response: aiohttp.ClientResponse, patience: float, until: float = math.inf
    ) -> None:
        """`patience` is seconds for each wait, `until` the loop's time for all of them."""
        self._loop = asyncio.get_running_loop()
        self._response = response
        self._patience = patience
        self._until = until
        self._since: float | None = None
        self.timed_out = False
        self._arm()

    def begin(self) -> None:
        """The reader starts to wait."""
        self._since = self._loop.time()

    def end(self) -> None:
        """The reader got something, and waits no more."""
        self._since = None

    def change(self, patience: float) -> None:
        """From now on each wait may take this many seconds."""
        self._patience = patience
        self.stop()
        self._arm()

    def stop(self) -> None:
        self._timer.cancel()

    def _arm(self) -> None:
        now = self._loop.time()
        due = min(self._until, (self._since or now) + self._patience, now + _TICK)
        self._timer = self._loop.call_at(due, self._check)

    def _check(self) -> None:
        if self._since is not None:
            self.timed_out = self._loop.time() >= min(self._until, self._since + self._patience)
            connection = self._response.connection
            gone = connection is not None and connection.transport is None
            if self.timed_out or gone:
                self._response.close()
                return
        self._arm()
