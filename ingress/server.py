"""The HTTP server: uvicorn under a supervisor, with its guarded protocol."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from ingress.http1 import guarded
from schemas.config import Config
from schemas.ids import Clock


class Server(uvicorn.Server):
    """uvicorn under a supervisor: it says when it listens; a signal drains it, and it returns
    instead of dying of it."""

    def __init__(
        self,
        config: uvicorn.Config,
        on_listening: Callable[[], None],
        on_stopping: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._on_listening = on_listening
        self._on_stopping = on_stopping

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_listening()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_stopping()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)


def server(
    app: Any,
    config: Config,
    clock: Clock,
    on_listening: Callable[[], None],
    on_stopping: Callable[[], None],
) -> Server:
    """A server for `app`; give `serve()` ready sockets to use those instead of host and port."""
    return Server(
        uvicorn.Config(
            app,
            host=config.host,
            port=config.port,
            http=guarded(config.limits, clock),
            loop="uvloop",
            ws="websockets-sansio",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            backlog=4096,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=max(1, round(config.drain)),
        ),
        on_listening,
        on_stopping,
    )
