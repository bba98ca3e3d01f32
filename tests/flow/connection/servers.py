"""Servers that speak a little of the protocol of the bus, and connections to them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from ledger.connection import Connection
from schemas.config import BusConfig

MEGABYTE = 1024 * 1024


@asynccontextmanager
async def connected(
    url: str, on_fatal: Callable[[str], None] | None = None
) -> AsyncIterator[Connection]:
    connection = await Connection.connect(BusConfig(url=url), name="test", on_fatal=on_fatal)
    try:
        yield connection
    finally:
        await connection.close()


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


class FakeServer:
    """Says its greeting, answers so many pings of each client and is silent from then on."""

    def __init__(self, greeting: bytes, *, answers: int = 1) -> None:
        self.url = ""
        self.arrivals = 0
        self.pings = 0
        self._greeting = greeting
        self._answers = answers
        self._talks: list[tuple[asyncio.StreamWriter, asyncio.Future[None]]] = []

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["FakeServer"]:
        server = await asyncio.start_server(self._arrived, "127.0.0.1", 0)
        self.url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            yield self
        for writer, talk in self._talks:
            writer.close()
            await talk
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)

    def _arrived(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.arrivals += 1
        self._talks.append((writer, asyncio.ensure_future(self._talk(reader, writer))))

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._greeting)
        left = self._answers
        with suppress(ConnectionError):
            while line := await reader.readline():
                if line == b"PING\r\n":
                    self.pings += 1
                    left -= 1
                    if left >= 0:
                        writer.write(b"PONG\r\n")


def greeting_of(version: str) -> bytes:
    return b'INFO {"version":"%b","max_payload":1048576}\r\n' % version.encode()
