"""The `ollama` dialect: Ollama's own API, `/api/chat` and `/api/embed` (docs.ollama.com/api)."""

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
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
from workers.images import fetches_private, images_of
from workers.ndjson import Lines
from workers.providers.base import NOT_AS_ASKED, Answer, Ask, Deltas, Provider, StreamEnd
from workers.providers.ollama.request import CHAT_TAKES, chat_body, image_urls
from workers.sse import Event
from workers.translated import Choice, Chunks, embeddings_answer, tool_call, whole_answer

_NATIVE_EMBED = frozenset({"keep_alive", "options", "truncate"})
# What the base64 form of an embedding can hold.
_Float32 = Annotated[float, msgspec.Meta(ge=-3.4e38, le=3.4e38)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000_000)]


class _Function(msgspec.Struct):
    """`arguments` is an object, not text with one in it."""

    name: str = ""
    arguments: Raw = Raw()


class _Call(msgspec.Struct):
    """Only newer servers give an id."""

    id: str | None = None
    function: _Function = msgspec.field(default_factory=_Function)


class _Message(msgspec.Struct):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[_Call] | None = None


class _Token(msgspec.Struct):
    token: str
    logprob: float
    top_logprobs: list["_Token"] | None = None


class _Line(msgspec.Struct):
    """A whole answer, or one line of a stream. The counts are read apart: what is wrong with them
    is no reason to lose the answer."""

    message: _Message | None = None
    done: bool = False
    done_reason: str | None = None
    logprobs: list[_Token] | None = None
    prompt_eval_count: Raw = Raw()
    prompt_eval_cached_count: Raw = Raw()
    eval_count: Raw = Raw()
    error: Raw = Raw()


class _Embedded(msgspec.Struct):
    embeddings: list[list[_Float32]]
    prompt_eval_count: Raw = Raw()


_encode = msgspec.json.Encoder().encode
_decode_line = msgspec.json.Decoder(_Line).decode
_decode_embedded = msgspec.json.Decoder(_Embedded).decode
_decode_count = msgspec.json.Decoder(_Count).decode


def create(name: str, config: ProviderConfig, http: Http, clock: Clock) -> Provider:
    return Ollama(name, config, http, clock)


class Ollama:
    """One Ollama server, or ollama.com. A server of one's own needs no key."""

    def __init__(self, name: str, config: ProviderConfig, http: Http, clock: Clock) -> None:
        self.name = name
        self._http = http
        base = _base_url(name, config.base_url)
        self.chat_url = f"{base}/api/chat"
        self.embed_url = f"{base}/api/embed"
        self._drop = config.drop_params
        self._private_images = fetches_private(name, config.options)
        self._headers = {"Content-Type": "application/json", **config.headers}
        self._headers_for_client_key = without_account(self._headers, config.api_key)
        if config.api_key:
            self._headers["Authorization"] = f"Bearer {config.api_key}"
        self._failures = Failures(name, (config.api_key, *config.headers.values()), clock)

    async def complete(self, ask: Ask) -> Answer:
        failures = self._failures.with_client_key(ask.credential)
        request = await self._chat(ask, failures)
        return _chat_answer(await whole(self._http, request, ask, failures), ask, failures)

    async def stream(self, ask: Ask) -> AsyncGenerator[Deltas | StreamEnd, None]:
        failures = self._failures.with_client_key(ask.credential)
        request = await self._chat(ask, failures)
        folder = LineFolder(ask, failures)
        pieces = streamed(self._http, request, ask, failures, Lines(), folder)
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece

    async def embed(self, ask: Ask) -> Answer:
        failures = self._failures.with_client_key(ask.credential)
        takes = _NATIVE_EMBED | {"dimensions"}
        embedding, given = read_embedding(ask, takes, failures, drop=self._drop)
        texts = texts_of(embedding, failures)
        body: dict[str, Any] = {
            "model": ask.engine or ask.model,
            "input": texts,
            **{name: raw for name, raw in given.items() if name in _NATIVE_EMBED},
        }
        if embedding.dimensions is not None:
            body["dimensions"] = embedding.dimensions
        request = Request(self.embed_url, self._passed_on(ask), _encode(body))
        got = await whole(self._http, request, ask, failures)
        embedded = _embedded(got, len(texts), failures)
        return embeddings_answer(
            got,
            ask,
            failures.provider,
            embedded.embeddings,
            read_usage(embedded.prompt_eval_count, Raw(), Raw(b"0")),
            as_base64=embedding.encoding_format == "base64",
        )

    async def close(self) -> None:
        """Holds nothing of its own: the connections belong to the Http."""

    async def _chat(self, ask: Ask, failures: Failures) -> Request:
        chat, given = read_chat(ask, CHAT_TAKES, failures, drop=self._drop)
        images = await images_of(
            image_urls(chat), self._http, failures, private=self._private_images
        )
        drop = self._drop or bytes(given.get("drop_params", b"")) == b"true"
        body = chat_body(ask, chat, given, images, failures, drop=drop)
        return Request(self.chat_url, self._passed_on(ask), body)

    def _passed_on(self, ask: Ask) -> Mapping[str, str]:
        """The client's own key goes without anything of our account."""
        own: Mapping[str, str] = self._headers
        if ask.credential:
            bearer = f"Bearer {ask.credential}"
            own = {**self._headers_for_client_key, "Authorization": bearer}
        return passed_on(ask.headers, own)


def _base_url(name: str, base_url: str) -> str:
    """The server's own root: the `/v1` of its OpenAI-compatible door is cut off."""
    url = URL(base_url)
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"providers.{name}.base_url: expected an http(s) URL, got {base_url!r}")
    path = url.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return str(url.with_path(path)).rstrip("/")


