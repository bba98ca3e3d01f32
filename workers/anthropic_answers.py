"""What Anthropic's Messages API answers, whole and streamed, as a canonical chat.

Sources: platform.claude.com/docs (Messages API, Streaming, Errors) and the response types of the
`anthropic` package 2.11.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Raw

from schemas.usage import Usage
from workers.exchange import Whole
from workers.failures import Failures, read_detail
from workers.providers.base import NOT_AS_ASKED, Answer, Ask, AttemptFailed, StreamEnd
from workers.sse import Event
from workers.translated import Choice, Chunks, tool_call, whole_answer

_STOP_REASONS = {
    "end_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "stop",
    "refusal": "content_filter",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
}
# The status that Anthropic would have sent with an error, had the answer not begun.
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
_ABSENT = Raw(b"null")
Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000_000)]


class _CacheCreation(msgspec.Struct):
    ephemeral_1h_input_tokens: Count | None = None


class _OutputDetails(msgspec.Struct):
    thinking_tokens: Count | None = None


class _Usage(msgspec.Struct, omit_defaults=True):
    input_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None
    cache_creation: _CacheCreation | None = None
    output_tokens: Count | None = None
    output_tokens_details: _OutputDetails | None = None


class _StopDetails(msgspec.Struct):
    explanation: str | None = None


class _Block(msgspec.Struct):
    """A block of content of any type; `type` says which of the others are there."""

    type: str
    text: str | None = None
    citations: list[Raw] | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: Raw = Raw(b"{}")


class _Message(msgspec.Struct):
    content: list[_Block]
    stop_reason: str | None = None
    stop_details: _StopDetails | None = None
    usage: Raw = _ABSENT


class _Started(msgspec.Struct):
    usage: Raw = _ABSENT


class _Delta(msgspec.Struct):
    """What comes to a block, or to the whole message."""

    type: str = ""
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    signature: str | None = None
    citation: Raw = _ABSENT
    stop_reason: str | None = None
    stop_details: _StopDetails | None = None


class _Event(msgspec.Struct):
    """An event of any type; `type` says which of the others are there."""

    type: str
    index: int = 0
    message: _Started | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: Raw = _ABSENT


class _Open(msgspec.Struct):
    """A block that is being streamed; `call` is the place of a tool's call among all calls."""

    block: _Block
    call: int = -1
    pieces: list[str] = []
    signature: str = ""


_decode_message = msgspec.json.Decoder(_Message).decode
_decode_event = msgspec.json.Decoder(_Event).decode
_decode_usage = msgspec.json.Decoder(_Usage).decode


def canonical_message(got: Whole, ask: Ask, failures: Failures) -> Answer:
    """A whole answer. Raises AttemptFailed for an error object, and for what is no message."""
    try:
        message = _decode_message(got.body)
    except NOT_AS_ASKED as error:
        if read_detail(got.body).message:
            raise _told(got.body, failures) from error
        raise failures.broken("answered with something that is no message") from error
    reported = read_usage(message.usage)
    reason = _STOP_REASONS.get(message.stop_reason or "", "stop")
    choice = Choice(_shown(message), reason)
    return whole_answer(got, ask, failures.provider, [choice], reported)


def _shown(message: _Message) -> dict[str, Any]:
    """The message as OpenAI shapes it; blocks of Anthropic's own tools are not shown."""
    texts: list[str] = []
    thoughts: list[str] = []
    signed: list[dict[str, str]] = []
    calls: list[dict[str, Any]] = []
    citations: list[Raw] = []
    for block in message.content:
        if block.type == "text":
            texts.append(block.text or "")
            citations += block.citations or ()
        elif block.type in ("thinking", "redacted_thinking"):
            thoughts.append(block.thinking or "")
            signed.append(_thought(block, block.thinking or "", block.signature or ""))
        elif block.type == "tool_use":
            arguments = bytes(block.input).decode()
            calls.append(tool_call(block.id or "", block.name or "", arguments))
    said = message.stop_details and message.stop_details.explanation
    text = "".join(texts)
    shown: dict[str, Any] = {"content": None if not text and (calls or said) else text}
    if any(thoughts):
        shown["reasoning_content"] = "".join(thoughts)
    if signed:
        shown["thinking_blocks"] = signed
    if calls:
        shown["tool_calls"] = calls
    if citations:
        shown["citations"] = citations
    if said:
        shown["refusal"] = said
    return shown


def _thought(block: _Block, text: str, signature: str) -> dict[str, str]:
    """A thinking block as Anthropic wants it back."""
    if block.type == "redacted_thinking":
        return {"type": block.type, "data": block.data or ""}
    return {"type": block.type, "thinking": text, "signature": signature}


def read_usage(reported: Raw | bytes) -> Usage | None:
    """The usage of a whole message by disjoint classes, see `_classes`; status unknown for what
    makes no sense."""
    if _is_absent(reported):
        return None
    try:
        return _classes(_decode_usage(reported))
    except NOT_AS_ASKED:
        return Usage()


def _is_absent(raw: Raw | bytes) -> bool:
    return bytes(raw) == b"null"


