"""A cable between one client and its nats-server, to be cut while both live on."""

import asyncio


class Cable:
    """Forwards both ways between whoever connects to `port` and the server behind it.

    `deaf` is set while the client hears nothing.
    """

    def __init__(self, server_port: int) -> None:
        self.port = 0
        self.deaf = asyncio.Event()
        self._server_port = server_port
        self._listener: asyncio.Server | None = None
        self._cut = False
        self._last_words: bytes | None = None
        self._ends: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Both ends lose each other, and no new connection comes about."""
        self._cut = True
        self._hang_up()

    def deafen(self, after: bytes = b"") -> None:
        """The server hears its client, the client hears nothing; from when it says `after` on."""
        self._last_words = after

    def mend(self) -> None:
        """New connections work again; those that are left of before end."""
        self._cut = False
        self._last_words = None
        self.deaf.clear()
        self._hang_up()

    async def close(self) -> None:
        self.cut()
        if self._listener is not None:
            self._listener.close()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _hang_up(self) -> None:
        for end in self._ends:
            end.close()
        self._ends.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut:
            writer.close()
            return
        try:
            there = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            writer.close()
            return
        self._ends += [writer, there[1]]
        for pump in (
            self._pump(reader, there[1], to_client=False),
            self._pump(there[0], writer, to_client=True),
        ):
            task = asyncio.create_task(pump)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, to_client: bool
    ) -> None:
        try:
            while data := await source.read(65536):
                if not to_client and self._last_words is not None and self._last_words in data:
                    self.deaf.set()
                if not (to_client and self.deaf.is_set()):
                    target.write(data)
        except OSError:
            pass
        finally:
            target.close()
