"""The `azure` dialect: OpenAI's models on Azure, by deployment.

Source: learn.microsoft.com/azure/ai-foundry/openai/reference and .../api-version-lifecycle.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from urllib.parse import quote

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
from workers.tokens import ENTRA, AccessToken, client_credentials

_SCOPE = "https://cognitiveservices.azure.com/.default"
_BY_ENTRA = ("tenant_id", "client_id", "client_secret")
_SECRET_OPTIONS = ("client_secret", "ad_token")


def create(name: str, config: ProviderConfig, http: Http, clock: Clock) -> Provider:
    return Azure(name, config, http, clock)


class Azure:
    """One Azure OpenAI resource; an engine is the name of a deployment.

    Without `options.api_version` the versionless API under `/openai/v1` is spoken, which takes the
    deployment as the model. It signs in with the key of the resource, with an Entra token
    (`options.ad_token`), or as an Entra application (`tenant_id`, `client_id`, `client_secret`).
    """

    def __init__(self, name: str, config: ProviderConfig, http: Http, clock: Clock) -> None:
        self.name = name
        self._http = http
        self._base = _resource(name, config.base_url)
        self._api_version = config.options.get("api_version", "")
        self._drop = config.drop_params
        self._headers = {"Content-Type": "application/json", **config.headers}
        self._headers_for_client_key = without_account(self._headers, config.api_key)
        if config.api_key:
            self._headers["api-key"] = config.api_key
        elif token := config.options.get("ad_token"):
            self._headers["Authorization"] = f"Bearer {token}"
        secrets = [config.options.get(option, "") for option in _SECRET_OPTIONS]
        self._failures = Failures(
            name, (config.api_key, *config.headers.values(), *filter(None, secrets)), clock
        )
        self._token = _entra_token(name, config, http, self._failures, clock)

    async def complete(self, ask: Ask) -> Answer:
        failures = self._failures.with_client_key(ask.credential)
        request = await self._request("chat/completions", ask, failures)
        return canonical_answer(await whole(self._http, request, ask, failures), ask, failures)

    async def stream(self, ask: Ask) -> AsyncGenerator[Deltas | StreamEnd, None]:
        failures = self._failures.with_client_key(ask.credential)
        request = await self._request("chat/completions", ask, failures)
        folder = ChunkFolder(ask, failures)
        pieces = streamed(self._http, request, ask, failures, Parser(), folder)
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece

    async def embed(self, ask: Ask) -> Answer:
        failures = self._failures.with_client_key(ask.credential)
        request = await self._request("embeddings", ask, failures)
        return canonical_embeddings(await whole(self._http, request, ask, failures), ask, failures)

    async def close(self) -> None:
        if self._token is not None:
            await self._token.close()

    async def _request(self, endpoint: str, ask: Ask, failures: Failures) -> Request:
        body = canonical_request(ask, failures, drop=self._drop)
        headers = passed_on(ask.headers, await self._own_headers(ask.credential))
        return Request(self._url(endpoint, ask.engine or ask.model), headers, body)

    def _url(self, endpoint: str, deployment: str) -> str:
        if not self._api_version:
            return f"{self._base}/openai/v1/{endpoint}"
        # What stands in a name may mean something in a path.
        place = f"{self._base}/openai/deployments/{quote(deployment, safe='')}/{endpoint}"
        return f"{place}?api-version={quote(self._api_version, safe='')}"

    async def _own_headers(self, client_key: str) -> dict[str, str]:
        if client_key:
            return {**self._headers_for_client_key, "api-key": client_key}
        if self._token is None:
            return self._headers
        return {**self._headers, "Authorization": f"Bearer {await self._token.text()}"}


def _resource(name: str, base_url: str) -> str:
    """The address of the resource; what is often copied with it does no harm."""
    url = URL(base_url)
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(
            f"providers.{name}.base_url: expected https://NAME.openai.azure.com, got {base_url!r}"
        )
    path = url.path.rstrip("/").removesuffix("/v1").removesuffix("/openai")
    return str(url.with_path(path or "/").with_query(None)).rstrip("/")


def _entra_token(
    name: str, config: ProviderConfig, http: Http, failures: Failures, clock: Clock
) -> AccessToken | None:
    """The token of the Entra application, where one signs in by it."""
    given = [option for option in _BY_ENTRA if config.options.get(option)]
    if config.api_key or not given or config.options.get("ad_token"):
        return None
    if missing := [option for option in _BY_ENTRA if option not in given]:
        raise ValueError(
            f"providers.{name}.options.{missing[0]}: missing, an Entra application signs in with"
            f" {', '.join(_BY_ENTRA)}"
        )
    tenant, client_id, client_secret = (config.options[option] for option in _BY_ENTRA)
    scope = config.options.get("scope", _SCOPE)
    authority = config.options.get("authority", ENTRA)
    source = client_credentials(tenant, client_id, client_secret, scope, authority)
    return AccessToken(source, http, failures, clock)
