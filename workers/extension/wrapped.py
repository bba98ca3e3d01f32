"""A provider class of document 001 (`complete`, `stream`, `count_tokens`) as a Provider.

Its methods run apart from the worker's loop. What they give is made OpenAI-shaped, what they raise
is told by the error table, and what they do not give in time is given up.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from functools import partial
from traceback import extract_tb
from typing import Any, NamedTuple

import msgspec

from schemas.config import SECRET_OPTIONS, ProviderConfig, Unusable
from schemas.ids import Clock
from schemas.usage import Usage
from workers.asked import cannot, not_taken, says_nothing
from workers.canonical import ChunkFolder, canonical_answer
from workers.exchange import Whole
from workers.extension.apart import Apart, Raised
from workers.extension.foreign import Piece, chunk_of, failure_of, last_chunk, prompt_text, whole_of
from workers.extension.shape import Shape
from workers.failures import Failures
from workers.providers.base import (
    BYTES_PER_TOKEN,
    NOT_AS_ASKED,
    Answer,
    Ask,
    AttemptFailed,
    Deltas,
    StreamEnd,
    estimate_usage,
)
from workers.sse import Event

_MADE_WITHIN = 30.0
_COUNTED_WITHIN = 5.0
_CLOSED_WITHIN = 1.0
# What the gateway sees to itself, or what tells a provider nothing about the answer.
_NOT_PASSED = frozenset(
    {
        "drop_params",
        "messages",
        "metadata",
        "model",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "store",
        "stream",
        "stream_options",
    }
)
_END = object()

log = logging.getLogger("nexus.worker")

_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class _Asked(NamedTuple):
    """What a method is called with."""

    messages: list[Any]
    model: str
    parameters: dict[str, Any]


def wrap(given: type, name: str, config: ProviderConfig, clock: Clock) -> "Wrapped":
    """A provider of this class. Raises Unusable if it has another shape, does not take the settings
    or cannot be made of them."""
    shape = Shape.of(given, name, config)
    apart = Apart(name, config.concurrency)
    provider = Wrapped(shape, name, config, apart, clock)
    if config.client_keys != "required":
        try:
            provider.own = apart.wait(provider.made(), _MADE_WITHIN)
        except (Raised, TimeoutError) as error:
            apart.stop()
            cause = error.error if isinstance(error, Raised) else error
            why = f"{type(cause).__name__}: {cause}".rstrip(": ")
            raise Unusable(f"{given.__name__}() cannot be made: {why}") from error
    return provider


class Wrapped:
    """One instance of the class for the gateway's own key, and a new one for each call with a key
    of the client's own."""

    def __init__(
        self, shape: Shape, name: str, config: ProviderConfig, apart: Apart, clock: Clock
    ) -> None:
        self.name = name
        self.own: Any = None
        self._shape = shape
        self._config = config
        self._apart = apart
        self._clock = clock
        secrets = [config.options.get(option, "") for option in SECRET_OPTIONS]
        self._failures = Failures(
            name, (config.api_key, *config.headers.values(), *filter(None, secrets)), clock
        )

    async def complete(self, ask: Ask) -> Answer:
        failures = self._failures.with_client_key(ask.credential)
        asked = self._asked(ask, "complete", failures)
        sent = self._clock.monotonic()
        with self._told(failures):
            async with asyncio.timeout(ask.timeouts.total):
                piece = await self._apart.run(self._whole(asked, ask.credential))
        got = Whole(piece.data, self._clock.monotonic(), sent)
        answer = canonical_answer(got, ask, failures)
        return answer._replace(usage=await self._usage(answer.usage, ask, asked, piece.text))

    async def stream(self, ask: Ask) -> AsyncGenerator[Deltas | StreamEnd, None]:
        failures = self._failures.with_client_key(ask.credential)
        asked = self._asked(ask, "stream", failures)
        folder = ChunkFolder(ask, failures)
        said: list[str] = []
        sent, first_byte = self._clock.monotonic(), 0.0
        try:
            async with aclosing(self._apart.relay(self._pieces(asked, ask.credential))) as batches:
                patience = ask.timeouts.first_byte
                while (batch := await self._next(batches, patience, failures)) is not None:
                    first_byte = first_byte or self._clock.monotonic()
                    patience = ask.timeouts.idle
                    said += [piece.text for piece in batch]
                    failed = _taken(folder, batch)
                    if folder.outgoing.parts:
                        yield folder.outgoing.deltas(first_byte=first_byte, sent=sent)
                    if failed is not None:
                        raise failed
            end = folder.end()
            yield end._replace(usage=await self._usage(end.usage, ask, asked, "".join(said)))
        except AttemptFailed as failed:
            failed.retryable = failed.retryable and not first_byte
            raise

    async def embed(self, ask: Ask) -> Answer:
        raise cannot("embed", "model", self._failures.with_client_key(ask.credential))

    async def close(self) -> None:
        with suppress(Raised, TimeoutError):
            async with asyncio.timeout(_CLOSED_WITHIN):
                await self._apart.run(self._closed(self.own))
        await asyncio.to_thread(self._apart.stop)

    async def made(self, client_key: str = "") -> Any:
        """Apart: an instance for the gateway's key, or for a client's."""
        return self._shape.make(client_key)

    def _asked(self, ask: Ask, method: str, failures: Failures) -> _Asked:
        """Raises AttemptFailed (400) for a parameter that the method does not take, unless it is to
        be left out, and for a client's own key where there is no way to use it."""
        if ask.credential and not self._shape.takes_keys:
            raise failures.unsendable(
                f"{self.name} cannot use a key of your own: leave X-Nexus-Provider-Key out."
            )
        takes = self._shape.takes[method]
        try:
            fields = _decode_fields(ask.body)
            drop = self._config.drop_params or bytes(fields.get("drop_params", b"")) == b"true"
            parameters = {}
            for name, raw in fields.items():
                if name in takes and bytes(raw) != b"null":
                    parameters[name] = msgspec.json.decode(raw)
                elif not (name in _NOT_PASSED or drop or says_nothing(name, raw)):
                    raise not_taken(name, failures)
            messages = msgspec.json.decode(fields.get("messages", b"null"), type=list[Any])
        except NOT_AS_ASKED as error:
            raise failures.unsendable(f"The request cannot be passed on: {error}") from error
        return _Asked(messages, ask.engine or ask.model, parameters)

    async def _whole(self, asked: _Asked, client_key: str) -> Piece:
        """Apart: the whole answer."""
        async with self._instance(client_key) as provider:
            given = await self._apart.call(
                provider.complete, asked.messages, asked.model, **asked.parameters
            )
            return whole_of(given)

    async def _pieces(self, asked: _Asked, client_key: str) -> AsyncGenerator[Piece, None]:
        """Apart: the pieces of a stream; one that was all text gets its end."""
        plain = False
        async with self._instance(client_key) as provider:
            given = await self._apart.call(
                provider.stream, asked.messages, asked.model, **asked.parameters
            )
            async with aclosing(self._each(given)) as items:
                async for item in items:
                    piece = chunk_of(item)
                    plain = piece.plain
                    yield piece
        if plain:
            yield last_chunk()

    async def _each(self, given: Any) -> AsyncGenerator[Any, None]:
        """Apart: what an iterable gives, asynchronous or not."""
        if hasattr(given, "__aiter__"):
            try:
                async for item in given:
                    yield item
            finally:
                await self._closed(given)
        elif isinstance(given, str | Mapping):
            raise TypeError("a stream that is none")
        else:
            rest = iter(given)
            while (item := await self._apart.in_thread(partial(next, rest, _END))) is not _END:
                yield item

    async def _next(
        self, batches: AsyncGenerator[list[Piece], None], patience: float, failures: Failures
    ) -> list[Piece] | None:
        with self._told(failures):
            async with asyncio.timeout(patience):
                return await anext(batches, None)

    @asynccontextmanager
    async def _instance(self, client_key: str) -> AsyncIterator[Any]:
        """Apart: the gateway's own instance, or one for this use alone."""
        if not client_key:
            yield self.own
            return
        provider = await self.made(client_key)
        try:
            yield provider
        finally:
            await self._closed(provider)

    async def _closed(self, thing: Any) -> None:
        """Apart: closes what can be closed."""
        close = getattr(thing, "aclose", None) or getattr(thing, "close", None)
        if callable(close):
            await self._apart.call(close)

    async def _usage(self, usage: Usage, ask: Ask, asked: _Asked, said: str) -> Usage:
        """The usage as reported, else as the class counts it, else at four bytes a token."""
        if usage.status != "estimated" or not self._shape.counts:
            return usage
        prompt = prompt_text(asked.messages, asked.parameters.get("tools"))
        try:
            async with asyncio.timeout(_COUNTED_WITHIN):
                went_in, came_out = await self._apart.run(
                    self._counted((prompt, said), asked.model, ask.credential)
                )
        except (Raised, TimeoutError) as error:
            log.warning("tokens could not be counted", extra=self._place(error))
            return usage
        # Never more came out than was asked for, as in every estimate.
        limited = estimate_usage(ask.body, came_out * BYTES_PER_TOKEN)
        return msgspec.structs.replace(limited, input=went_in)

    async def _counted(self, texts: tuple[str, ...], model: str, client_key: str) -> list[int]:
        """Apart: the tokens of each text; a token has at least a byte."""
        async with self._instance(client_key) as provider:
            counts = [
                int(await self._apart.call(provider.count_tokens, text, model)) for text in texts
            ]
        for count, text in zip(counts, texts, strict=True):
            if not 0 <= count <= len(text.encode()):
                raise ValueError("a number of tokens that cannot be")
        return counts

    @contextmanager
    def _told(self, failures: Failures) -> Iterator[None]:
        """What goes wrong as AttemptFailed; the log says where, and not what: it may be secret."""
        try:
            yield
        except TimeoutError as error:
            raise failures.timed_out("did not go on with its answer") from error
        except Raised as raised:
            log.warning("the code of a provider failed", extra=self._place(raised))
            raise failure_of(raised.error, failures) from raised

    def _place(self, error: Exception) -> dict[str, str]:
        cause = error.error if isinstance(error, Raised) else error
        frames = extract_tb(cause.__traceback__)
        place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        return {"provider": self.name, "kind": type(cause).__name__, "place": place}


def _taken(folder: ChunkFolder, batch: list[Piece]) -> AttemptFailed | None:
    """Lets the folder take the pieces; the failure that stopped it, if one did."""
    try:
        for piece in batch:
            folder.take(Event(piece.data))
    except AttemptFailed as failed:
        return failed
    return None
