"""The `openai` dialect: OpenAI itself and every server that speaks its chat completions."""

from collections.abc import AsyncGenerator

from yarl import URL

from schemas.config import ProviderConfig
from schemas.ids import Clock
from workers.canonical import ChunkFolder, canonical_answer, canonical_request
from workers.failures import Failures, read_detail
from workers.headers import passed_on
from workers.http import Http
from workers.providers.base import Answer, Ask, AttemptFailed, Deltas, Provider, StreamEnd
from workers.reply import Reply
from workers.sse import BrokenStream, Parser

_NO_STREAM = frozenset({"application/json", "text/html"})


def create(name: str, config: ProviderConfig, http: Http, clock: Clock) -> Provider:
    return OpenAI(name, config, http, clock)


class OpenAI:
    """One OpenAI-compatible server."""

    def __init__(self, name: str, config: ProviderConfig, http: Http, clock: Clock) -> None:
        self.name = name
        self._http = http
        self.url = _chat_url(name, config.base_url)
        is_openai = name == "openai" or (URL(self.url).host or "").endswith(".openai.com")
        self._vendor = "openai" if is_openai else ""
        self._headers = {"Content-Type": "application/json", **config.headers}
        if config.api_key:
            self._headers["Authorization"] = f"Bearer {config.api_key}"
        self._failures = Failures(name, (config.api_key, *config.headers.values()), clock)

    async def complete(self, ask: Ask) -> Answer:
        reply = await self._post(ask)
        try:
            body = await reply.read()
        finally:
            reply.close()
        return canonical_answer(
            body, ask, self._failures, first_byte=reply.first_byte, sent=reply.sent
        )

    async def stream(self, ask: Ask) -> AsyncGenerator[Deltas | StreamEnd, None]:
        shown = False
        reply = await self._post(ask)
        try:
            if reply.content_type in _NO_STREAM:
                raise self._not_a_stream(await reply.read_error())
            parser, chunks = Parser(), ChunkFolder(ask, self._failures)
            while not chunks.done and (block := await reply.next_block()):
                failed: AttemptFailed | None = None
                try:
                    chunks.take(parser.feed(block))
                except BrokenStream as error:
                    failed = self._failures.broken(f"broke its stream: {error}")
                except AttemptFailed as error:
                    failed = error
                if chunks.parts:
                    shown = True
                    yield chunks.deltas(first_byte=reply.first_byte, sent=reply.sent)
                if failed is not None:
                    raise failed
            end = chunks.end()
            if chunks.done:
                reply.leave()
            yield end
        except AttemptFailed as error:
            error.retryable = error.retryable and not shown
            raise
        finally:
            reply.close()

    async def close(self) -> None:
        """Holds nothing of its own: the connections belong to the Http."""

    async def _post(self, ask: Ask) -> Reply:
        """The answer's head, if it is a success; else what the provider said as AttemptFailed."""
        reply = await self._http.post(
            self.url,
            headers=passed_on(ask.headers, self._headers, self._vendor),
            body=canonical_request(ask, self._failures),
            timeouts=ask.timeouts,
            stream=ask.stream,
            failures=self._failures,
        )
        if reply.status // 100 == 2:
            return reply
        try:
            body = await reply.read_error()
        finally:
            reply.close()
        raise self._failures.refused(reply.status, reply.headers, body)

    def _not_a_stream(self, body: bytes) -> AttemptFailed:
        if read_detail(body).message:
            return self._failures.told(body)
        return self._failures.broken("answered a stream request with something else")


def _chat_url(name: str, base_url: str) -> str:
    """Where chats go; a base URL without a path gets `/v1`, a query in it stays."""
    url = URL(base_url)
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"providers.{name}.base_url: expected an http(s) URL, got {base_url!r}")
    path = url.path.rstrip("/") or "/v1"
    return str(url.with_path(f"{path}/chat/completions", keep_query=True))
