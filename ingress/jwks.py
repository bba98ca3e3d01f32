"""The public keys of a token issuer, from its JWKS URL: fetched ahead of need, kept while it is
away."""

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from schemas.config import Unusable
from schemas.errors import Unavailable
from schemas.ids import Clock

if TYPE_CHECKING:
    import httpx
    from jwt.algorithms import Algorithm

log = logging.getLogger("nexus.ingress")

REFRESH = 600.0
_RETRY = 10.0
_WITHIN = 3.0
_ASK_AGAIN = 10.0
_LARGEST = 512 * 1024
_MOST_KEYS = 100


class _Document(msgspec.Struct):
    keys: list[dict[str, Any]]


_decode = msgspec.json.Decoder(_Document).decode


class Jwks:
    """The keys of one URL for the given algorithms; `version` grows when the set changes.

    Raises Unusable for a URL that is none.
    """

    def __init__(
        self,
        url: str,
        algorithms: Mapping[str, "Algorithm"],
        clock: Clock,
        refresh: float = REFRESH,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Unusable("jwt.jwks_url: expected the http or https URL of a JWKS document")
        self.version = 0
        self._url = url
        self._host = parts.hostname
        self._algorithms = algorithms
        self._clock = clock
        self._refresh = refresh
        self._keys: dict[tuple[str, str], Any] = {}
        self._document: _Document | None = None
        self._reached = False
        self._asked: float | None = None
        self._client: httpx.AsyncClient | None = None
        self._fetch: asyncio.Task[None] | None = None
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Fetch now, and again every ten minutes; after a failure every ten seconds."""
        self._running = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop fetching."""
        tasks = [task for task in (self._running, self._fetch) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    async def key(self, kid: str | None, algorithm: str) -> Any | None:
        """The key of that id for the algorithm, without an id the only one; None: there is none.

        A key that is not known is asked for, at most every ten seconds and for at most three.
        Raises Unavailable where the issuer did not answer the last time.
        """
        found = self._find(kid, algorithm)
        if found is None:
            await self._ask()
            found = self._find(kid, algorithm)
        if found is None and not self._reached:
            raise Unavailable(
                "The token cannot be checked now: the keys of its issuer are away. Try again"
                " shortly.",
                code="key_store_away",
                retry_after=1.0,
            )
        return found

    def _find(self, kid: str | None, algorithm: str) -> Any | None:
        if kid is not None:
            return self._keys.get((kid, algorithm))
        fitting = [key for (_, fits), key in self._keys.items() if fits == algorithm]
        return fitting[0] if len(fitting) == 1 else None

    async def _ask(self) -> None:
        """One fetch for all who wait for it."""
        if self._fetch is None or self._fetch.done():
            now = self._clock.monotonic()
            if self._asked is not None and now - self._asked < _ASK_AGAIN:
                return
            self._asked = now
        await asyncio.wait([self._begin()], timeout=_WITHIN)

    async def _run(self) -> None:
        while True:
            await asyncio.wait([self._begin()])
            await asyncio.sleep(self._refresh if self._reached else min(_RETRY, self._refresh))

    def _begin(self) -> asyncio.Task[None]:
        if self._fetch is None or self._fetch.done():
            self._fetch = asyncio.create_task(self._fetch_once())
        return self._fetch

    async def _fetch_once(self) -> None:
        import httpx

        try:
            async with asyncio.timeout(_WITHIN):
                document = _decode(await self._download())
        except (httpx.HTTPError, TimeoutError, ValueError, RecursionError) as error:
            self._reached = False
            log.warning(
                "the keys of the token issuer are away",
                extra={"host": self._host, "reason": f"{type(error).__name__}: {error}"[:200]},
            )
            return
        self._reached = True
        if document != self._document:
            self._document = document
            self._keys = self._usable(document)
            self.version += 1
            log.info(
                "keys of the token issuer", extra={"host": self._host, "keys": len(self._keys)}
            )

    async def _download(self) -> bytes:
        """The document. Raises httpx.HTTPError, ValueError."""
        import httpx

        if self._client is None:
            limits = httpx.Limits(max_keepalive_connections=0)
            self._client = httpx.AsyncClient(timeout=_WITHIN, follow_redirects=False, limits=limits)
        async with self._client.stream("GET", self._url) as response:
            if response.status_code != 200:
                raise ValueError(f"status {response.status_code}")
            body = bytearray()
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > _LARGEST:
                    raise ValueError(f"more than {_LARGEST} bytes")
        return bytes(body)

    def _usable(self, document: _Document) -> dict[tuple[str, str], Any]:
        """The public signing keys, by id and by each algorithm that they fit."""
        keys = {}
        for jwk in document.keys[:_MOST_KEYS]:
            kid = jwk.get("kid", "")
            if not isinstance(kid, str) or jwk.get("use", "sig") != "sig" or "d" in jwk:
                continue
            for name, algorithm in self._algorithms.items():
                key = _loaded(jwk, name, algorithm)
                if key is not None:
                    keys[kid, name] = key
        return keys


def _loaded(jwk: dict[str, Any], name: str, algorithm: "Algorithm") -> Any | None:
    """The key, where it is one for the algorithm."""
    from jwt.exceptions import PyJWTError

    if jwk.get("alg", name) != name:
        return None
    try:
        return algorithm.prepare_key(algorithm.from_jwk(jwk))
    except (PyJWTError, ValueError, TypeError, KeyError, AttributeError):
        return None
