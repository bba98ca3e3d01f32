"""uvicorn's HTTP/1.1 protocol with bounds on what a slow, oversized or broken client may hold."""

import asyncio
from collections.abc import Callable

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from schemas.config import LimitConfig
from schemas.errors import ErrorInfo
from schemas.ids import Clock

# With what else a job carries beside its body this fits into the envelope of `ledger/blobs.py`.
HEADERS_AT_MOST = 32 * 1024
_LINGER = 2.0
_PHRASES = {400: "Bad Request", 408: "Request Timeout", 431: "Request Header Fields Too Large"}
_OF_UPGRADES = (b"upgrade", b"http2-settings")

_NOT_HTTP = ErrorInfo(
    status=400,
    type="invalid_request_error",
    code="invalid_http",
    message="This is not a valid HTTP request.",
)
_TOO_SLOW = ErrorInfo(
    status=408,
    type="invalid_request_error",
    code="request_timeout",
    message="The request headers did not come in time.",
)
_TOO_LONG = ErrorInfo(
    status=431,
    type="invalid_request_error",
    code="headers_too_large",
    message=f"The request headers are larger than {HEADERS_AT_MOST} bytes.",
)


class _Refused(Exception):
    """Raised out of a parser's callback: the request is not to be served."""


def guarded(limits: LimitConfig, clock: Clock) -> type[HttpToolsProtocol]:
    """The protocol class. It bounds the time and size of headers and trailers, the time that the
    rest of a body may take after its answer, and how long a client may hold an answer that it does
    not read. Upgrades other than to WebSocket are ignored, as HTTP allows."""

    class GuardedProtocol(HttpToolsProtocol):
        _timer: asyncio.TimerHandle | None = None
        _stuck: asyncio.TimerHandle | None = None
        _unsent = 0
        # Bytes that have come since the last byte of a body: headers, trailers, chunk sizes.
        _overhead = 0
        _between_bodies = True
        _in_headers = False
        _leaving = False
        _why = _NOT_HTTP

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._expect_headers()

        def connection_lost(self, exc: Exception | None) -> None:
            self._expect_nothing()
            if self._stuck is not None:
                self._stuck.cancel()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._leaving:
                return
            self._overhead += len(data)
            self._unset_keepalive_if_required()
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                if self._should_upgrade():
                    self.handle_websocket_upgrade()
                else:
                    self._ignore_upgrade(data[upgrade.args[0] :])
                return
            except httptools.HttpParserError:
                self._refuse(self._why)
                return
            if self._overhead > HEADERS_AT_MOST:
                self._refuse(_TOO_LONG)
            elif (
                self._timer is None
                and self._between_bodies
                and (self._in_headers or self._overhead)
            ):
                self._expect_headers()

        def on_message_begin(self) -> None:
            self._in_headers = True
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            if self._overhead > HEADERS_AT_MOST and self._head_size() > HEADERS_AT_MOST:
                self._why = _TOO_LONG
                raise _Refused
            self._between_bodies = self._in_headers = False
            self._overhead = 0
            self._expect_nothing()
            if self.parser.should_upgrade() and not self._should_upgrade():
                return
            super().on_headers_complete()
            if self.expect_100_continue:
                # Answered early, the client may or may not send the body: nobody could tell.
                self.cycle.keep_alive = False

        def on_body(self, body: bytes) -> None:
            self._overhead = 0
            super().on_body(body)

        def on_message_complete(self) -> None:
            if self.parser.should_upgrade():
                return
            super().on_message_complete()
            self._between_bodies = True
            if self.cycle.response_complete:
                self._expect_headers()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.cycle.response_complete and not self._between_bodies:
                self._within(limits.body_timeout, self.transport.abort)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._watch_reader()

        def resume_writing(self) -> None:
            if self._stuck is not None:
                self._stuck.cancel()
                self._stuck = None
            super().resume_writing()

        def _should_upgrade(self) -> bool:
            return self.parser.get_method() == b"GET" and super()._should_upgrade()

        def _ignore_upgrade(self, rest: bytes) -> None:
            """The parser takes nothing for a body after such a request: it is read once more
            without its wish."""
            method = self.parser.get_method()
            if method == b"CONNECT":
                self._refuse(_NOT_HTTP)
                return
            version = self.parser.get_http_version().encode()
            lines = [b"%b %b HTTP/%b" % (method, self.url, version)]
            for name, value in self.headers:
                if name == b"connection":
                    value = b",".join(_without_upgrades(value))
                if name not in _OF_UPGRADES and (value or name != b"connection"):
                    lines.append(b"%b: %b" % (name, value))
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            self._between_bodies = True
            self.data_received(b"\r\n".join(lines) + b"\r\n\r\n" + rest)

        def _head_size(self) -> int:
            return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

        def _expect_headers(self) -> None:
            self._within(limits.header_timeout, self._headers_overdue)

        def _headers_overdue(self) -> None:
            if self._in_headers:
                self._refuse(_TOO_SLOW)
            elif self.cycle is None or self.cycle.response_complete:
                self.transport.close()

        def _within(self, seconds: float, otherwise: Callable[[], None]) -> None:
            self._expect_nothing()
            self._timer = self.loop.call_later(seconds, otherwise)

        def _expect_nothing(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _watch_reader(self) -> None:
            self._unsent = self.transport.get_write_buffer_size()
            self._stuck = self.loop.call_later(limits.write_timeout, self._reader_overdue)

        def _reader_overdue(self) -> None:
            if self.transport.get_write_buffer_size() < self._unsent:
                self._watch_reader()
            else:
                self.transport.abort()

        def _refuse(self, info: ErrorInfo) -> None:
            """What was asked well before is still answered; else this is the answer."""
            self._expect_nothing()
            cycle = self.cycle
            if self.transport.is_closing():
                return
            if cycle is None or (cycle.response_complete and self._between_bodies):
                self._leave(_response(info, clock))
            elif not self._between_bodies and (cycle.response_started or self.pipeline):
                self.transport.abort()
            elif self._between_bodies:
                cycle.keep_alive = False
            else:
                cycle.disconnected = True
                cycle.message_event.set()
                self._leave(_response(info, clock))

        def _leave(self, response: bytes) -> None:
            """Closing while the client still sends would take the answer from it: what comes is
            thrown away for a while."""
            self._leaving = True
            self.transport.write(response)
            self.transport.write_eof()
            self.flow.resume_reading()
            self._within(_LINGER, self.transport.abort)

    return GuardedProtocol


def _without_upgrades(connection: bytes) -> list[bytes]:
    tokens = [token.strip() for token in connection.split(b",")]
    return [token for token in tokens if token and token.lower() not in _OF_UPGRADES]


def _response(info: ErrorInfo, clock: Clock) -> bytes:
    request_id = f"req_{clock.new_id()}"
    body = msgspec.json.encode(info.body(request_id))
    head = (
        f"HTTP/1.1 {info.status} {_PHRASES[info.status]}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        f"x-request-id: {request_id}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body
