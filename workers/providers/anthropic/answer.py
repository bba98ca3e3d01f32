"""A whole answer of Anthropic's Messages API as a canonical chat, and what streams share with it.

Sources: platform.claude.com/docs (Messages API, Stop reasons, Errors) and the response types of the
`anthropic` package 2.11.
"""

from typing import Any

import msgspec
from msgspec import Raw

from workers.exchange import Whole
from workers.failures import Failures, read_detail
from workers.providers.anthropic.usage import ABSENT, Tally, is_absent
from workers.providers.base import NOT_AS_ASKED, Answer, Ask, AttemptFailed
from workers.translated import Choice, tool_call, whole_answer

_FINISH_REASONS = {
    "end_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "stop",
    "refusal": "content_filter",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
}
# The status that Anthropic would have answered with, had the answer not begun.
_STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
THOUGHTS = frozenset({"thinking", "redacted_thinking"})


class StopDetails(msgspec.Struct):
    """Why the model refused to answer."""

    explanation: str | None = None


class AnswerBlock(msgspec.Struct):
    """A block of content of any type; `type` says which of the others are there."""

    type: str
    text: str | None = None
    citations: list[Raw] | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: Raw = ABSENT

    @property
    def arguments(self) -> str:
        """The input of a tool as JSON; what is none is an empty object."""
        return "{}" if is_absent(self.input) else bytes(self.input).decode()


class _Message(msgspec.Struct):
    content: list[AnswerBlock]
    stop_reason: str | None = None
    stop_details: StopDetails | None = None
    usage: Raw = ABSENT


_decode_message = msgspec.json.Decoder(_Message).decode


def canonical_message(got: Whole, ask: Ask, failures: Failures) -> Answer:
    """A whole answer. Raises AttemptFailed for an error object, and for what is no message."""
    try:
        if not got.body.isascii():
            got.body.decode()
        message = _decode_message(got.body)
    except NOT_AS_ASKED as error:
        if read_detail(got.body).message:
            raise error_in(got.body, failures) from error
        raise failures.broken("answered with something that is no message") from error
    tally = Tally()
    tally.count(message.usage)
    choice = Choice(_shown(message), finish_reason(message.stop_reason or ""))
    return whole_answer(got, ask, failures.provider, [choice], tally.usage())


def finish_reason(stop_reason: str) -> str:
    """OpenAI's word for it. A paused turn may be gone on with, and has said what it could."""
    return _FINISH_REASONS.get(stop_reason, "stop")


def thought(block: AnswerBlock, text: str, signature: str) -> dict[str, str]:
    """A thought as Anthropic wants it back, in the `thinking_blocks` of a message."""
    if block.type == "redacted_thinking":
        return {"type": block.type, "data": block.data or ""}
    return {"type": block.type, "thinking": text, "signature": signature}


def error_in(body: bytes, failures: Failures) -> AttemptFailed:
    """The error that stands where the answer, or its next piece, should be."""
    return failures.refused(_STATUSES.get(read_detail(body).kind, 500), {}, body)


def _shown(message: _Message) -> dict[str, Any]:
    """The message as OpenAI shapes it; citations as Anthropic gives them. What is about its own
    tools is left out."""
    texts: list[str] = []
    thoughts: list[dict[str, str]] = []
    calls: list[dict[str, Any]] = []
    citations: list[Raw] = []
    for block in message.content:
        if block.type == "text":
            texts.append(block.text or "")
            citations += block.citations or ()
        elif block.type in THOUGHTS:
            thoughts.append(thought(block, block.thinking or "", block.signature or ""))
        elif block.type == "tool_use":
            calls.append(tool_call(block.id or "", block.name or "", block.arguments))
    text = "".join(texts)
    refusal = message.stop_details and message.stop_details.explanation
    more = {
        "reasoning_content": "".join(one.get("thinking", "") for one in thoughts),
        "thinking_blocks": thoughts,
        "tool_calls": calls,
        "citations": citations,
        "refusal": refusal,
    }
    content = None if not text and (calls or refusal) else text
    return {"content": content, **{name: value for name, value in more.items() if value}}
