"""The FastStream broker of a role: what carries its life and its short answers."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from faststream import BaseMiddleware, StreamMessage
from faststream.nats import NatsBroker, NatsMessage
from faststream.nats.security import NatsSecurity, NatsToken, NatsUserPassword
from nats.aio.client import Client

from ledger.login import BusRefused, Server, key_pair, tls_context
from ledger.nkeys import Nkey
from ledger.refusals import explained, is_final
from schemas import subjects
from schemas.config import BusConfig

_STOP_WITHIN = 2.0
# It tells of every task it awaits: only what goes wrong is of interest.
_log = logging.getLogger("nexus.broker")
_log.setLevel(logging.WARNING)


def broker(
    config: BusConfig,
    *,
    role: str,
    on_fatal: Callable[[str], None],
    on_reconnect: Callable[[], Awaitable[None]] | None = None,
) -> NatsBroker:
    """A broker that comes back to the bus for ever; handlers take and give bytes.

    It reaches the same servers with the same credentials as `Connection`, and tells `on_fatal` of
    the same. What goes wrong in a handler is logged as an error, each message at level debug.
    Raises BusRefused.
    """
    servers = Server.all_of(config)
    made = _Broker(
        [f"{'tls' if server.tls else 'nats'}://{server}" for server in servers],
        name=f"nexus-{role}",
        security=_security(config, servers[0]),
        inbox_prefix=subjects.inbox(role),
        connect_timeout=2,
        reconnected_cb=on_reconnect,
        max_reconnect_attempts=-1,
        reconnect_time_wait=1,
        drain_timeout=int(_STOP_WITHIN),
        graceful_timeout=_STOP_WITHIN,
        apply_types=False,
        middlewares=[_OnlyToInboxes],
        decoder=_as_it_came,
        logger=_log,
        log_level=logging.DEBUG,
    )
    made.errors = _Errors(role, on_fatal)
    made.keys = None if servers[0].user else config
    return made


class _Errors:
    """What the client tells of: said once in a line, and told on where no retry heals it."""

    def __init__(self, role: str, on_fatal: Callable[[str], None]) -> None:
        self._role = role
        self._on_fatal = on_fatal
        self._said: set[str] = set()

    async def hear(self, error: Exception) -> None:
        text = str(error).removeprefix("nats: ").strip("'") or type(error).__name__
        if is_final(text):
            self.end(explained(self._role, text))
        else:
            _log.debug("not yet: %s", text)

    def end(self, reason: str) -> None:
        """The client tries the same again and again; once is enough to hear it."""
        if reason not in self._said:
            self._said.add(reason)
            self._on_fatal(reason)


class _Broker(NatsBroker):
    """FastStream's, with errors told in one line and with keys of NATS's own kind: those it knows
    by a package that Nexus does without."""

    errors: _Errors
    keys: BusConfig | None

    async def _connect(self) -> Client:
        client = Client()

        async def on_closed() -> None:
            # It does not come back from an expiry by itself.
            if client.last_error is not None:
                await self.errors.hear(client.last_error)

        own = {"error_cb": self.errors.hear, "closed_cb": on_closed}
        options: dict[str, Any] = {**self._connection_kwargs, **own}
        if self.keys is not None and (pair := key_pair(self.keys)) is not None:
            jwt, key = pair
            options["signature_cb"] = self._sign
            if jwt:
                options["user_jwt_cb"] = self._jwt
            else:
                client._public_nkey = key.public
        try:
            await client.connect(**options)
        except BaseException:
            # Given up while it tried again, it would leave its socket open.
            transport: Any = client._transport
            if transport is not None:
                transport.close()
            raise
        self.config.connect(client)
        return client

    def _pair(self) -> tuple[str, Nkey]:
        """Read anew each time the client logs in."""
        assert self.keys is not None
        try:
            pair = key_pair(self.keys)
        except BusRefused as error:
            self.errors.end(str(error))
            raise OSError(str(error)) from error
        assert pair is not None
        return pair

    def _jwt(self) -> bytes:
        return self._pair()[0].encode()

    def _sign(self, nonce: str) -> bytes:
        return self._pair()[1].sign(nonce).encode()


class _OnlyToInboxes(BaseMiddleware[Any, Any]):
    """Drops questions whose answer would go elsewhere: who answers may publish what the asker
    may not, to a stream or to JetStream itself."""

    async def consume_scope(
        self, call_next: Callable[[Any], Awaitable[Any]], msg: StreamMessage[Any]
    ) -> Any:
        if msg.reply_to and not msg.reply_to.startswith(subjects.INBOXES):
            _log.warning("a question was dropped: its answer would go to %s", msg.reply_to)
            msg.reply_to = ""
            return None
        return await call_next(msg)


async def _as_it_came(message: NatsMessage) -> bytes:
    return message.body


def _security(config: BusConfig, server: Server) -> NatsSecurity | None:
    context = None
    if server.tls or config.tls_ca or config.tls_cert:
        context = tls_context(config)
    if server.user and server.password:
        return NatsUserPassword(server.user, server.password, ssl_context=context)
    if server.user:
        return NatsToken(server.user, ssl_context=context)
    return None if context is None else NatsSecurity(ssl_context=context)
