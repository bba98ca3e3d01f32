"""The `openai` dialect: OpenAI itself and every server that speaks its chat completions."""

from collections.abc import AsyncGenerator, Mapping

from yarl import URL

from schemas.config import ProviderConfig
from schemas.ids import Clock
from workers.canonical import ChunkFolder, canonical_answer, canonical_request
from workers.failures import Failures, read_detail
from workers.headers import passed_on, without_account
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
        self._headers_for_client_key = without_account(self._headers, config.api_key)
        if config.api_key:
            self._headers["Authorization"] = f"Bearer {config.api_key}"
        self._failures = Failures(name, (config.api_key, *config.headers.values()), clock)

    async def complete(self, ask: Ask) -> Answer:
        failures = self._failures.with_client_key(ask.credential)
        reply = await self._post(ask, failures)
        try:
            body = await reply.read()
        finally:
            reply.close()
        return canonical_answer(body, ask, failures, first_byte=reply.first_byte, sent=reply.sent)

    async def stream(self, ask: Ask) -> AsyncGenerator[Deltas | StreamEnd, None]:
        shown = False
        failures = self._failures.with_client_key(ask.credential)
        reply = await self._post(ask, failures)
        try:
            if reply.content_type in _NO_STREAM:
                raise _not_a_stream(await reply.read_error(), failures)
            parser, chunks = Parser(), ChunkFolder(ask, failures)
            while not chunks.done and (block := await reply.next_block()):
                failed: AttemptFailed | None = None
                try:
                    chunks.take(parser.feed(block))
                except BrokenStream as error:
                    failed = failures.broken(f"broke its stream: {error}")
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

    async def _post(self, ask: Ask, failures: Failures) -> Reply:
        """The answer's head, if it is a success; else what the provider said as AttemptFailed."""
        reply = await self._http.post(
            self.url,
            headers=passed_on(ask.headers, self._own_headers(ask.credential), self._vendor),
            body=canonical_request(ask, failures),
            timeouts=ask.timeouts,
            stream=ask.stream,
            failures=failures,
        )
        if reply.status // 100 == 2:
            return reply
        try:
            body = await reply.read_error()
        finally:
            reply.close()
        raise failures.refused(reply.status, reply.headers, body)

    def _own_headers(self, client_key: str) -> Mapping[str, str]:
        """What we set ourselves; the client's own key goes without anything of our account."""
        if not client_key:
            return self._headers
        return {**self._headers_for_client_key, "Authorization": f"Bearer {client_key}"}


def _not_a_stream(body: bytes, failures: Failures) -> AttemptFailed:
    if read_detail(body).message:
        return failures.told(body)
    return failures.broken("answered a stream request with something else")


def _chat_url(name: str, base_url: str) -> str:
    """Where chats go; a base URL without a path gets `/v1`, a query in it stays."""
    url = URL(base_url)
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"providers.{name}.base_url: expected an http(s) URL, got {base_url!r}")
    path = url.path.rstrip("/") or "/v1"
    return str(url.with_path(f"{path}/chat/completions", keep_query=True))
