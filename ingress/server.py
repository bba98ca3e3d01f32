"""The HTTP server: uvicorn, with what it lacks against slow, oversized or broken requests."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from schemas.config import Config, LimitConfig
from schemas.errors import ErrorInfo

_HEADERS_AT_MOST = 64 * 1024
_GRACEFUL = 10


def _response(info: ErrorInfo) -> bytes:
    body = msgspec.json.encode(info.body("req_none"))
    phrase = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large"}
    return (
        b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
        b"connection: close\r\n\r\n%b" % (info.status, phrase[info.status], len(body), body)
    )


_NOT_HTTP = _response(
    ErrorInfo(
        status=400,
        type="invalid_request_error",
        code="invalid_http",
        message="This is not a valid HTTP request.",
    )
)
_TOO_SLOW = _response(
    ErrorInfo(
        status=408,
        type="invalid_request_error",
        code="request_timeout",
        message="The request headers did not come in time.",
    )
)
_TOO_LONG = _response(
    ErrorInfo(
        status=431,
        type="invalid_request_error",
        code="headers_too_large",
        message=f"The request headers are larger than {_HEADERS_AT_MOST} bytes.",
    )
)


def guarded(limits: LimitConfig) -> type[HttpToolsProtocol]:
    """uvicorn's protocol with bounds: on the time and size of a request's headers, and on how long
    a client that reads nothing may hold a response."""

    class GuardedProtocol(HttpToolsProtocol):
        _timer: asyncio.TimerHandle | None = None
        _stuck: asyncio.TimerHandle | None = None
        _header_bytes = 0
        _in_headers = True

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._unwatch()
            if self._stuck is not None:
                self._stuck.cancel()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._in_headers:
                self._header_bytes += len(data)
            super().data_received(data)
            if self._in_headers and not self.transport.is_closing():
                if self._header_bytes > _HEADERS_AT_MOST:
                    self._refuse(_TOO_LONG)
                elif self._timer is None and self._header_bytes:
                    self._watch()

        def on_headers_complete(self) -> None:
            self._in_headers = False
            self._header_bytes = 0
            self._unwatch()
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            super().on_message_complete()
            self._in_headers = True

        def pause_writing(self) -> None:
            super().pause_writing()
            self._stuck = self.loop.call_later(limits.write_timeout, self.transport.abort)

        def resume_writing(self) -> None:
            if self._stuck is not None:
                self._stuck.cancel()
                self._stuck = None
            super().resume_writing()

        def send_400_response(self, msg: str) -> None:
            self._refuse(_NOT_HTTP)

        def _watch(self) -> None:
            self._timer = self.loop.call_later(limits.header_timeout, self._refuse, _TOO_SLOW)

        def _unwatch(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _refuse(self, response: bytes) -> None:
            self._unwatch()
            if not self.transport.is_closing():
                self.transport.write(response)
                self.transport.close()

    return GuardedProtocol


class Server(uvicorn.Server):
    """uvicorn under a supervisor: it says when it listens; a signal drains it, and it returns
    instead of dying of it."""

    def __init__(self, config: uvicorn.Config, on_listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_listening = on_listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_listening()

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


def server(app: Any, config: Config, on_listening: Callable[[], None]) -> Server:
    """A server for `app`; give `serve()` ready sockets to use those instead of host and port."""
    return Server(
        uvicorn.Config(
            app,
            host=config.host,
            port=config.port,
            http=guarded(config.limits),
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
            timeout_graceful_shutdown=_GRACEFUL,
        ),
        on_listening,
    )
