"""OpenAI-shaped answers on their way to the client: made our own, measured, else left alone.

Objects are decoded one level deep only. What is not used here travels as the bytes that came:
unknown fields, numbers and the order of keys survive.
"""

from typing import Any

import msgspec

from workers.asked import present
from workers.canonical_usage import embedding_usage, read_usage
from workers.exchange import Whole
from workers.failures import Failures
from workers.outgoing import Outgoing
from workers.providers.base import (
    NOT_AS_ASKED,
    Answer,
    Ask,
    StreamEnd,
    estimate_usage,
    text_size,
)
from workers.sse import Event

Raw = msgspec.Raw


class _Text(msgspec.Struct):
    """The parts of a message or a delta that hold text; servers differ in all of them."""

    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    refusal: Any = None
    tool_calls: Any = None
    function_call: Any = None


class _Choice(msgspec.Struct):
    index: int = 0
    message: _Text | None = None
    delta: _Text | None = None
    finish_reason: str | None = None


_MOST_EARLY = 16
# Why an answer ended, in other words than OpenAI's: Together's (docs.together.ai), Mistral's
# (docs.mistral.ai), and those of huggingface.co/docs/text-generation-inference.
_REASONS = {
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "model_length": "length",
}
_encode = msgspec.json.Encoder().encode
_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_objects = msgspec.json.Decoder(list[dict[str, Raw]]).decode
_decode_list = msgspec.json.Decoder(list[Raw]).decode
_decode_choices = msgspec.json.Decoder(list[_Choice]).decode


def canonical_answer(got: Whole, ask: Ask, failures: Failures) -> Answer:
    """A provider's OpenAI-shaped answer as the client shall see it, with its usage read.

    Raises AttemptFailed for an error object, for what is no chat completion, and for no JSON.
    """
    try:
        fields = _fields_of(got.body)
        raw_choices = present(fields.get("choices"))
        choices = None if raw_choices is None else _decode_choices(raw_choices)
    except NOT_AS_ASKED as error:
        raise failures.broken("answered with something that is no chat completion") from error
    if choices is None:
        if present(fields.get("error")) is not None:
            raise failures.told(got.body)
        raise failures.broken("answered with JSON that is no chat completion")
    _tell_reasons(fields, choices)
    reported = present(fields.get("usage"))
    if reported is None:
        usage = estimate_usage(ask.body, sum(_size(choice.message) for choice in choices))
    else:
        usage = read_usage(reported, fields.get("service_tier"))
    finish_reason = choices[0].finish_reason if choices else None
    fields.update(_identity(ask, failures.provider))
    return Answer(_encode(fields), usage, finish_reason or "", got.first_byte, got.sent)


def canonical_embeddings(got: Whole, ask: Ask, failures: Failures) -> Answer:
    """A provider's OpenAI-shaped embeddings as the client shall see them, with their usage read.

    Raises AttemptFailed for an error object, for what is no list of embeddings, and for no JSON.
    """
    try:
        fields = _fields_of(got.body)
        data = present(fields.get("data"))
        count = None if data is None else len(_decode_list(data))
    except NOT_AS_ASKED as error:
        raise failures.broken("answered with something that is no list of embeddings") from error
    if count is None:
        if present(fields.get("error")) is not None:
            raise failures.told(got.body)
        raise failures.broken("answered with JSON that is no list of embeddings")
    reported = present(fields.get("usage"))
    usage = estimate_usage(ask.body, 0) if reported is None else embedding_usage(reported)
    for name in ("model", "provider"):
        fields[name] = _identity(ask, failures.provider)[name]
    return Answer(_encode(fields), usage, "", got.first_byte, got.sent)


