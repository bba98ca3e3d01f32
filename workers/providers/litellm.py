"""The `litellm` dialect: whatever the LiteLLM library can reach, for what has no adapter here.

The library is an optional extra (`nexus-gateway[litellm]`). It is loaded when a worker first needs
it, and never fetches its price data. Without a key of its own a provider's keys are read from the
worker's environment, by the names that LiteLLM gives them.
"""

import asyncio
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from schemas.config import ProviderConfig
from schemas.ids import Clock
from workers.asked import not_taken, says_nothing
from workers.canonical import ChunkFolder, canonical_answer, canonical_embeddings
from workers.exchange import Whole
from workers.failures import Failures
from workers.headers import passed_on
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
from workers.sse import Event

# Everything else that the library takes by name is the operator's business: where to send a
# request and with which key.
_TAKEN = frozenset(
    {
        "audio",
        "dimensions",
        "encoding_format",
        "frequency_penalty",
        "function_call",
        "functions",
        "input",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "modalities",
        "n",
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "reasoning_effort",
        "response_format",
        "seed",
        "service_tier",
        "stop",
        "temperature",
        "thinking",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "user",
    }
)
_OURS = frozenset({"drop_params", "metadata", "model", "store", "stream", "stream_options"})
_NEEDS_NO_NETWORK = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_BLOG_POSTS": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
}

_WORD = re.compile(r"\w+")
_encode = msgspec.json.Encoder().encode
_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode


def create(name: str, config: ProviderConfig, http: Http, clock: Clock) -> Provider:
    if find_spec("litellm") is None:
        raise ValueError(
            f"providers.{name}.dialect: LiteLLM is not installed here:"
            " pip install 'nexus-gateway[litellm]'"
        )
    return LiteLLM(name, config, clock)


class _Sent(NamedTuple):
    """What the library is called with, and when (monotonic seconds)."""

    arguments: dict[str, Any]
    at: float


class LiteLLM:
    """LiteLLM, in the process of the worker; an engine is a name as LiteLLM has it, or as the
    provider has it that `options.provider` names."""

    def __init__(self, name: str, config: ProviderConfig, clock: Clock) -> None:
        self.name = name
        self._config = config
        self._clock = clock
        self._failures = Failures(name, (config.api_key, *config.headers.values()), clock)
        self._library: Any = None
        self._loading = asyncio.Lock()

    async def complete(self, ask: Ask) -> Answer:
        failures = self._failures.with_client_key(ask.credential)
        library, sent = await self._prepared(ask, failures)
        async with _errors(failures), asyncio.timeout(ask.timeouts.total):
            answer = await library.acompletion(**sent.arguments)
        return canonical_answer(self._whole(answer, sent), ask, failures)

    async def stream(self, ask: Ask) -> AsyncGenerator[Deltas | StreamEnd, None]:
        failures = self._failures.with_client_key(ask.credential)
        library, sent = await self._prepared(ask, failures)
        folder = ChunkFolder(ask, failures)
        first_byte = 0.0
        chunks: Any = None
        try:
            async with _errors(failures), asyncio.timeout(ask.timeouts.first_byte):
                chunks = await library.acompletion(
                    **sent.arguments, stream=True, stream_options={"include_usage": True}
                )
            while True:
                patience = ask.timeouts.idle if first_byte else ask.timeouts.first_byte
                async with _errors(failures), asyncio.timeout(patience):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    break
                first_byte = first_byte or self._clock.monotonic()
                folder.take(_event(chunk))
                if folder.outgoing.parts:
                    yield folder.outgoing.deltas(first_byte=first_byte, sent=sent.at)
            if chunks.received_finish_reason is None:
                # The library ends a stream well that has broken off.
                raise failures.broken("ended its stream before the answer was complete")
            if any(getattr(one, "usage", None) for one in chunks.chunks):
                folder.take(_usage_event(chunks))
            yield folder.end()
        except AttemptFailed as failed:
            failed.retryable = failed.retryable and not first_byte
            raise
        finally:
            if chunks is not None:
                await chunks.aclose()

    async def embed(self, ask: Ask) -> Answer:
        failures = self._failures.with_client_key(ask.credential)
        library, sent = await self._prepared(ask, failures)
        async with _errors(failures), asyncio.timeout(ask.timeouts.total):
            answer = await library.aembedding(**sent.arguments)
        return canonical_embeddings(self._whole(answer, sent), ask, failures)

    async def close(self) -> None:
        if self._library is not None:
            await self._library.close_litellm_async_clients()

    async def _prepared(self, ask: Ask, failures: Failures) -> tuple[Any, _Sent]:
        """The library, and what to call it with."""
        arguments = self._arguments(ask, failures)
        return await self._loaded(), _Sent(arguments, self._clock.monotonic())

    async def _loaded(self) -> Any:
        """The library; its import takes seconds, and the other calls of this worker go on."""
        async with self._loading:
            if self._library is None:
                self._library = await asyncio.to_thread(_load)
        return self._library

    def _arguments(self, ask: Ask, failures: Failures) -> dict[str, Any]:
        try:
            fields = _decode_fields(ask.body)
            drop = self._config.drop_params or bytes(fields.get("drop_params", b"")) == b"true"
            for name, value in fields.items():
                # Of several choices in a stream the library loses all ends but one.
                known = (name in _TAKEN or name in _OURS) and not (ask.stream and name == "n")
                if not (known or drop or says_nothing(name, value)):
                    raise not_taken(name, failures)
            given = {
                name: msgspec.json.decode(value)
                for name, value in fields.items()
                if name in _TAKEN and bytes(value) != b"null" and not (ask.stream and name == "n")
            }
        except NOT_AS_ASKED as error:
            raise failures.unsendable(f"The request cannot be passed on: {error}") from error
        arguments = {
            **given,
            "model": ask.engine or ask.model,
            "drop_params": drop,
            "num_retries": 0,
            "max_retries": 0,
            "timeout": ask.timeouts.total,
        }
        if provider := self._config.options.get("provider"):
            arguments["custom_llm_provider"] = provider
        if key := ask.credential or self._config.api_key:
            arguments["api_key"] = key
        if self._config.base_url:
            arguments["api_base"] = self._config.base_url
        headers = passed_on(ask.headers, {} if ask.credential else self._config.headers)
        if headers:
            arguments["extra_headers"] = dict(headers)
        return arguments

    def _whole(self, answer: Any, sent: _Sent) -> Whole:
        fields = answer.model_dump(exclude_none=True)
        usage = fields.get("usage") or {}
        if not usage.get("prompt_tokens"):
            # No call takes nothing in: the provider has reported nothing.
            fields.pop("usage", None)
        return Whole(_encode(fields), self._clock.monotonic(), sent.at)


