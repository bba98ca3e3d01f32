"""What code of other packages gives and raises, in our words: OpenAI-shaped JSON and failures."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from multidict import CIMultiDict

from workers.failures import Failures, read_detail
from workers.providers.base import AttemptFailed

_LONGEST_TEXT = 10_000
# Who repeats what was raised by a mistake in the code gets it again.
_MISTAKES = (
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    NotImplementedError,
    TypeError,
)
_TEXTS = ("content", "reasoning_content", "refusal")

_encode = msgspec.json.Encoder().encode


class Piece(NamedTuple):
    """OpenAI-shaped JSON, and what the model says in it; `plain` if it was given as text."""

    data: bytes
    text: str
    plain: bool = False


def whole_of(given: Any) -> Piece:
    """A whole answer: text, an OpenAI-shaped mapping, or an object with `model_dump`."""
    if isinstance(given, str):
        return _piece({"choices": [{"message": {"content": given}}]}, "chat.completion", plain=True)
    return _piece(_fields(given), "chat.completion")


def chunk_of(given: Any) -> Piece:
    """A piece of a stream, in the same shapes."""
    if isinstance(given, str):
        chunk = {"choices": [{"delta": {"content": given}, "finish_reason": None}]}
        return _piece(chunk, "chat.completion.chunk", plain=True)
    return _piece(_fields(given), "chat.completion.chunk")


def last_chunk() -> Piece:
    """The end of a stream that was given as text."""
    chunk = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
    return _piece(chunk, "chat.completion.chunk")


def prompt_text(messages: Any, tools: Any = None) -> str:
    """All text of a prompt: that of its messages, and the definitions of its tools."""
    texts = [_content(one.get("content")) for one in messages if isinstance(one, dict)]
    if tools:
        texts.append(json.dumps(tools, ensure_ascii=False))
    return "\n".join(texts)


def failure_of(error: BaseException, failures: Failures) -> AttemptFailed:
    """An exception by the error table: by its status, if it has one (`status_code`, aiohttp's
    `status`, or that of its `response`), else as a timeout or as a provider that broke off."""
    if any("Timeout" in kind.__name__ for kind in type(error).__mro__):
        return failures.timed_out("did not answer")
    try:
        refused = _refused(error, failures)
    except Exception:  # Attributes of foreign exceptions may be code that fails.
        refused = None
    if refused is not None:
        return refused
    kind = type(error).__name__
    return failures.broken(f"could not answer ({kind})", retryable=not isinstance(error, _MISTAKES))


def _refused(error: BaseException, failures: Failures) -> AttemptFailed | None:
    response = getattr(error, "response", None)
    own = getattr(error, "status_code", None) or getattr(error, "status", None)
    status = own or getattr(response, "status_code", None)
    if not isinstance(status, int) or not 400 <= status <= 599:
        return None
    headers = getattr(response, "headers", None) or getattr(error, "headers", None) or {}
    named = CIMultiDict((str(name), str(value)) for name, value in headers.items())
    return failures.refused(status, named, _body(error, response, told=own is not None))


def _body(error: BaseException, response: Any, *, told: bool) -> bytes:
    """What the vendor answered, else what an exception with a status of its own says; the text of
    any other is about its request, and shows where that went."""
    try:
        content = getattr(response, "content", b"")
    except Exception:  # httpx, of a stream that nobody has read.
        content = b""
    if isinstance(content, bytes) and (read_detail(content).message or not told):
        return content
    said = getattr(error, "message", None) or str(error)
    return _encode({"error": {"message": str(said)[:_LONGEST_TEXT]}})


def _piece(fields: Mapping[str, Any], kind: str, *, plain: bool = False) -> Piece:
    shown = {"object": kind, **fields}
    choices = [
        _choice(at, choice, whole=kind == "chat.completion")
        for at, choice in enumerate(fields.get("choices") or ())
    ]
    if "choices" in fields:
        shown["choices"] = choices
    return Piece(_encode(shown), "".join(map(_said, choices)), plain)


def _choice(at: int, choice: Mapping[str, Any], *, whole: bool) -> dict[str, Any]:
    """A choice with what goes without saying."""
    shown = {"index": at, "finish_reason": None, **choice}
    if whole:
        shown["finish_reason"] = shown["finish_reason"] or "stop"
        shown["message"] = {"role": "assistant", **(choice.get("message") or {})}
    elif delta := choice.get("delta"):
        # An object has all its fields; a delta those that are new.
        shown["delta"] = {name: value for name, value in delta.items() if value is not None}
    return shown


def _fields(given: Any) -> Mapping[str, Any]:
    dump = getattr(given, "model_dump", None)
    fields = dump() if callable(dump) else given
    if not isinstance(fields, Mapping):
        raise TypeError(f"neither text nor OpenAI-shaped: {type(given).__name__}")
    return fields


def _said(choice: Mapping[str, Any]) -> str:
    """What a choice says: content, thoughts, names and arguments of calls."""
    part = choice.get("message") or choice.get("delta") or {}
    texts = [part.get(name) for name in _TEXTS]
    for call in part.get("tool_calls") or ():
        function = call.get("function") or {}
        texts += [function.get("name"), function.get("arguments")]
    return "".join(text for text in texts if isinstance(text, str))


def _content(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    return "".join(text for text in texts if isinstance(text, str))
