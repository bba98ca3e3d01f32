"""The `cohere` dialect: Cohere's API v2, `/chat` and `/embed` (docs.cohere.com/v2/reference)."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Raw
from yarl import URL

from schemas.config import ProviderConfig
from schemas.ids import Clock
from schemas.usage import Usage
from workers.asked import read_chat, read_embedding, texts_of
from workers.exchange import Request, Whole, streamed, whole
from workers.failures import Failures, read_detail
from workers.headers import passed_on, without_account
from workers.http import Http
from workers.providers.base import (
    NOT_AS_ASKED,
    Answer,
    Ask,
    AttemptFailed,
    Deltas,
    Provider,
    StreamEnd,
)
from workers.providers.cohere.answer import EventFolder, chat_answer, embedding_usage
from workers.providers.cohere.request import CHAT_TAKES, chat_body
from workers.sse import Parser
from workers.translated import embeddings_answer

TEXTS_AT_ONCE = 96
_NATIVE_EMBED = frozenset({"input_type", "max_tokens", "priority", "truncate"})
# What the base64 form of an embedding can hold.
_Float32 = Annotated[float, msgspec.Meta(ge=-3.4e38, le=3.4e38)]


class _Vectors(msgspec.Struct):
    floats: list[list[_Float32]] = msgspec.field(name="float")


class _Embedded(msgspec.Struct):
    embeddings: _Vectors
    meta: Raw = Raw()


_encode = msgspec.json.Encoder().encode
_decode_embedded = msgspec.json.Decoder(_Embedded).decode


def create(name: str, config: ProviderConfig, http: Http, clock: Clock) -> Provider:
    return Cohere(name, config, http, clock)


class Cohere:
    """Cohere's own platform, or a private deployment of it."""

    def __init__(self, name: str, config: ProviderConfig, http: Http, clock: Clock) -> None:
        self.name = name
        self._http = http
        base = _base_url(name, config.base_url)
        self.chat_url = f"{base}/chat"
        self.embed_url = f"{base}/embed"
        self._drop = config.drop_params
        self._headers = {"Content-Type": "application/json", **config.headers}
        self._headers_for_client_key = without_account(self._headers, config.api_key)
        if config.api_key:
            self._headers["Authorization"] = f"Bearer {config.api_key}"
        self._failures = Failures(name, (config.api_key, *config.headers.values()), clock)

    async def complete(self, ask: Ask) -> Answer:
        failures = self._failures.with_client_key(ask.credential)
        got = await whole(self._http, self._chat(ask, failures), ask, failures)
        return chat_answer(got, ask, failures)

    def stream(self, ask: Ask) -> AsyncGenerator[Deltas | StreamEnd, None]:
        failures = self._failures.with_client_key(ask.credential)
        request = self._chat(ask, failures)
        folder = EventFolder(ask, failures)
        return streamed(self._http, request, ask, failures, Parser(), folder)

    async def embed(self, ask: Ask) -> Answer:
        """As many requests, one after the other, as Cohere's limit of texts makes necessary; all
        of them together within the total time."""
        failures = self._failures.with_client_key(ask.credential)
        takes = _NATIVE_EMBED | {"dimensions"}
        embedding, given = read_embedding(ask, takes, failures, drop=self._drop)
        texts = texts_of(embedding, failures)
        if not texts:
            raise failures.unsendable("There is nothing to embed: 'input' is empty.", "input")
        body: dict[str, Any] = {
            "model": ask.engine or ask.model,
            "input_type": "search_document",
            "embedding_types": ["float"],
            **{name: raw for name, raw in given.items() if name in _NATIVE_EMBED},
        }
        if embedding.dimensions is not None:
            body["output_dimension"] = embedding.dimensions
        headers = self._passed_on(ask)
        batches: list[_Batch] = []
        try:
            async with asyncio.timeout(ask.timeouts.total):
                for start in range(0, len(texts), TEXTS_AT_ONCE):
                    body["texts"] = texts[start : start + TEXTS_AT_ONCE]
                    request = Request(self.embed_url, headers, _encode(body))
                    got = await whole(self._http, request, ask, failures)
                    batches.append(_Batch(got, len(body["texts"]), failures))
        except TimeoutError as error:
            raise failures.timed_out("did not embed all texts") from error
        except AttemptFailed as error:
            error.cost_known = error.cost_known and not batches
            raise
        return embeddings_answer(
            batches[0].got,
            ask,
            failures.provider,
            [vector for batch in batches for vector in batch.vectors],
            _sum(batch.usage for batch in batches),
            as_base64=embedding.encoding_format == "base64",
        )

    async def close(self) -> None:
        """Holds nothing of its own: the connections belong to the Http."""

    def _chat(self, ask: Ask, failures: Failures) -> Request:
        chat, given = read_chat(ask, CHAT_TAKES, failures, drop=self._drop)
        body = chat_body(ask, chat, given, failures)
        return Request(self.chat_url, self._passed_on(ask), body)

    def _passed_on(self, ask: Ask) -> Mapping[str, str]:
        """The client's own key goes without anything of our account."""
        own: Mapping[str, str] = self._headers
        if ask.credential:
            bearer = f"Bearer {ask.credential}"
            own = {**self._headers_for_client_key, "Authorization": bearer}
        return passed_on(ask.headers, own)


def _base_url(name: str, base_url: str) -> str:
    """A base URL without a path gets `/v2`."""
    url = URL(base_url)
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"providers.{name}.base_url: expected an http(s) URL, got {base_url!r}")
    return str(url.with_path(url.path.rstrip("/") or "/v2"))


class _Batch:
    """One answer of `/embed`: the vectors of `count` texts, and what they cost.

    Raises AttemptFailed for an error object, for what is no list of so many vectors, for no JSON.
    """

    def __init__(self, got: Whole, count: int, failures: Failures) -> None:
        self.got = got
        try:
            embedded = _decode_embedded(got.body)
        except NOT_AS_ASKED as error:
            if read_detail(got.body).message:
                raise failures.told(got.body) from error
            raise failures.broken("answered with something that is no list of embeddings") from (
                error
            )
        self.vectors = embedded.embeddings.floats
        if len(self.vectors) != count:
            raise failures.broken("answered with another number of embeddings than texts")
        self.usage = embedding_usage(embedded.meta)


def _sum(usages: Iterable[Usage | None]) -> Usage | None:
    """The usage of all batches, as well known as that of the least known one."""
    total = 0
    for usage in usages:
        if usage is None or usage.status == "unknown":
            return usage
        total += usage.input
    return Usage(input=total, status="reported")