def _event(chunk: Any) -> Event:
    """A chunk of the library as an OpenAI-compatible server would send it, without usage: what
    the library says of it may be its own count."""
    fields = chunk.model_dump(exclude_none=True)
    is_usage = fields.pop("usage", None) is not None
    choices = [{"finish_reason": None, **choice} for choice in fields.get("choices", ())]
    if is_usage and not any(one["delta"] or one["finish_reason"] for one in choices):
        return Event(b"")
    return Event(_encode({**fields, "choices": choices}))


def _usage_event(chunks: Any) -> Event:
    """What the provider has reported at the end of its stream."""
    told = [usage for one in chunks.chunks if (usage := getattr(one, "usage", None))]
    return Event(_encode({"choices": [], "usage": told[-1].model_dump(exclude_none=True)}))


def _load() -> Any:
    for variable, value in _NEEDS_NO_NETWORK.items():
        os.environ.setdefault(variable, value)
    library: Any = import_module("litellm")
    library.telemetry = False
    library.suppress_debug_info = True
    return library


@asynccontextmanager
async def _errors(failures: Failures) -> AsyncIterator[None]:
    """The library's exceptions as failures by the table; it makes one for every status."""
    try:
        yield
    except TimeoutError as error:
        raise failures.timed_out("did not go on with its answer") from error
    except (AttemptFailed, asyncio.CancelledError):
        raise
    except Exception as error:
        raise _failed(error, failures) from error


def _failed(error: Exception, failures: Failures) -> AttemptFailed:
    status = getattr(error, "status_code", None)
    kind = type(error).__name__
    if kind == "Timeout":
        return failures.timed_out("did not answer")
    if kind == "APIConnectionError" or not isinstance(status, int) or not 400 <= status <= 599:
        return failures.broken(f"could not be asked through LiteLLM ({kind})")
    said = getattr(error, "message", "") or str(error)
    if kind == "UnsupportedParamsError":
        return _unsupported(said, failures)
    # `litellm.RateLimitError: RateLimitError: OpenAIException - <what the provider said>`
    body = {"error": {"message": said.partition("Exception - ")[2] or said}}
    headers = getattr(error, "litellm_response_headers", None) or {}
    return failures.refused(status, headers, _encode(body))


def _unsupported(said: str, failures: Failures) -> AttemptFailed:
    """The library sends nothing where it thinks that a model lacks what it was asked for; its
    message begins with what that is."""
    named = next((word for word in _WORD.findall(said) if word in _TAKEN), None)
    return failures.unsendable(said) if named is None else not_taken(named, failures)
