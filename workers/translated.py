"""Answers of the dialects that translate, built as canonical JSON: whole, in chunks, embeddings.

Usage is not written into them: it travels beside, and the ingress shows it as OpenAI does.
"""

import base64
import struct
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from schemas.usage import Usage
from workers.exchange import Whole
from workers.outgoing import Outgoing
from workers.providers.base import Answer, Ask, StreamEnd, estimate_usage, text_size

_encode = msgspec.json.Encoder().encode


class Choice(NamedTuple):
    """One choice of a whole answer; `message` is without its role."""

    message: dict[str, Any]
    finish_reason: str
    logprobs: dict[str, Any] | None = None


def tool_call(call_id: str, name: str, arguments: str, **more: Any) -> dict[str, Any]:
    """A call in the `tool_calls` of a message; `arguments` is JSON as text."""
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function, **more}


def whole_answer(
    got: Whole, ask: Ask, provider: str, choices: Sequence[Choice], usage: Usage | None, **more: Any
) -> Answer:
    """A whole answer; without `usage` it is estimated from the text. `more` are further fields of
    the answer."""
    shown = [
        {
            "index": index,
            "message": {"role": "assistant", "content": None, **choice.message},
            "logprobs": choice.logprobs,
            "finish_reason": choice.finish_reason,
        }
        for index, choice in enumerate(choices)
    ]
    body = {
        "id": f"chatcmpl-{ask.call_id}",
        "object": "chat.completion",
        "created": ask.created,
        "model": ask.model,
        "provider": provider,
        "choices": shown,
        **more,
    }
    if usage is None:
        usage = estimate_usage(ask.body, sum(_said(choice.message) for choice in choices))
    finish_reason = choices[0].finish_reason if choices else ""
    return Answer(_encode(body), usage, finish_reason, got.first_byte, got.sent)


def embeddings_answer(
    got: Whole,
    ask: Ask,
    provider: str,
    vectors: Iterable[Sequence[float]],
    usage: Usage | None,
    *,
    as_base64: bool,
) -> Answer:
    """Embeddings in the order of the input; in base64 they are 32-bit floats, little-endian first,
    as OpenAI's. Without `usage` it is estimated."""
    body = {
        "object": "list",
        "data": [
            {
                "object": "embedding",
                "index": index,
                "embedding": _packed(vector) if as_base64 else vector,
            }
            for index, vector in enumerate(vectors)
        ],
        "model": ask.model,
        "provider": provider,
    }
    usage = estimate_usage(ask.body, 0) if usage is None else usage
    return Answer(_encode(body), usage, "", got.first_byte, got.sent)


class Chunks(Outgoing):
    """Builds the chunks of one stream. The first chunk of a choice carries its role, the last one
    is kept for the end."""

    def __init__(self, ask: Ask, provider: str) -> None:
        super().__init__()
        self._ask = ask
        head = {
            "id": f"chatcmpl-{ask.call_id}",
            "object": "chat.completion.chunk",
            "created": ask.created,
            "model": ask.model,
            "provider": provider,
        }
        self._head = _encode(head)[:-1] + b',"choices":[{"index":'
        self._begun: set[int] = set()
        self._last: list[bytes] = []
        self._finish_reason = ""

    @property
    def finished(self) -> bool:
        """At least one choice has begun, and all that have begun have finished."""
        return bool(self._begun) and len(self._last) == len(self._begun)

    def text(self, text: str, choice: int = 0, logprobs: dict[str, Any] | None = None) -> None:
        """A piece of the answer's text."""
        if text:
            self._delta({"content": text}, text_size(text), choice, logprobs)

    def reasoning(self, text: str, choice: int = 0, **more: Any) -> None:
        """A piece of what the model thought before it answered."""
        if text or more:
            self._delta({"reasoning_content": text, **more}, text_size(text), choice)

    def tool(
        self, index: int, call_id: str, name: str, arguments: str = "", choice: int = 0, **more: Any
    ) -> None:
        """The beginning of a tool call, `index` among those of its choice, or all of it."""
        call = {"index": index, **tool_call(call_id, name, arguments, **more)}
        self._delta({"tool_calls": [call]}, text_size(name) + text_size(arguments), choice)

    def arguments(self, index: int, piece: str, choice: int = 0) -> None:
        """A further piece of a tool call's arguments."""
        if piece:
            call = {"index": index, "function": {"arguments": piece}}
            self._delta({"tool_calls": [call]}, text_size(piece), choice)

    def delta(self, fields: dict[str, Any], choice: int = 0) -> None:
        """Anything else that belongs to the message."""
        self._delta(fields, 0, choice)

    def finish(self, reason: str, choice: int = 0) -> None:
        """The end of one choice."""
        if choice not in self._begun:
            self._delta({"content": ""}, 0, choice)
        tail = b'%d,"delta":{},"logprobs":null,"finish_reason":%b}]}'
        self._last.append(self._head + tail % (choice, _encode(reason)))
        if choice == 0 or not self._finish_reason:
            self._finish_reason = reason

    def end(self, usage: Usage | None, **more: Any) -> StreamEnd:
        """The good end, once all choices have finished; without `usage` it is estimated. `more`
        are further fields of the last chunk."""
        self.parts += self._last[:-1]
        last = self._last[-1]
        if more:
            last = last[:-1] + b"," + _encode(more)[1:]
        if usage is None:
            usage = estimate_usage(self._ask.body, self.text_bytes)
        return StreamEnd(last, usage, self._finish_reason)

    def _delta(
        self, fields: dict[str, Any], size: int, choice: int, logprobs: dict[str, Any] | None = None
    ) -> None:
        if choice not in self._begun:
            self._begun.add(choice)
            fields = {"role": "assistant", **fields}
        self.text_bytes += size
        shown = _encode(fields)
        if logprobs is None:
            tail = b'%d,"delta":%b,"finish_reason":null}]}' % (choice, shown)
        else:
            tail = b'%d,"delta":%b,"logprobs":%b,"finish_reason":null}]}' % (
                choice,
                shown,
                _encode(logprobs),
            )
        self.parts.append(self._head + tail)


def _said(message: dict[str, Any]) -> int:
    """UTF-8 bytes of what a message says: content, reasoning, names and arguments of tool calls."""
    functions = [call["function"] for call in message.get("tool_calls") or ()]
    return (
        text_size(message.get("content"))
        + text_size(message.get("reasoning_content"))
        + sum(text_size(one["name"]) + text_size(one["arguments"]) for one in functions)
    )


def _packed(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
