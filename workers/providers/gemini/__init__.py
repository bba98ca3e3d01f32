"""The `gemini` dialect: Google's models by AI Studio (an API key) or Vertex AI (a project).

Sources: ai.google.dev/api, cloud.google.com/vertex-ai/generative-ai/docs and the `google-genai`
package 3.4.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from urllib.parse import quote

from yarl import URL

from schemas.config import ProviderConfig
from schemas.ids import Clock
from workers.asked import read_chat, read_embedding, texts_of
from workers.exchange import Request, streamed, whole
from workers.failures import Failures
from workers.headers import passed_on, without_account
from workers.http import Http
from workers.images import fetches_private, images_of
from workers.providers.base import Answer, Ask, AttemptFailed, Deltas, Provider, StreamEnd
from workers.providers.gemini.answers import ChatFolder, chat_answer
from workers.providers.gemini.embeddings import TAKES as EMBEDDING_TAKES
from workers.providers.gemini.embeddings import Batch, embed_request, embedded, texts_at_once
from workers.providers.gemini.requests import TAKES, generate_body, split_tools
from workers.providers.gemini.turns import images_in, require_no_stored_files
from workers.sse import Parser
from workers.tokens import AccessToken, service_account

AI_STUDIO = "https://generativelanguage.googleapis.com/v1beta"
_VERTEX = "aiplatform.googleapis.com"
_EXPRESS = f"https://{_VERTEX}/v1/publishers/google"
# Locations that are several regions, at hosts of their own (python-genai, `_api_client`).
_MULTI_REGIONS = frozenset({"us", "eu"})
_COLLECTIONS = ("models/", "tunedModels/")


def create(name: str, config: ProviderConfig, http: Http, clock: Clock) -> Provider:
    return Gemini(name, config, http, clock)


class Gemini:
    """Google's models at one place.

    `options.project` makes it Vertex AI, in `region` (default: global), with `options.access_token`
    or the service account of `options.credentials_file` (default: GOOGLE_APPLICATION_CREDENTIALS).
    A client's own key is an API key, at Vertex AI one of its express mode. What is stored at Google
    is read for clients without one only with `options.stored_files` (`true`).
    """

    def __init__(self, name: str, config: ProviderConfig, http: Http, clock: Clock) -> None:
        self.name = name
        self._http = http
        self._drop = config.drop_params
        self._private = fetches_private(name, config.options)
        self._stored_files = config.options.get("stored_files", "").lower() == "true"
        self._base = _base_url(name, config)
        in_project = bool(config.options.get("project"))
        self._vertex = in_project or (URL(self._base).host or "").endswith(_VERTEX)
        self._base_for_client_key = _EXPRESS if in_project and not config.base_url else self._base
        self._headers = {"Content-Type": "application/json", **config.headers}
        self._headers_for_client_key = _without_google(
            without_account(self._headers, config.api_key)
        )
        given_token = config.options.get("access_token", "")
        secrets = (config.api_key, given_token, *config.headers.values())
        self._failures = Failures(name, secrets, clock)
        self._token: AccessToken | None = None
        if config.api_key:
            self._headers["x-goog-api-key"] = config.api_key
        elif given_token:
            self._headers["Authorization"] = f"Bearer {given_token}"
        elif in_project:
            self._token = _token(name, config, http, self._failures, clock)

    async def complete(self, ask: Ask) -> Answer:
        failures = self._failures.with_client_key(ask.credential)
        request = await self._chat(ask, failures)
        return chat_answer(await whole(self._http, request, ask, failures), ask, failures)

    async def stream(self, ask: Ask) -> AsyncGenerator[Deltas | StreamEnd, None]:
        failures = self._failures.with_client_key(ask.credential)
        request = await self._chat(ask, failures)
        folder = ChatFolder(ask, failures)
        pieces = streamed(self._http, request, ask, failures, Parser(), folder)
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece

    async def embed(self, ask: Ask) -> Answer:
        failures = self._failures.with_client_key(ask.credential)
        embedding, given = read_embedding(ask, EMBEDDING_TAKES, failures, drop=self._drop)
        texts = texts_of(embedding, failures)
        engine = ask.engine or ask.model
        at_once = texts_at_once(engine, vertex=self._vertex)
        batches: list[Batch] = []
        try:
            async with asyncio.timeout(ask.timeouts.total):
                for start in range(0, max(1, len(texts)), at_once):
                    some = texts[start : start + at_once]
                    method, body = embed_request(
                        some, embedding, given, _named(engine), vertex=self._vertex
                    )
                    request = Request(self.url(ask, method), await self._sent_with(ask), body)
                    got = await whole(self._http, request, ask, failures)
                    batches.append(Batch(got, len(some), failures))
        except TimeoutError as error:
            raise failures.timed_out("did not embed all texts") from error
        except AttemptFailed as error:
            error.cost_known = error.cost_known and not batches
            raise
        return embedded(batches, ask, embedding, failures)

    async def close(self) -> None:
        if self._token is not None:
            await self._token.close()

    def url(self, ask: Ask, method: str) -> str:
        """Where a method of the attempt's model is."""
        base = self._base_for_client_key if ask.credential else self._base
        return f"{base}/{_resource(ask.engine or ask.model)}:{method}"

    async def _chat(self, ask: Ask, failures: Failures) -> Request:
        """What asks for a chat, with its images fetched."""
        functions_only, own_tools = split_tools(ask)
        chat, given = read_chat(functions_only, TAKES, failures, drop=self._drop)
        if not (ask.credential or self._stored_files):
            require_no_stored_files(chat, given, failures)
        urls = list(images_in(chat))
        images = await images_of(urls, self._http, failures, private=self._private) if urls else {}
        body = generate_body(
            chat,
            given,
            own_tools,
            images,
            ask.engine or ask.model,
            failures,
            vertex=self._vertex,
            drop=self._drop or bytes(given.get("drop_params", b"")) == b"true",
        )
        method = "streamGenerateContent?alt=sse" if ask.stream else "generateContent"
        return Request(self.url(ask, method), await self._sent_with(ask), body)

    async def _sent_with(self, ask: Ask) -> Mapping[str, str]:
        """All headers. Google's own of the client, which are about accounts, go along only with
        the client's own key."""
        if ask.credential:
            own = {**self._headers_for_client_key, "x-goog-api-key": ask.credential}
            return passed_on(ask.headers, own)
        own = self._headers
        if self._token is not None:
            own = {**own, "Authorization": f"Bearer {await self._token.text()}"}
        return passed_on(_without_google(ask.headers), own)