class ChunkFolder:
    """The OpenAI-shaped chunks of one stream on their way to the client.

    Each is made canonical. The one with `finish_reason` is held back until another follows or the
    stream ends, and what comes before the first choice until that comes: it says nothing yet, so
    the stream may still be begun anew. Usage is taken out to travel separately.
    """

    def __init__(self, ask: Ask, failures: Failures) -> None:
        self._ask = ask
        self._identity = _identity(ask, failures.provider)
        self._failures = failures
        self._held = b""
        self._early: list[bytes] = []
        self._usage: Raw | None = None
        self._tier: Raw | None = None
        self._finish_reason = ""
        self._begun: set[int] = set()
        self._finished: set[int] = set()
        self.outgoing = Outgoing()
        self.done = False

    def take(self, event: Event) -> None:
        """Adds to `outgoing` what may go out; `done` once `[DONE]` came.

        Raises AttemptFailed at the event that breaks the stream.
        """
        if event.data.startswith(b"[DONE]"):
            self.done = True
        elif event.data:
            self._take(event)

    def _take(self, event: Event) -> None:
        # JSON over several lines stays one line of our own event.
        data = event.data.replace(b"\n", b" ")
        try:
            chunk = _decode_fields(data)
            raw_choices = present(chunk.get("choices"))
            choices = [] if raw_choices is None else _decode_choices(raw_choices)
        except NOT_AS_ASKED as error:
            raise self._failures.broken("sent a chunk that is not as it should be") from error
        if event.name == b"error" or present(chunk.get("error")) is not None:
            raise self._failures.told(event.data)
        self._tier = chunk.get("service_tier", self._tier)
        reported = present(chunk.pop("usage", None))
        if reported is not None:
            self._usage = reported
            if not choices:
                return
        _tell_reasons(chunk, choices)
        finishes = False
        for choice in choices:
            self._begun.add(choice.index)
            self.outgoing.text_bytes += _size(choice.delta)
            if choice.finish_reason:
                finishes = True
                self._finished.add(choice.index)
                if not self._finish_reason or choice.index == 0:
                    self._finish_reason = choice.finish_reason
        chunk.update(self._identity)
        if not self._begun and len(self._early) < _MOST_EARLY:
            self._early.append(_encode(chunk))
            return
        if self._early:
            self.outgoing.parts += self._early
            self._early.clear()
        if self._held:
            self.outgoing.parts.append(self._held)
            self._held = b""
        if finishes:
            self._held = _encode(chunk)
        else:
            self.outgoing.parts.append(_encode(chunk))

    def end(self) -> StreamEnd:
        """The good end of the stream.

        AttemptFailed if it broke off: without `[DONE]` all choices must have finished.
        """
        complete = self.done or self._begun <= self._finished
        if not self._begun or not complete:
            raise self._failures.broken("ended its stream before the answer was complete")
        if self._usage is None:
            usage = estimate_usage(self._ask.body, self.outgoing.text_bytes)
        else:
            usage = read_usage(self._usage, self._tier)
        return StreamEnd(self._held, usage, self._finish_reason)


def _identity(ask: Ask, provider: str) -> dict[str, Raw]:
    """The fields of an answer or a chunk that are the gateway's own."""
    return {
        "id": Raw(_encode(f"chatcmpl-{ask.call_id}")),
        "model": Raw(_encode(ask.model)),
        "created": Raw(_encode(ask.created)),
        "provider": Raw(_encode(provider)),
    }


def _tell_reasons(fields: dict[str, Raw], choices: list[_Choice]) -> None:
    """Says in OpenAI's words why the choices ended, where the server has others."""
    if not any(choice.finish_reason in _REASONS for choice in choices):
        return
    shown = _decode_objects(fields["choices"])
    for choice, raw in zip(choices, shown, strict=True):
        if choice.finish_reason in _REASONS:
            choice.finish_reason = _REASONS[choice.finish_reason]
            raw["finish_reason"] = Raw(_encode(choice.finish_reason))
    fields["choices"] = Raw(_encode(shown))


def _size(text: _Text | None) -> int:
    """UTF-8 bytes of what the model said: content, reasoning, refusal, tool names and arguments."""
    if text is None:
        return 0
    size = text_size(text.content)
    if text.reasoning_content or text.reasoning:
        size += text_size(text.reasoning_content or text.reasoning)
    if text.refusal:
        size += text_size(text.refusal)
    if text.function_call:
        size += _function_size(text.function_call)
    if isinstance(text.tool_calls, list):
        for call in text.tool_calls:
            if isinstance(call, dict):
                size += _function_size(call.get("function"))
    return size


def _function_size(function: Any) -> int:
    if not isinstance(function, dict):
        return 0
    return text_size(function.get("name")) + text_size(function.get("arguments"))


def _fields_of(body: bytes) -> dict[str, Raw]:
    """The fields of an object; strings in them are checked too, as they travel unread."""
    if not body.isascii():
        body.decode()
    return _decode_fields(body)
