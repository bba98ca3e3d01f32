"""A TCP proxy before a nats-server that falls silent after one chosen publish of its client.

What the client sends afterwards stays in the proxy: as for a client that died at that moment.
"""

import asyncio
from collections.abc import Callable

from compose.nats_server import NatsServer


class BusTap:
    """Forwards both ways; `hold_after` decides, and `holding` is set once it has."""

    def __init__(self) -> None:
        self.holding = asyncio.Event()
        self._is_last: Callable[[str, bytes], bool] = lambda subject, payload: False
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, bus: NatsServer) -> str:
        """Listen before a server; the address to give to the client."""

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there = await asyncio.open_connection("127.0.0.1", bus.port)
            for pump in (self._from_client(reader, there[1]), _copy(there[0], writer)):
                task = asyncio.create_task(pump)
                self._tasks.add(task)

        self._server = await asyncio.start_server(accept, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        return bus.url_of("worker").replace(f":{bus.port}", f":{port}")

    def hold_after(self, is_last: Callable[[str, bytes], bool]) -> None:
        """Fall silent after the first publish for which `is_last(subject, payload)` is true."""
        self._is_last = is_last

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _from_client(
        self, client: asyncio.StreamReader, server: asyncio.StreamWriter
    ) -> None:
        try:
            while line := await client.readline():
                words = line.split()
                payload = b""
                if words and words[0].upper() in (b"PUB", b"HPUB"):
                    payload = await client.readexactly(int(words[-1]) + 2)
                if self.holding.is_set():
                    continue
                server.write(line + payload)
                await server.drain()
                if payload and self._is_last(words[1].decode(), _body(words, payload)):
                    self.holding.set()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            server.close()


def _body(words: list[bytes], payload: bytes) -> bytes:
    """The payload without its headers."""
    return payload[int(words[-2]) if words[0].upper() == b"HPUB" else 0 : -2]


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()