def _classes(usage: _Usage) -> Usage | None:
    """Anthropic's counts by disjoint classes; None if it gave none that could be charged.

    `input_tokens` is what is neither read from a cache nor written to one, so the three make up the
    prompt (docs: Prompt caching, "Tracking cache performance"). `output_tokens` includes thinking,
    however little of it is shown; `thinking_tokens` is that part of it.
    """
    if usage.input_tokens is None or usage.output_tokens is None:
        return None
    details = usage.output_tokens_details or _OutputDetails()
    reasoning = min(details.thinking_tokens or 0, usage.output_tokens)
    return Usage(
        input=usage.input_tokens,
        cached_input=usage.cache_read_input_tokens or 0,
        cache_write=usage.cache_creation_input_tokens or 0,
        output=usage.output_tokens - reasoning,
        reasoning=reasoning,
        status="reported",
    )


class MessageFolder:
    """The events of one stream on their way to the client as chunks."""

    def __init__(self, ask: Ask, failures: Failures) -> None:
        self._failures = failures
        self._open: dict[int, _Open] = {}
        self._calls = 0
        self._usage = _Usage()
        self._counted = False
        self._garbled = False
        self._stop_reason = ""
        self._refusal = ""
        self.outgoing = Chunks(ask, failures.provider)
        self.done = False

    def take(self, event: Event) -> None:
        """Adds to `outgoing` what may go out; `done` once `message_stop` came.

        Unknown types are passed over, as Anthropic asks of its clients (docs: Versions). Raises
        AttemptFailed at an error, and at what is no event.
        """
        if not event.data:
            return
        try:
            said = _decode_event(event.data)
        except NOT_AS_ASKED as error:
            raise self._failures.broken("sent an event that is not as it should be") from error
        if said.type == "content_block_delta":
            self._add(said.index, said.delta or _Delta())
        elif said.type == "content_block_start" and said.content_block is not None:
            self._begin(said.index, said.content_block)
        elif said.type == "content_block_stop":
            self._close(said.index)
        elif said.type == "message_start" and said.message is not None:
            self._count(said.message.usage)
        elif said.type == "message_delta":
            self._finish(said.delta or _Delta(), said.usage)
        elif said.type == "message_stop":
            self.done = True
        elif said.type == "error":
            raise _told(event.data, self._failures)

    def end(self) -> StreamEnd:
        """The good end of the stream. Raises AttemptFailed if it broke off before the answer was
        complete: its stop reason tells that it is."""
        if not self._stop_reason:
            raise self._failures.broken("ended its stream before the answer was complete")
        if self._refusal:
            self.outgoing.delta({"refusal": self._refusal})
        self.outgoing.finish(_STOP_REASONS.get(self._stop_reason, "stop"))
        if self._garbled:
            return self.outgoing.end(Usage())
        return self.outgoing.end(_classes(self._usage) if self._counted else None)

    def _begin(self, index: int, block: _Block) -> None:
        opened = self._open[index] = _Open(block)
        if block.type == "text":
            self.outgoing.text(block.text or "")
            for citation in block.citations or ():
                self.outgoing.delta({"citations": [citation]})
        elif block.type == "thinking":
            opened.signature = block.signature or ""
            self._think(opened, block.thinking or "")
        elif block.type == "tool_use":
            opened.call = self._calls
            self._calls += 1
            self.outgoing.tool(opened.call, block.id or "", block.name or "")

    def _add(self, index: int, delta: _Delta) -> None:
        if delta.type == "text_delta":
            self.outgoing.text(delta.text or "")
            return
        opened = self._open.get(index)
        if opened is None:
            raise self._failures.broken("sent a piece of a block that has not begun")
        if delta.type == "input_json_delta" and opened.call >= 0 and delta.partial_json:
            opened.pieces.append(delta.partial_json)
            self.outgoing.arguments(opened.call, delta.partial_json)
        elif delta.type == "thinking_delta":
            self._think(opened, delta.thinking or "")
        elif delta.type == "signature_delta":
            opened.signature += delta.signature or ""
        elif delta.type == "citations_delta" and not _is_absent(delta.citation):
            self.outgoing.delta({"citations": [delta.citation]})

    def _think(self, opened: _Open, text: str) -> None:
        opened.pieces.append(text)
        self.outgoing.reasoning(text)

    def _close(self, index: int) -> None:
        """A thought goes out whole, signed; a call without a piece has the arguments it began with:
        usually none, which is an empty object."""
        opened = self._open.pop(index, None)
        if opened is None:
            return
        if opened.block.type in ("thinking", "redacted_thinking"):
            thought = _thought(opened.block, "".join(opened.pieces), opened.signature)
            self.outgoing.delta({"thinking_blocks": [thought]})
        elif opened.call >= 0 and not opened.pieces:
            self.outgoing.arguments(opened.call, bytes(opened.block.input).decode())

    def _finish(self, delta: _Delta, usage: Raw) -> None:
        self._stop_reason = delta.stop_reason or self._stop_reason
        if delta.stop_details is not None:
            self._refusal = delta.stop_details.explanation or self._refusal
        if not _is_absent(usage):
            self._counted = True
            self._count(usage)

    def _count(self, reported: Raw) -> None:
        """Counts are cumulative: the last one told of each stands, none is ever added."""
        if _is_absent(reported):
            return
        try:
            told = _decode_usage(reported)
        except NOT_AS_ASKED:
            self._garbled = True
            return
        for name in _Usage.__struct_fields__:
            if (count := getattr(told, name)) is not None:
                setattr(self._usage, name, count)


def _told(body: bytes, failures: Failures) -> AttemptFailed:
    """The error that stands where the answer, or its next piece, should be."""
    return failures.refused(_STATUSES.get(read_detail(body).kind, 500), {}, body)