def _base_url(name: str, config: ProviderConfig) -> str:
    """What stands before `/models/...`. Raises ValueError for a wrong setting."""
    if config.base_url:
        url = URL(config.base_url)
        if url.scheme not in ("http", "https") or not url.host or url.query_string:
            raise ValueError(
                f"providers.{name}.base_url: expected an http(s) URL without a query,"
                f" got {config.base_url!r}"
            )
        return config.base_url.rstrip("/")
    project = config.options.get("project", "")
    if not project:
        if config.region or "credentials_file" in config.options:
            raise ValueError(
                f"providers.{name}.options.project: expected the project that Vertex AI runs in"
            )
        return AI_STUDIO
    region = config.region or "global"
    if region == "global":
        host = _VERTEX
    elif region in _MULTI_REGIONS:
        host = f"aiplatform.{region}.rep.googleapis.com"
    else:
        host = f"{region}-{_VERTEX}"
    if URL(f"https://{host}").host != host:
        raise ValueError(f"providers.{name}.region: expected a region of Google's, got {region!r}")
    project = quote(project, safe="")
    return f"https://{host}/v1/projects/{project}/locations/{region}/publishers/google"


def _token(
    name: str, config: ProviderConfig, http: Http, failures: Failures, clock: Clock
) -> AccessToken:
    key_file = config.options.get("credentials_file") or os.environ.get(
        "GOOGLE_APPLICATION_CREDENTIALS", ""
    )
    if not key_file:
        raise ValueError(
            f"providers.{name}.options.credentials_file: expected the key file of a service"
            " account; GOOGLE_APPLICATION_CREDENTIALS may name it too"
        )
    try:
        source = service_account(key_file, clock)
    except ValueError as error:
        raise ValueError(f"providers.{name}.options.credentials_file: {error}") from error
    return AccessToken(source, http, failures, clock)


def _named(engine: str) -> str:
    """A model within its collection, whichever way it was named."""
    return engine if engine.startswith(_COLLECTIONS) else f"models/{engine}"


def _resource(engine: str) -> str:
    """The path of a model; nothing in a name leaves that path."""
    collection, _, name = _named(engine).partition("/")
    return f"{collection}/{quote(name, safe='')}"


def _without_google(headers: Mapping[str, str]) -> dict[str, str]:
    return {k: v for k, v in headers.items() if not k.lower().startswith("x-goog-")}
