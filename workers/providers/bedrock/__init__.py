"""The `bedrock` dialect: chats at Amazon Bedrock by Converse and ConverseStream."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from urllib.parse import quote

from yarl import URL

from schemas.config import ProviderConfig
from schemas.ids import Clock
from workers.asked import cannot
from workers.exchange import Request, streamed, whole
from workers.failures import Failures
from workers.headers import passed_on, without_account
from workers.http import Http
from workers.images import fetches_private
from workers.providers.base import Answer, Ask, Deltas, Provider, StreamEnd
from workers.providers.bedrock.answer import ConverseFolder, converse_answer
from workers.providers.bedrock.events import EventParser
from workers.providers.bedrock.request import converse_request
from workers.providers.bedrock.sigv4 import Credentials, Scope, signed

_BASE_URL = "https://bedrock-runtime.{region}.amazonaws.com"
_OPTIONS = frozenset({"access_key_id", "secret_access_key", "session_token", "fetch_private"})


def create(name: str, config: ProviderConfig, http: Http, clock: Clock) -> Provider:
    return Bedrock(name, config, http, clock)


class Bedrock:
    """Bedrock in one region.

    It is asked with an API key of Bedrock (`api_key`) or, without one, with requests signed by an
    access key (`options.access_key_id`, `.secret_access_key`, `.session_token`). A client's own key
    is an API key. Bedrock embeds by another interface, which this dialect does not speak.
    """

    def __init__(self, name: str, config: ProviderConfig, http: Http, clock: Clock) -> None:
        self.name = name
        self._http = http
        self._clock = clock
        self._drop = config.drop_params
        self._base = _base_url(name, config)
        self._private = fetches_private(name, config.options)
        self._credentials = _credentials(name, config)
        self._scope = Scope(config.region, "bedrock")
        self._headers = {"Content-Type": "application/json", **config.headers}
        self._headers_for_client_key = _not_of_aws(without_account(self._headers, config.api_key))
        if config.api_key:
            self._headers["Authorization"] = f"Bearer {config.api_key}"
        secrets = [config.api_key, *config.headers.values()]
        if self._credentials is not None:
            secrets += self._credentials[1:]
        self._failures = Failures(name, secrets, clock)

    async def complete(self, ask: Ask) -> Answer:
        failures = self._failures.with_client_key(ask.credential)
        request = await self._request(ask, "converse", failures)
        return converse_answer(await whole(self._http, request, ask, failures), ask, failures)

    async def stream(self, ask: Ask) -> AsyncGenerator[Deltas | StreamEnd, None]:
        failures = self._failures.with_client_key(ask.credential)
        request = await self._request(ask, "converse-stream", failures)
        folder = ConverseFolder(ask, failures)
        pieces = streamed(self._http, request, ask, failures, EventParser(), folder)
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece

    async def embed(self, ask: Ask) -> Answer:
        raise cannot(
            "embed: the gateway speaks only Bedrock's Converse, which has no embeddings. Ask a"
            " model of another provider for them",
            "model",
            self._failures.with_client_key(ask.credential),
        )

    async def close(self) -> None:
        """Holds nothing of its own: the connections belong to the Http."""

    async def _request(self, ask: Ask, operation: str, failures: Failures) -> Request:
        engine = ask.engine or ask.model
        if engine in (".", ".."):
            raise cannot(f"be asked for the model '{engine}'", "model", failures)
        body = await converse_request(
            ask, engine, self._http, failures, drop=self._drop, private=self._private
        )
        url = f"{self._base}/model/{quote(engine, safe='')}/{operation}"
        own = self._own_headers(url, body, ask.credential)
        return Request(url, passed_on(_not_of_aws(ask.headers), own), body)

    def _own_headers(self, url: str, body: bytes, client_key: str) -> Mapping[str, str]:
        """What we set ourselves; the client's own key goes without anything of our account.

        Signed is what must not change; AWS asks for no more, and proxies may change the rest.
        """
        if client_key:
            return {**self._headers_for_client_key, "Authorization": f"Bearer {client_key}"}
        if self._credentials is None:
            return self._headers
        ours = {
            name: value
            for name, value in self._headers.items()
            if name.lower().startswith(("content-", "x-amz"))
        }
        now = self._clock.now_ns()
        return self._headers | signed(self._credentials, self._scope, "POST", url, ours, body, now)


def _not_of_aws(headers: Mapping[str, str]) -> dict[str, str]:
    """AWS wants all of its own headers signed: a client's are not."""
    return {name: value for name, value in headers.items() if not name.lower().startswith("x-amz")}


def _base_url(name: str, config: ProviderConfig) -> str:
    """`{region}` in a base URL stands for the region."""
    base = config.base_url or _BASE_URL
    if "{region}" in base and not config.region:
        raise ValueError(f"providers.{name}.region: expected a region such as us-east-1, got none")
    url = URL(base.replace("{region}", config.region))
    if url.scheme not in ("http", "https") or not url.host or url.query_string:
        raise ValueError(
            f"providers.{name}.base_url: expected an http(s) URL without a query, got {base!r}"
        )
    return str(url).rstrip("/")


def _credentials(name: str, config: ProviderConfig) -> Credentials | None:
    """The access key to sign with; none with an API key, or without either."""
    options = config.options
    unknown = sorted(options.keys() - _OPTIONS)
    if unknown:
        known = ", ".join(sorted(_OPTIONS))
        raise ValueError(
            f"providers.{name}.options.{unknown[0]}: unknown option, expected one of {known}"
        )
    key, secret = options.get("access_key_id", ""), options.get("secret_access_key", "")
    if bool(key) != bool(secret):
        missing = "secret_access_key" if key else "access_key_id"
        raise ValueError(f"providers.{name}.options.{missing}: expected with its other half")
    if config.api_key or not key:
        return None
    if not config.region:
        raise ValueError(f"providers.{name}.region: expected a region to sign requests for")
    return Credentials(key, secret, options.get("session_token", ""))
