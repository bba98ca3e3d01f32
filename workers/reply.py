"""A provider's answer whose head has arrived: its body in blocks, and patience with it."""

import asyncio
import math
from collections.abc import Mapping
from functools import partial

import aiohttp
from aiohttp import hdrs

from schemas.config import MEGABYTE
from schemas.ids import Clock
from workers.failures import Failures
from workers.providers.base import AttemptFailed

MAX_BODY_BYTES = 64 * MEGABYTE
_MAX_ERROR_BYTES = MEGABYTE // 16
_LEAVE_WITHIN = 1.0
_TICK = 1.0


class Watch:
    """Closes a response whose reader waits too long, or waits on a connection that is gone.

    The reader then gets aiohttp's ClientConnectionError; `timed_out` says which of the two it was.
    One timer serves the whole answer. Read timeouts of aiohttp are not used: they cost a timer per
    read, and when the framing of a body is malformed aiohttp closes the connection, drops the timer
    and tells the reader nothing.
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
        now = self._loop.time()
        waited = 0.0 if self._since is None else now - self._since
        self.timed_out = now >= self._until or waited >= self._patience
        connection = self._response.connection
        gone = connection is not None and connection.transport is None
        if self.timed_out or (gone and self._since is not None):
            self._response.close()
        else:
            self._arm()


class Reply:
    """An answer whose head has arrived; `sent` and `first_byte` are monotonic seconds.

    `first_byte` is when the first block of the body was there. Whoever has a Reply closes it.
    """

    __slots__ = (
        "_clock",
        "_failures",
        "_idle",
        "_leaving",
        "_left",
        "_response",
        "_watch",
        "first_byte",
        "sent",
    )

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        watch: Watch,
        sent: float,
        idle: float | None,
        failures: Failures,
        clock: Clock,
        leaving: "set[Reply]",
    ) -> None:
        self._response = response
        self._watch = watch
        self._idle = idle
        self._failures = failures
        self._clock = clock
        self._leaving = leaving
        self._left = False
        self.sent = sent
        self.first_byte = 0.0

    @property
    def status(self) -> int:
        return self._response.status

    @property
    def headers(self) -> Mapping[str, str]:
        """The answer's headers; names are found in any case."""
        return self._response.headers

    @property
    def content_type(self) -> str:
        """The media type in small letters without parameters; empty if there is none."""
        return self._response.headers.get(hdrs.CONTENT_TYPE, "").partition(";")[0].strip().lower()

    async def next_block(self) -> bytes:
        """What the next read of the socket brought, decompressed; empty at the end of the body."""
        self._watch.begin()
        try:
            block = await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            if self._watch.timed_out:
                raise self._failures.timed_out("did not go on with its answer") from error
            raise self._failures.broken("broke off in the middle of its answer") from error
        self._watch.end()
        if not self.first_byte:
            self.first_byte = self._clock.monotonic()
            if self._idle is not None:
                self._watch.change(self._idle)
        return block

    async def read(self, limit: int = MAX_BODY_BYTES) -> bytes:
        """The rest of the body; AttemptFailed if it is longer than `limit` bytes."""
        block = await self.next_block()
        blocks: list[bytes] = []
        size = 0
        while block:
            blocks.append(block)
            size += len(block)
            if size > limit:
                raise self._failures.broken(
                    f"sent an answer of more than {limit} bytes", retryable=False
                )
            block = await self.next_block()
        return blocks[0] if len(blocks) == 1 else b"".join(blocks)

    async def read_error(self) -> bytes:
        """The body of an error answer; nothing if it is too long or breaks off."""
        try:
            return await self.read(_MAX_ERROR_BYTES)
        except AttemptFailed:
            return b""

    def close(self) -> None:
        """Frees the connection: for reuse if the body was read to its end, else it is closed."""
        self._watch.stop()
        if not self._left:
            self._response.release()

    def leave(self) -> None:
        """Nothing more of the body is needed, but its end is near: the connection is reused if the
        end comes within a second, without anyone waiting for it, and closed otherwise."""
        content = self._response.content
        if content.is_eof():
            return
        self._left = True
        self._leaving.add(self)
        timer = asyncio.get_running_loop().call_later(_LEAVE_WITHIN, self.abandon)
        content.on_eof(timer.cancel)
        content.on_eof(partial(self._leaving.discard, self))

    def abandon(self) -> None:
        """Closes the connection, whatever is still to come on it."""
        self._response.close()
        self._leaving.discard(self)
