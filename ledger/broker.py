"""The FastStream broker of a role: what carries its life and its short answers."""

import logging
import ssl
from collections.abc import Awaitable, Callable

from faststream.nats import NatsBroker, NatsMessage
from faststream.nats.security import NatsSecurity, NatsToken, NatsUserPassword

from ledger.wire import Server
from schemas.config import BusConfig

_STOP_WITHIN = 2.0
# It tells of every task it awaits: only what goes wrong is of interest.
_log = logging.getLogger("nexus.broker")
_log.setLevel(logging.WARNING)


def broker(
    config: BusConfig,
    *,
    name: str,
    inbox: str = "_INBOX",
    on_reconnect: Callable[[], Awaitable[None]] | None = None,
) -> NatsBroker:
    """A broker that comes back to the bus for ever; handlers take and give bytes.

    It reaches the same servers with the same credentials as `Connection`. What goes wrong in a
    handler is logged as an error, each message at level debug.
    """
    servers = Server.all_of(config)
    return NatsBroker(
        [f"{'tls' if server.tls else 'nats'}://{server}" for server in servers],
        name=name,
        security=_security(config, servers[0]),
        inbox_prefix=inbox,
        connect_timeout=2,
        reconnected_cb=on_reconnect,
        max_reconnect_attempts=-1,
        reconnect_time_wait=1,
        drain_timeout=int(_STOP_WITHIN),
        graceful_timeout=_STOP_WITHIN,
        apply_types=False,
        decoder=_as_it_came,
        logger=_log,
        log_level=logging.DEBUG,
    )


async def _as_it_came(message: NatsMessage) -> bytes:
    return message.body


def _security(config: BusConfig, server: Server) -> NatsSecurity | None:
    context = None
    if server.tls or config.tls_ca:
        context = ssl.create_default_context(cafile=config.tls_ca or None)
    if server.user and server.password:
        return NatsUserPassword(server.user, server.password, ssl_context=context)
    if server.user:
        return NatsToken(server.user, ssl_context=context)
    return None if context is None else NatsSecurity(ssl_context=context)
