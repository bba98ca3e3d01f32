"""HTTP to providers: one aiohttp session per worker, its timeouts, and what its failures mean."""

import asyncio
import io
import math
import os
import ssl
from collections.abc import Mapping
from contextvars import ContextVar
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from urllib.request import getproxies_environment, proxy_bypass

import aiohttp
from aiohttp import ClientTimeout, hdrs
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from yarl import URL

from schemas.call import Timeouts
from schemas.config import MEGABYTE
from schemas.ids import Clock
from workers import public
from workers.failures import Failures
from workers.providers.base import AttemptFailed
from workers.reply import Reply, Watch

_LARGE_BODY = MEGABYTE // 4
_KEEP_ALIVE = 55.0
_DNS_TTL = 30


class _Trip:
    """What one request has been through: when it went out.

    From then on `head` runs, if the time for the head of the answer counts from there.
    """

    __slots__ = ("head", "head_within", "sent")

    def __init__(self) -> None:
        self.sent: float | None = None
        self.head: asyncio.Timeout | None = None
        self.head_within = 0.0


_trip: ContextVar[_Trip] = ContextVar("trip")


class _Connector(aiohttp.TCPConnector):
    """Notes in the trip when a request gets its connection: before that, nothing was sent."""

    def __init__(self, clock: Clock, limit: int) -> None:
        context = ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])
        super().__init__(
            ssl=context, limit=limit, keepalive_timeout=_KEEP_ALIVE, ttl_dns_cache=_DNS_TTL
        )
        self._clock = clock

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: ClientTimeout,
    ) -> Connection:
        connection = await super().connect(req, traces, timeout)
        trip = _trip.get()
        trip.sent = self._clock.monotonic()
        if trip.head is not None:
            trip.head.reschedule(asyncio.get_running_loop().time() + trip.head_within)
        return connection


class Http:
    """The HTTP client of one worker; to be made inside its event loop.

    Connections are kept alive, at most `limit` at once (the sum of all pools). Certificates are
    verified against the system's authorities or those of SSL_CERT_FILE and SSL_CERT_DIR. Requests
    to https URLs go through HTTPS_PROXY if it is set and NO_PROXY does not exempt the host; http
    URLs are never proxied, because behind them are machines of one's own. There are no cookies,
    no redirects (a credential would follow them) and no credentials from netrc.
    """

    def __init__(self, clock: Clock, limit: int) -> None:
        self._clock = clock
        self._leaving: set[Reply] = set()
        self._fetching: dict[bool, aiohttp.ClientSession] = {}
        self._session = aiohttp.ClientSession(
            connector=_Connector(clock, limit),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={hdrs.USER_AGENT: f"nexus/{_version()}"},
        )

    async def post(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes,
        timeouts: Timeouts,
        stream: bool,
        failures: Failures,
    ) -> Reply:
        """Sends `body` and waits for the head of the answer, whatever its status.

        A stream may take `first_byte` seconds from the sent request to the head, as long again to
        the first block of the body, and then `idle` to each further one; a single answer may take
        `total` for everything. Connecting is bounded by `connect`, and free on a kept connection.
        Raises AttemptFailed, with `reached` false if the request certainly was not read.
        """
        to, proxy = _route(url)
        _trip.set(trip := _Trip())
        try:
            async with asyncio.timeout(None if stream else timeouts.total) as head:
                if stream:
                    trip.head, trip.head_within = head, timeouts.first_byte
                response = await self._session.post(
                    to,
                    data=body if len(body) <= _LARGE_BODY else io.BytesIO(body),
                    headers=headers,
                    allow_redirects=False,
                    timeout=_connecting(timeouts.connect),
                    proxy=proxy,
                )
        except (aiohttp.ClientError, OSError) as error:
            raise self._failed(error, trip, failures) from error
        assert trip.sent is not None
        if stream:
            watch, idle = Watch(response, timeouts.first_byte), timeouts.idle
        else:
            watch, idle = Watch(response, math.inf, head.when() or math.inf), None
        return Reply(response, watch, trip.sent, idle, failures, self._clock, self._leaving)

    def fetching(self, *, private: bool) -> aiohttp.ClientSession:
        """The session for what clients only name, kept apart from that of providers: nothing of
        ours goes along, and without `private` it reaches public addresses only."""
        if private not in self._fetching:
            self._fetching[private] = public.session(private=private)
        return self._fetching[private]

    async def close(self) -> None:
        """Closes all connections; readers of running answers must have ended, none is told."""
        for reply in tuple(self._leaving):
            reply.abandon()
        for session in self._fetching.values():
            await session.close()
        await self._session.close()

    def _failed(self, error: Exception, trip: _Trip, failures: Failures) -> AttemptFailed:
        if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
            return failures.broken(
                "could not be reached: its TLS certificate or protocol was not accepted",
                reached=False,
                retryable=False,
                network=True,
            )
        if trip.sent is None:
            if isinstance(error, TimeoutError):
                return failures.timed_out("could not be connected to", reached=False, network=True)
            what = f"could not be reached ({_reason(error)})"
            return failures.broken(what, reached=False, network=True)
        if isinstance(error, TimeoutError):
            return failures.timed_out("did not begin its answer")
        if isinstance(error, aiohttp.ClientResponseError):
            return failures.broken("did not answer in valid HTTP")
        # Also on a kept connection: whether the server read the request before it closed, or had
        # closed already, cannot be told apart.
        return failures.broken("closed the connection before it answered", network=True)


@lru_cache(maxsize=1024)
def _route(url: str) -> tuple[URL, URL | None]:
    """Where to send to, and through which proxy.

    A URL with escapes goes out as it is written: a signature may be over them.
    """
    to = URL(url, encoded="%" in url)
    proxy = getproxies_environment().get("https") if to.scheme == "https" else None
    if proxy is None or proxy_bypass(to.host or ""):
        return to, None
    return to, URL(proxy)


@lru_cache(maxsize=1024)
def _connecting(within: float) -> ClientTimeout:
    """`connect` covers the wait for a free connection, the name lookup, all addresses and TLS."""
    return ClientTimeout(connect=within)


def _reason(error: Exception) -> str:
    """Why a connection failed, without addresses, which are the operator's business."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name was not found"
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    return type(error).__name__


def _version() -> str:
    try:
        return version("nexus-gateway")
    except PackageNotFoundError:
        return "dev"
