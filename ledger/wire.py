"""One socket to one NATS server: reaching it, TLS, the handshake, and its loss."""

import asyncio
import contextlib
import re
import ssl
from typing import Protocol, cast

import msgspec

from ledger.login import BusRefused, Server, login, tls_context
from ledger.protocol import Message, Parser, ProtocolError, ServerInfo
from ledger.refusals import explained, is_final
from schemas.config import BusConfig

OLDEST_SERVER = (2, 14, 0)
_OUR_CERTIFICATE = re.compile("alert .*(certificate|unknown ca)", re.IGNORECASE)
_REACH_SECONDS = 3.0
_HIGH_WATER = 256 * 1024


class Disconnected(Exception):
    """There is no connection to the bus, or it broke before the answer came."""


class Listener(Protocol):
    """Who hears what a wire brings; no method may raise."""

    def on_message(self, sid: bytes, message: Message, /) -> None: ...

    def on_pong(self) -> None: ...

    def on_error(self, text: str, /) -> None: ...

    def on_writable(self) -> None: ...

    def on_lost(self, wire: "Wire", reason: str, /) -> None: ...


class Wire(asyncio.Protocol):
    """An open connection; `writable` turns False while the socket does not keep up."""

    def __init__(self, name: str, listener: Listener) -> None:
        loop = asyncio.get_running_loop()
        self.writable = True
        self.info = ServerInfo()
        self._name = name
        self._listener = listener
        self._parser = Parser(listener.on_message, self._control)
        self._transport: asyncio.Transport | None = None
        self._greeted: asyncio.Future[None] = loop.create_future()
        self._admitted: asyncio.Future[None] = loop.create_future()
        self._reason = "the server closed the connection"
        self._lost = False

    @classmethod
    async def open(cls, server: Server, config: BusConfig, name: str, listener: Listener) -> "Wire":
        """Connect and log in; Disconnected if it cannot be reached, BusRefused if it says no."""
        wire = cls(name, listener)
        try:
            async with asyncio.timeout(_REACH_SECONDS):
                await wire._shake_hands(server, config)
        except ssl.SSLCertVerificationError as error:
            wire.abort()
            raise BusRefused(f"the certificate of {server} is not trusted: {error}") from error
        except (OSError, TimeoutError, Disconnected) as error:
            wire.abort()
            if _OUR_CERTIFICATE.search(str(error)):
                raise BusRefused(
                    f"{server} refuses our certificate: set tls_cert and tls_key ({error})"
                ) from error
            raise Disconnected(f"no NATS server at {server}: {error or 'no answer'}") from error
        except BaseException:
            wire.abort()
            raise
        return wire

    async def _shake_hands(self, server: Server, config: BusConfig) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self, server.host, server.port)
        await self._greeted
        if self.info.version_tuple < OLDEST_SERVER:
            needed = ".".join(map(str, OLDEST_SERVER))
            raise BusRefused(
                f"NATS server {self.info.version} at {server} is too old: {needed} or newer"
            )
        assert self._transport is not None
        if server.tls or self.info.tls_required:
            if not (self.info.tls_required or self.info.tls_available):
                raise BusRefused(f"{server} offers no TLS, but tls:// was asked for")
            secured = await loop.start_tls(
                self._transport, self, tls_context(config), server_hostname=server.host
            )
            assert secured is not None
            self.connection_made(secured)
        self.write(_connect_line(server, config, self._name, self.info.nonce) + b"PING\r\n")
        await self._admitted
        if self._lost:
            raise Disconnected(self._reason)

    def write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    def abort(self, reason: str = "given up") -> None:
        """Drop the connection without waiting for anything; `on_lost` follows."""
        self._reason = reason
        self.writable = False
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Send what was written, then end."""
        self._reason = "closed"
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)

    def connection_lost(self, exc: Exception | None) -> None:
        reason = str(exc) if exc else self._reason
        self.writable = False
        self._lost = True
        for waiter in (self._greeted, self._admitted):
            if not waiter.done():
                waiter.set_exception(Disconnected(reason))
                waiter.exception()
        self._listener.on_lost(self, reason)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed(data)
        except ProtocolError as error:
            self.abort(str(error))

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self._listener.on_writable()

    def _control(self, verb: bytes, rest: bytes) -> None:
        if verb == b"PING":
            self.write(b"PONG\r\n")
        elif verb == b"PONG":
            if self._admitted.done():
                self._listener.on_pong()
            else:
                self._admitted.set_result(None)
        elif verb == b"INFO":
            self._take_info(rest)
        elif verb == b"-ERR":
            text = rest.decode(errors="replace").strip(" '")
            if self._admitted.done():
                self._reason = text
                self._listener.on_error(text)
            else:
                if is_final(text):
                    refusal: Exception = BusRefused(explained(self._name, text))
                else:
                    refusal = Disconnected(f"the NATS server refused us: {text}")
                self._admitted.set_exception(refusal)

    def _take_info(self, rest: bytes) -> None:
        with contextlib.suppress(msgspec.DecodeError):
            self.info = msgspec.json.decode(rest, type=ServerInfo)
            if not self._greeted.done():
                self._greeted.set_result(None)


def _connect_line(server: Server, config: BusConfig, name: str, nonce: str) -> bytes:
    options: dict[str, object] = {
        "verbose": False,
        "pedantic": False,
        "tls_required": server.tls,
        "name": name,
        "lang": "python-nexus",
        "version": "1",
        "protocol": 1,
        "headers": True,
        "no_responders": True,
        **login(server, config, nonce),
    }
    return b"CONNECT " + msgspec.json.encode(options) + b"\r\n"
