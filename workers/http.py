"""HTTP to providers: one aiohttp session per worker, its timeouts, and what its failures mean."""

import asyncio
import io
import ssl
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from urllib.request import getproxies_environment, proxy_bypass

import aiohttp
from aiohttp import ClientTimeout, hdrs
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from yarl import URL

from schemas.call import Timeouts
from schemas.config import MEGABYTE
from schemas.ids import Clock
from workers.failures import Failures
from workers.providers.base import AttemptFailed

MAX_BODY_BYTES = 64 * MEGABYTE
_MAX_ERROR_BYTES = MEGABYTE // 16
_LARGE_BODY = MEGABYTE // 4
_KEEP_ALIVE = 55.0
_DNS_TTL = 30
_STALE_WITHIN = 1.0
_LEAVE_WITHIN = 1.0
_NEVER_PASSED_ON = frozenset(
    {
        "accept-encoding",
        "authorization",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


class _Trip:
    """What one request has been through: it went out at `sent`, on a connection used before?"""

    __slots__ = ("reused", "sent")

    def __init__(self) -> None:
        self.sent: float | None = None
        self.reused = False


_trip: ContextVar[_Trip] = ContextVar("trip")


class _Connector(aiohttp.TCPConnector):
    """Notes in the trip when a request gets its connection: before that nothing was sent."""

    def __init__(self, clock: Clock, limit: int) -> None:
        context = ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])
        super().__init__(
            ssl=context, limit=limit, keepalive_timeout=_KEEP_ALIVE, ttl_dns_cache=_DNS_TTL
        )
        self._clock = clock

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: ClientTimeout
    ) -> Connection:
        connection = await super().connect(req, traces, timeout)
        trip = _trip.get()
        trip.sent = self._clock.monotonic()
        trip.reused = getattr(connection.protocol, "nexus_used", False)
        connection.protocol.nexus_used = True
        return connection
