"""Notices that this process stood still: what it reads first after that was asked long ago, and
whoever asked may have given up since."""

import asyncio

from ledger.connection import Connection, Disconnected, RequestTimeout
from schemas.ids import Clock

_TICK = 0.25
# Whoever waits for longer asks again.
_LONGEST = 1.0


class Standstill:
    """Run `watch` beside whatever asks `is_over`."""

    def __init__(self, connection: Connection, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock
        self._ticked = clock.monotonic()
        self._is_over = True

    def is_over(self) -> bool:
        """Whether what is read now was sent lately."""
        if self._clock.monotonic() - self._ticked > _LONGEST:
            self._is_over = False
        return self._is_over

    async def watch(self) -> None:
        """Runs until cancelled. All that waited to be read has been read once the bus has answered
        what was sent after waking."""
        while True:
            if not self.is_over():
                self._ticked = self._clock.monotonic()
                await self._read_on()
            self._ticked = self._clock.monotonic()
            await asyncio.sleep(_TICK)

    async def _read_on(self) -> None:
        try:
            await self._connection.flush(_LONGEST)
        except RequestTimeout:
            return
        except Disconnected:
            # A server that we come back to has kept nothing for us.
            pass
        self._is_over = True
