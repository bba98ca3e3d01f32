"""The `anthropic` dialect: Anthropic's Messages API, and servers that speak it."""

import re
from collections.abc import AsyncGenerator, Mapping

from yarl import URL

from schemas.config import ProviderConfig
from schemas.ids import Clock
from workers.asked import cannot
from workers.exchange import Request, streamed, whole
from workers.failures import Failures
from workers.headers import passed_on, without_account
from workers.http import Http
from workers.providers.anthropic.answer import canonical_message
from workers.providers.anthropic.request import messages_request
from workers.providers.anthropic.stream import MessageFolder
from workers.providers.base import Answer, Ask, Deltas, Provider, StreamEnd
from workers.sse import Parser

# The newest one, 2026-10-21, refuses temperature, top_p and top_k for every model.
VERSION = "2023-06-01"
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def create(name: str, config: ProviderConfig, http: Http, clock: Clock) -> Provider:
    return Anthropic(name, config, http, clock)


class Anthropic:
    """One server of the Messages API. `options.version` is the `anthropic-version` to ask for."""

    def __init__(self, name: str, config: ProviderConfig, http: Http, clock: Clock) -> None:
        self.name = name
        self._http = http
        self._drop = config.drop_params
        self.url = _messages_url(name, config.base_url)
        self._headers = {
            "Content-Type": "application/json",
            "anthropic-version": _version(name, config.options),
            **config.headers,
        }
        self._headers_for_client_key = without_account(self._headers, config.api_key)
        if config.api_key:
            self._headers["x-api-key"] = config.api_key
        self._failures = Failures(name, (config.api_key, *config.headers.values()), clock)

    async def complete(self, ask: Ask) -> Answer:
        failures = self._failures.with_client_key(ask.credential)
        got = await whole(self._http, self._request(ask, failures), ask, failures)
        return canonical_message(got, ask, failures)

    def stream(self, ask: Ask) -> AsyncGenerator[Deltas | StreamEnd, None]:
        failures = self._failures.with_client_key(ask.credential)
        request = self._request(ask, failures)
        folder = MessageFolder(ask, failures)
        return streamed(self._http, request, ask, failures, Parser(), folder)

    async def embed(self, ask: Ask) -> Answer:
        raise cannot("make embeddings: use a model of another provider", "model", self._failures)

    async def close(self) -> None:
        """Holds nothing of its own: the connections belong to the Http."""

    def _request(self, ask: Ask, failures: Failures) -> Request:
        headers = passed_on(ask.headers, self._own_headers(ask.credential), "anthropic")
        return Request(self.url, headers, messages_request(ask, failures, drop=self._drop))

    def _own_headers(self, client_key: str) -> Mapping[str, str]:
        """What we set ourselves; the client's own key goes without anything of our account."""
        if not client_key:
            return self._headers
        return {**self._headers_for_client_key, "x-api-key": client_key}


def _messages_url(name: str, base_url: str) -> str:
    """A base URL without a path gets `/v1`; a query in it stays."""
    url = URL(base_url)
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"providers.{name}.base_url: expected an http(s) URL, got {base_url!r}")
    path = url.path.rstrip("/") or "/v1"
    return str(url.with_path(f"{path}/messages", keep_query=True))


def _version(name: str, options: Mapping[str, str]) -> str:
    """The only option there is. Raises ValueError for another, and for no date."""
    for option in options:
        if option != "version":
            raise ValueError(f"providers.{name}.options.{option}: expected only 'version'")
    version = options.get("version", VERSION)
    if not _DATE.fullmatch(version):
        raise ValueError(f"providers.{name}.options.version: expected a date, got {version!r}")
    return version
