"""Answers and streams of Bedrock's Converse as canonical ones."""

from typing import Annotated, Any

import msgspec
from msgspec import Raw

from schemas.usage import Usage, tier_named
from workers.exchange import Whole
from workers.failures import Failures
from workers.providers.base import NOT_AS_ASKED, Answer, Ask, AttemptFailed, StreamEnd
from workers.sse import Event
from workers.translated import Choice, Chunks, tool_call, whole_answer

# What is left: end_turn, stop_sequence, and models whose output could not be read to its end
# (malformed_model_output, malformed_tool_use), all of which are `stop`.
_FINISH = {
    "content_filtered": "content_filter",
    "guardrail_intervened": "content_filter",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
}
_STATUS = {
    b"accessDeniedException": 403,
    b"modelTimeoutException": 408,
    b"serviceUnavailableException": 503,
    b"throttlingException": 429,
    b"validationException": 400,
}
_SERVER_TOOL = "server_tool_use"

Count = Annotated[int, msgspec.Meta(ge=0)]


class _Camel(msgspec.Struct, rename="camel"):
    """Fields are written as in `stopReason`."""


class _CacheDetail(_Camel):
    """Tokens written to a cache that keeps them for `ttl`: `5m` or `1h`."""

    ttl: str
    input_tokens: Count


class _TokenUsage(_Camel):
    input_tokens: Count
    output_tokens: Count
    cache_read_input_tokens: Count | None = None
    cache_write_input_tokens: Count | None = None
    cache_details: list[_CacheDetail] | None = None


class _ToolUse(_Camel):
    """Of a whole answer, of a block's start, or of a delta: there `input` is a piece of text."""

    tool_use_id: str = ""
    name: str = ""
    input: Raw = Raw(b"{}")
    type: str = ""


class _ReasoningText(_Camel):
    text: str = ""
    signature: str | None = None


class _Reasoning(_Camel):
    """`reasoning_text` in a whole answer; `text` and `signature` in a delta."""

    reasoning_text: _ReasoningText | None = None
    redacted_content: str | None = None
    text: str | None = None
    signature: str | None = None


class _Cited(_Camel):
    text: str = ""


class _Citations(_Camel):
    content: list[_Cited] = []


class _Block(_Camel):
    """A block of a message; one of its fields is there."""

    text: str | None = None
    tool_use: _ToolUse | None = None
    reasoning_content: _Reasoning | None = None
    citations_content: _Citations | None = None


class _Message(_Camel):
    content: list[_Block] = []


class _Output(_Camel):
    message: _Message


class _ServiceTier(_Camel):
    type: Any = None


class _Converse(_Camel):
    output: _Output
    stop_reason: str
    usage: Raw = Raw()
    service_tier: _ServiceTier | None = None
    trace: Raw = Raw()
    additional_model_response_fields: Raw = Raw()


class _Start(_Camel):
    tool_use: _ToolUse | None = None


class _BlockStart(_Camel):
    content_block_index: int
    start: _Start = msgspec.field(default_factory=_Start)


class _ToolDelta(_Camel):
    input: str = ""


class _Delta(_Camel):
    text: str | None = None
    tool_use: _ToolDelta | None = None
    reasoning_content: _Reasoning | None = None


class _BlockDelta(_Camel):
    content_block_index: int
    delta: _Delta


class _BlockStop(_Camel):
    content_block_index: int


class _MessageStop(_Camel):
    stop_reason: str
    additional_model_response_fields: Raw = Raw()


class _Metadata(_Camel):
    usage: Raw = Raw()
    service_tier: _ServiceTier | None = None
    trace: Raw = Raw()


_decode_answer = msgspec.json.Decoder(_Converse).decode
_decode_usage = msgspec.json.Decoder(_TokenUsage).decode
_decode_start = msgspec.json.Decoder(_BlockStart).decode
_decode_delta = msgspec.json.Decoder(_BlockDelta).decode
_decode_block_stop = msgspec.json.Decoder(_BlockStop).decode
_decode_stop = msgspec.json.Decoder(_MessageStop).decode
_decode_metadata = msgspec.json.Decoder(_Metadata).decode


def converse_answer(got: Whole, ask: Ask, failures: Failures) -> Answer:
    """A whole answer. Raises AttemptFailed for what is none."""
    try:
        answer = _decode_answer(got.body)
    except NOT_AS_ASKED as error:
        raise failures.broken("did not answer with a message") from error
    texts: list[str] = []
    thoughts: list[str] = []
    signed: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    for block in answer.output.message.content:
        if block.text is not None:
            texts.append(block.text)
        elif block.citations_content is not None:
            texts += [cited.text for cited in block.citations_content.content]
        elif block.tool_use is not None and block.tool_use.type != _SERVER_TOOL:
            use = block.tool_use
            calls.append(tool_call(use.tool_use_id, use.name, bytes(use.input).decode()))
        elif block.reasoning_content is not None:
            reasoning = block.reasoning_content
            text = reasoning.reasoning_text or _ReasoningText()
            thoughts.append(text.text)
            signed += _signed(text.text, text.signature, reasoning.redacted_content)
    message: dict[str, Any] = {"content": "".join(texts) or (None if calls else "")}
    if any(thoughts):
        message["reasoning_content"] = "".join(thoughts)
    if signed:
        message["thinking_blocks"] = signed
    if calls:
        message["tool_calls"] = calls
    choice = Choice(message, _FINISH.get(answer.stop_reason, "stop"))
    more = _more(answer.trace, answer.additional_model_response_fields)
    return whole_answer(
        got, ask, failures.provider, [choice], usage_of(answer.usage, answer.service_tier), **more
    )