def _chat_answer(got: Whole, ask: Ask, failures: Failures) -> Answer:
    try:
        if not got.body.isascii():
            got.body.decode()
        line = _decode_line(got.body)
    except NOT_AS_ASKED as error:
        raise failures.broken("answered with something that is no chat") from error
    said = line.message
    if said is None or _is_given(line.error):
        if read_detail(got.body).message:
            raise failures.told(got.body)
        raise failures.broken("answered with JSON that is no chat")
    if not line.done:
        raise failures.broken("answered before its answer was complete")
    calls = [
        tool_call(_call_id(call, ask, at), call.function.name, _arguments(call))
        for at, call in enumerate(said.tool_calls or ())
    ]
    message: dict[str, Any] = {"content": said.content or ("" if not calls else None)}
    if said.thinking:
        message["reasoning_content"] = said.thinking
    if calls:
        message["tool_calls"] = calls
    choice = Choice(message, _finish_reason(line, bool(calls)), _logprobs(line.logprobs or ()))
    usage = _usage_of(line)
    answer = whole_answer(got, ask, failures.provider, [choice], usage)
    return answer if usage else answer._replace(usage=_completed(line, answer.usage))


class LineFolder:
    """The lines of one stream; the one that is `done` ends it."""

    def __init__(self, ask: Ask, failures: Failures) -> None:
        self.outgoing = Chunks(ask, failures.provider)
        self._ask = ask
        self._failures = failures
        self._calls = 0
        self._last: _Line | None = None

    @property
    def done(self) -> bool:
        return self._last is not None

    def take(self, event: Event) -> None:
        try:
            line = _decode_line(event.data)
        except NOT_AS_ASKED as error:
            raise self._failures.broken("broke its stream: a line is not as it should be") from (
                error
            )
        if _is_given(line.error):
            raise self._failures.told(event.data)
        if line.message is not None:
            self._take(line.message, line.logprobs)
        if line.done:
            self.outgoing.finish(_finish_reason(line, self._calls > 0))
            self._last = line

    def end(self) -> StreamEnd:
        if self._last is None:
            raise self._failures.broken("ended its stream before the answer was complete")
        usage = _usage_of(self._last)
        end = self.outgoing.end(usage)
        return end if usage else end._replace(usage=_completed(self._last, end.usage))

    def _take(self, said: _Message, logprobs: list[_Token] | None) -> None:
        self.outgoing.reasoning(said.thinking or "")
        self.outgoing.text(said.content or "", logprobs=_logprobs(logprobs) if logprobs else None)
        for call in said.tool_calls or ():
            call_id = _call_id(call, self._ask, self._calls)
            self.outgoing.tool(self._calls, call_id, call.function.name, _arguments(call))
            self._calls += 1


def _call_id(call: _Call, ask: Ask, at: int) -> str:
    """The id of a tool call; without one it is made of our own call's, so that no two calls in a
    conversation share theirs and a repeated answer has the same."""
    return call.id or f"call_{ask.call_id}_{at}"


def _arguments(call: _Call) -> str:
    arguments = call.function.arguments
    return bytes(arguments).decode() if _is_given(arguments) else "{}"


def _finish_reason(line: _Line, called: bool) -> str:
    if called:
        return "tool_calls"
    return "length" if line.done_reason == "length" else "stop"


def _logprobs(tokens: Iterable[_Token]) -> dict[str, Any] | None:
    content = [
        {**_token(one), "top_logprobs": [_token(other) for other in one.top_logprobs or ()]}
        for one in tokens
    ]
    return {"content": content, "refusal": None} if content else None


def _token(one: _Token) -> dict[str, Any]:
    return {"token": one.token, "logprob": one.logprob, "bytes": list(one.token.encode())}


def _usage_of(line: _Line) -> Usage | None:
    return read_usage(line.prompt_eval_count, line.prompt_eval_cached_count, line.eval_count)


def read_usage(prompt: Raw, cached: Raw, output: Raw) -> Usage | None:
    """Ollama's counts: `prompt_eval_count` is the whole prompt, `prompt_eval_cached_count` the part
    of it that came from the cache (`promptEvalCount` of its llm/llama_server.go), `eval_count` the
    answer with its thoughts.

    A count of 0 is left out, and older servers left out that of a prompt that was cached
    (github.com/ollama/ollama/issues/2068): None if one is missing, or the prompt was empty, which
    it never is. Status unknown for what makes no sense.
    """
    try:
        went_in, from_cache, came_out = _count(prompt), _count(cached), _count(output)
    except NOT_AS_ASKED:
        return Usage()
    if not went_in or came_out is None:
        return None
    known = min(from_cache or 0, went_in)
    return Usage(input=went_in - known, cached_input=known, output=came_out, status="reported")


def _completed(line: _Line, guess: Usage) -> Usage:
    """The one count that was told, and an estimate of the other."""
    went_in, came_out = _count(line.prompt_eval_count), _count(line.eval_count)
    return Usage(
        input=went_in or guess.input,
        output=guess.output if came_out is None else came_out,
        status="estimated",
    )


def _count(raw: Raw) -> int | None:
    return _decode_count(raw) if _is_given(raw) else None


def _embedded(got: Whole, count: int, failures: Failures) -> _Embedded:
    """Raises AttemptFailed for an error object, for what is no list of so many vectors, for no
    JSON."""
    try:
        embedded = _decode_embedded(got.body)
    except NOT_AS_ASKED as error:
        if read_detail(got.body).message:
            raise failures.told(got.body) from error
        raise failures.broken("answered with something that is no list of embeddings") from error
    if len(embedded.embeddings) != count:
        raise failures.broken("answered with another number of embeddings than texts")
    return embedded


def _is_given(raw: Raw) -> bool:
    return bytes(raw) not in (b"", b"null")
