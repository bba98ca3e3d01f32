"""One connection of the load generator: HTTP/1.1 with as little work per call as can be."""

import asyncio
import time
from collections.abc import Callable
from typing import cast

import httptools

from tests.bench.reply import Reply


class Connection(asyncio.Protocol):
    """One kept-alive connection: at most one call at a time."""

    def __init__(self, ended: Callable[["Connection", Reply, str, int], None]) -> None:
        self._ended = ended
        self._transport: asyncio.Transport | None = None
        self.reply: Reply | None = None

    @property
    def open(self) -> bool:
        """Whether a call can be made now."""
        return self._transport is not None

    def ask(self, request: bytes, reply: Reply) -> None:
        """Send a request; what comes back goes to `reply`."""
        assert self._transport is not None
        self.reply = reply
        self._transport.write(request)

    def close(self) -> None:
        """Give up the connection and the call on it."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass.
        self._parser = httptools.HttpResponseParser(self)
        self._now = 0

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._end("incomplete")

    def data_received(self, data: bytes) -> None:
        self._now = time.monotonic_ns()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()
            self._end("invalid")

    def on_headers_complete(self) -> None:
        if self.reply is not None:
            self.reply.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        if self.reply is not None:
            self.reply.feed(body, self._now)

    def on_message_complete(self) -> None:
        if not self._parser.should_keep_alive():
            self.close()
        if self.reply is not None:
            self._end(self.reply.fault(self._now))

    def _end(self, fault: str) -> None:
        reply, self.reply = self.reply, None
        if reply is not None:
            self._ended(self, reply, fault, self._now)