def usage_of(raw: Raw, tier: _ServiceTier | None = None) -> Usage | None:
    """Tokens as Bedrock counts them; None if it did not, unknown if they cannot be read.

    `inputTokens` are those that were neither read from the cache nor written to it
    (docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html); `cacheDetails` tells what is
    kept for an hour from the rest of `cacheWriteInputTokens`. What a model thinks is part of
    `outputTokens`, and not told apart.
    """
    if bytes(raw) in (b"", b"null"):
        return None
    try:
        usage = _decode_usage(raw)
    except NOT_AS_ASKED:
        return Usage()
    written = usage.cache_write_input_tokens or 0
    details = usage.cache_details or ()
    hour = min(written, sum(one.input_tokens for one in details if one.ttl == "1h"))
    return Usage(
        input=usage.input_tokens,
        cached_input=usage.cache_read_input_tokens or 0,
        cache_write=written - hour,
        cache_write_1h=hour,
        output=usage.output_tokens,
        status="reported",
        tier=tier_named(tier.type) if tier is not None else "",
    )


class _Thought:
    """A block of thoughts as it comes in pieces."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.signature = ""
        self.redacted = ""


class ConverseFolder:
    """Folds the events of ConverseStream: blocks in order, messageStop, then metadata."""

    def __init__(self, ask: Ask, failures: Failures) -> None:
        self.outgoing = Chunks(ask, failures.provider)
        self.done = False
        self._failures = failures
        self._tools: dict[int, int] = {}
        self._silent: set[int] = set()
        self._thoughts: dict[int, _Thought] = {}
        self._usage: Usage | None = None
        self._more: dict[str, Any] = {}

    def take(self, event: Event) -> None:
        if event.id != b"event":
            raise self._failures.refused(_STATUS.get(event.name, 500), {}, event.data)
        try:
            self._take(event)
        except NOT_AS_ASKED as error:
            raise self._failures.broken("sent an event that cannot be read") from error

    def end(self) -> StreamEnd:
        if not self.outgoing.finished:
            raise self._broke_off()
        return self.outgoing.end(self._usage, **self._more)

    def _broke_off(self) -> AttemptFailed:
        return self._failures.broken("broke off its stream before its end")

    def _take(self, event: Event) -> None:
        if event.name == b"contentBlockDelta":
            delta = _decode_delta(event.data)
            self._delta(delta.content_block_index, delta.delta)
        elif event.name == b"contentBlockStart":
            start = _decode_start(event.data)
            self._start(start.content_block_index, start.start.tool_use)
        elif event.name == b"contentBlockStop":
            self._stop(_decode_block_stop(event.data).content_block_index)
        elif event.name == b"messageStop" and not self.outgoing.finished:
            stop = _decode_stop(event.data)
            for index in [*self._silent, *self._thoughts]:
                self._stop(index)
            self._more |= _more(Raw(), stop.additional_model_response_fields)
            self.outgoing.finish(_FINISH.get(stop.stop_reason, "stop"))
        elif event.name == b"metadata":
            metadata = _decode_metadata(event.data)
            self._usage = usage_of(metadata.usage, metadata.service_tier)
            self._more |= _more(metadata.trace, Raw())
            self.done = self.outgoing.finished

    def _start(self, index: int, tool: _ToolUse | None) -> None:
        if tool is not None and tool.type != _SERVER_TOOL:
            number = self._tools[index] = len(self._tools)
            self._silent.add(index)
            self.outgoing.tool(number, tool.tool_use_id, tool.name)

    def _delta(self, index: int, delta: _Delta) -> None:
        if delta.text is not None:
            self.outgoing.text(delta.text)
        elif delta.tool_use is not None:
            if index in self._tools and delta.tool_use.input:
                self._silent.discard(index)
                self.outgoing.arguments(self._tools[index], delta.tool_use.input)
        elif delta.reasoning_content is not None:
            piece = delta.reasoning_content
            thought = self._thoughts.setdefault(index, _Thought())
            if piece.text:
                thought.texts.append(piece.text)
                self.outgoing.reasoning(piece.text)
            thought.signature += piece.signature or ""
            thought.redacted += piece.redacted_content or ""

    def _stop(self, index: int) -> None:
        """The end of a block: a call without arguments is one with none, a thought is whole."""
        if index in self._silent:
            self._silent.discard(index)
            self.outgoing.arguments(self._tools[index], "{}")
        thought = self._thoughts.pop(index, None)
        if thought is not None:
            signed = _signed("".join(thought.texts), thought.signature, thought.redacted)
            if signed:
                self.outgoing.delta({"thinking_blocks": signed})


def _signed(text: str, signature: str | None, redacted: str | None) -> list[dict[str, Any]]:
    """A thought that must come back with the next request, if it is one."""
    if redacted:
        return [{"type": "redacted_thinking", "data": redacted}]
    if signature:
        return [{"type": "thinking", "thinking": text, "signature": signature}]
    return []


def _more(trace: Raw, fields: Raw) -> dict[str, Any]:
    """What a client asks Bedrock for beside the answer, in Bedrock's words."""
    asked = {"trace": trace, "additionalModelResponseFields": fields}
    return {name: raw for name, raw in asked.items() if bytes(raw) not in (b"", b"null")}
