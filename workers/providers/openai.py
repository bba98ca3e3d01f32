"""The `openai` dialect: OpenAI itself and every server that speaks its chat completions."""

from collections.abc import AsyncGenerator, Mapping

from yarl import URL

from schemas.config import ProviderConfig
from schemas.ids import Clock
from workers.canonical import ChunkFolder, canonical_answer, canonical_embeddings
from workers.canonical_request import canonical_request
from workers.exchange import Request, streamed, whole
from workers.failures import Failures
from workers.headers import passed_on, without_account
from workers.http import Http
from workers.providers.base import Answer, Ask, Deltas, Provider, StreamEnd
from workers.sse import Parser


def create(name: str, config: ProviderConfig, http: Http, clock: Clock) -> Provider:
    return OpenAI(name, config, http, clock)


class OpenAI:
    """One OpenAI-compatible server."""

    def __init__(self, name: str, config: ProviderConfig, http: Http, clock: Clock) -> None:
        self.name = name
        self._http = http
        base = _base_url(name, config.base_url)
        self.url = _under(base, "chat/completions")
        self._embeddings_url = _under(base, "embeddings")
        is_openai = name == "openai" or (base.host or "").endswith(".openai.com")
        self._vendor = "openai" if is_openai else ""
        self._quirks = config.quirks
        self._drop = config.drop_params
        self._headers = {"Content-Type": "application/json", **config.headers}
        self._headers_for_client_key = without_account(self._headers, config.api_key)
        if config.api_key:
            self._headers.update(self._signed(config.api_key))
        self._failures = Failures(name, (config.api_key, *config.headers.values()), clock)

    async def complete(self, ask: Ask) -> Answer:
        failures = self._failures.with_client_key(ask.credential)
        got = await whole(self._http, self._request(self.url, ask, failures), ask, failures)
        return canonical_answer(got, ask, failures)

    def stream(self, ask: Ask) -> AsyncGenerator[Deltas | StreamEnd, None]:
        failures = self._failures.with_client_key(ask.credential)
        request = self._request(self.url, ask, failures)
        folder = ChunkFolder(ask, failures)
        return streamed(self._http, request, ask, failures, Parser(), folder)

    async def embed(self, ask: Ask) -> Answer:
        failures = self._failures.with_client_key(ask.credential)
        request = self._request(self._embeddings_url, ask, failures)
        return canonical_embeddings(await whole(self._http, request, ask, failures), ask, failures)

    async def close(self) -> None:
        """Holds nothing of its own: the connections belong to the Http."""

    def _request(self, url: str, ask: Ask, failures: Failures) -> Request:
        headers = passed_on(ask.headers, self._own_headers(ask.credential), self._vendor)
        body = canonical_request(ask, failures, self._quirks, drop=self._drop)
        return Request(url, headers, body)

    def _own_headers(self, client_key: str) -> Mapping[str, str]:
        """What we set ourselves; the client's own key goes without anything of our account."""
        if not client_key:
            return self._headers
        return {**self._headers_for_client_key, **self._signed(client_key)}

    def _signed(self, key: str) -> dict[str, str]:
        if self._quirks.key_header:
            return {self._quirks.key_header: key}
        return {"Authorization": f"Bearer {key}"}


def _base_url(name: str, base_url: str) -> URL:
    """A base URL without a path gets `/v1`."""
    url = URL(base_url)
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"providers.{name}.base_url: expected an http(s) URL, got {base_url!r}")
    return url.with_path(url.path.rstrip("/") or "/v1", keep_query=True)


def _under(base: URL, path: str) -> str:
    """An endpoint under a base URL; a query in it stays."""
    return str(base.with_path(f"{base.path}/{path}", keep_query=True))
