"""The `mock` provider: answers in process, the same to the same request, and fails on demand.

What it does is scripted by the request header `X-Mock`, over what `options.script` of the provider
says; both read `name=value,name=value`, see `Script`. A token is a word, in and out.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from schemas.config import ProviderConfig
from schemas.ids import Clock
from schemas.usage import Usage
from workers.asked import read_embedding, texts_of
from workers.exchange import Whole
from workers.failures import Failures
from workers.http import Http
from workers.providers.base import (
    NOT_AS_ASKED,
    Answer,
    Ask,
    AttemptFailed,
    Deltas,
    Provider,
    StreamEnd,
    text_size,
)
from workers.providers.mock.script import (
    Script,
    Take,
    delta,
    finish,
    plan,
    read_script,
    usage_of,
    vector_of,
    whole_choices,
)
from workers.translated import embeddings_answer

_SCRIPT_HEADER = "x-mock"
_REMEMBERED_CALLS = 1000

_encode = msgspec.json.Encoder().encode


def create(name: str, config: ProviderConfig, http: Http, clock: Clock) -> Provider:
    return Mock(name, config, clock)


@dataclass(slots=True)
class Meter:
    """What the mock has done so far, as a provider's own bill would count it."""

    calls: int = 0
    failed: int = 0
    cancelled: int = 0
    running: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Mock:
    """A provider without a network; `meter` may be read at any time."""

    def __init__(self, name: str, config: ProviderConfig, clock: Clock) -> None:
        self.name = name
        self.meter = Meter()
        self._clock = clock
        self._failures = Failures(name, (), clock)
        self._attempts: dict[str, int] = {}
        self._script = config.options.get("script", "")
        try:
            read_script(self._script)
        except ValueError as error:
            raise ValueError(f"providers.{name}.options.script: {error}") from error

    async def complete(self, ask: Ask) -> Answer:
        sent = self._clock.monotonic()
        take = self._prepare(ask)
        with self._metered(take.prompt_tokens):
            pause = math.inf if take.script.hang else take.script.latency
            await self._wait(pause, ask.timeouts.total)
            first_byte = self._clock.monotonic()
            self._break_off(take.script, ask)
            for piece in take.pieces:
                self._count(take, piece)
        usage = usage_of(take, ask)
        body = {**self._head(ask, "chat.completion"), "choices": whole_choices(take, ask)}
        if usage.status == "reported":
            body["usage"] = {
                "prompt_tokens": usage.prompt,
                "completion_tokens": usage.completion,
                "total_tokens": usage.prompt + usage.completion,
            }
        return Answer(_encode(body), usage, take.finish_reason, first_byte, sent)

    async def stream(self, ask: Ask) -> AsyncGenerator[Deltas | StreamEnd, None]:
        sent = self._clock.monotonic()
        take = self._prepare(ask)
        script, length = take.script, len(take.pieces)
        hangs_at = {"": None, "first": 0, "mid": max(1, length // 2)}[script.hang]
        breaks_at = min(length, script.status_after if script.cut is None else script.cut)
        head = self._head(ask, "chat.completion.chunk")
        first_byte = 0.0
        with self._metered(take.prompt_tokens):
            for at in range(length + 1):
                pause = script.interval if at else script.latency
                within = ask.timeouts.idle if at else ask.timeouts.first_byte
                try:
                    await self._wait(math.inf if at == hangs_at else pause, within)
                    if at == breaks_at:
                        self._break_off(script, ask)
                except AttemptFailed as failed:
                    failed.retryable = failed.retryable and at == 0
                    raise
                if at == length:
                    break
                first_byte = first_byte or self._clock.monotonic()
                self._count(take, take.pieces[at])
                size = take.choices * text_size("".join(take.pieces[at]))
                deltas = (delta(take, ask, choice, at) for choice in range(take.choices))
                yield Deltas(_chunks(head, deltas), first_byte, sent, size)
        *ends, last = _chunks(head, (finish(take, choice) for choice in range(take.choices)))
        if ends:
            yield Deltas(tuple(ends), first_byte, sent, 0)
        yield StreamEnd(last, usage_of(take, ask), take.finish_reason)

    async def embed(self, ask: Ask) -> Answer:
        """The same vector for the same text, of length 1; `dimensions` long, else 8 numbers."""
        sent = self._clock.monotonic()
        script = self._script_of(ask)
        embedding, _ = read_embedding(ask, frozenset({"dimensions"}), self._failures, drop=True)
        texts = texts_of(embedding, self._failures)
        tokens = sum(len(text.split()) for text in texts)
        with self._metered(tokens):
            pause = math.inf if script.hang else script.latency
            await self._wait(pause, ask.timeouts.total)
            first_byte = self._clock.monotonic()
            self._break_off(script, ask)
        vectors = [vector_of(text, embedding.dimensions or 8) for text in texts]
        usage = Usage(input=tokens, status="reported")
        got = Whole(b"", first_byte, sent)
        as_base64 = embedding.encoding_format == "base64"
        return embeddings_answer(got, ask, self.name, vectors, usage, as_base64=as_base64)

    async def close(self) -> None:
        """Holds nothing."""

    def _prepare(self, ask: Ask) -> Take:
        """What to do, from script and request; AttemptFailed (400) for what makes no sense."""
        try:
            return plan(self._script_of(ask), ask.body)
        except NOT_AS_ASKED as error:
            raise self._failures.unsendable(str(error)) from error

    def _script_of(self, ask: Ask) -> Script:
        """The script for an attempt; AttemptFailed (400) for one that makes no sense."""
        header = next((v for k, v in ask.headers.items() if k.lower() == _SCRIPT_HEADER), "")
        try:
            script = read_script(self._script, header)
        except ValueError as error:
            raise self._failures.unsendable(f"X-Mock: {error}", "X-Mock") from error
        if script.fails and self._attempt_of(ask.call_id) > script.fails:
            script = msgspec.structs.replace(script, error=None, cut=None, hang="")
        return script

    def _attempt_of(self, call_id: str) -> int:
        """The how manieth attempt of a call this is, as far as this process remembers."""
        attempt = self._attempts.pop(call_id, 0) + 1
        self._attempts[call_id] = attempt
        if len(self._attempts) > _REMEMBERED_CALLS:
            del self._attempts[next(iter(self._attempts))]
        return attempt

    def _break_off(self, script: Script, ask: Ask) -> None:
        """Fails as the script says, if it does; by the same road as a real provider's errors."""
        if script.cut is not None:
            raise self._failures.broken("broke off in the middle of its answer")
        if script.error is not None:
            message = f"The mock provider fails with status {script.error}, as its script says."
            wait = script.retry_after
            headers = {} if wait is None else {"Retry-After": str(wait)}
            body = _encode({"error": {"message": message}})
            failures = self._failures.with_client_key(ask.credential)
            raise failures.refused(script.error, headers, body)

    async def _wait(self, seconds: float, within: float) -> None:
        await asyncio.sleep(min(seconds, within))
        if seconds > within:
            raise self._failures.timed_out("did not go on with its answer")

    @contextmanager
    def _metered(self, prompt_tokens: int) -> Iterator[None]:
        self.meter.calls += 1
        self.meter.running += 1
        self.meter.prompt_tokens += prompt_tokens
        try:
            yield
        except AttemptFailed:
            self.meter.failed += 1
            raise
        except (asyncio.CancelledError, GeneratorExit):
            self.meter.cancelled += 1
            raise
        finally:
            self.meter.running -= 1

    def _count(self, take: Take, piece: tuple[str, ...]) -> None:
        self.meter.completion_tokens += take.choices * len(piece)

    def _head(self, ask: Ask, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{ask.call_id}",
            "object": kind,
            "created": ask.created,
            "model": ask.model,
            "provider": self.name,
        }


def _chunks(head: dict[str, Any], choices: Iterable[dict[str, Any]]) -> tuple[bytes, ...]:
    """One chunk for each choice."""
    return tuple(_encode({**head, "choices": [choice]}) for choice in choices)
