"""What Cohere's API v2 answers to a chat, whole or streamed, as canonical JSON; and what it charges
(docs.cohere.com/v2/reference/chat, docs.cohere.com/v2/docs/streaming)."""

from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
from msgspec import Raw

from schemas.usage import Usage
from workers.exchange import Whole
from workers.failures import Failures, read_detail
from workers.providers.base import NOT_AS_ASKED, Answer, Ask, StreamEnd
from workers.sse import Event
from workers.translated import Choice, Chunks, tool_call, whole_answer

_FINISH_REASONS = {"MAX_TOKENS": "length", "TOOL_CALL": "tool_calls"}
_PIECES = frozenset(
    {
        "citation-start",
        "content-delta",
        "content-start",
        "tool-call-delta",
        "tool-call-start",
        "tool-plan-delta",
    }
)
# Cohere's counts are numbers, not integers, in its own description of the API.
Count = Annotated[float, msgspec.Meta(ge=0, le=1_000_000_000_000, multiple_of=1)]


class _Content(msgspec.Struct):
    text: str | None = None
    thinking: str | None = None


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct):
    id: str | None = None
    function: _Function = msgspec.field(default_factory=_Function)


class _Logprob(msgspec.Struct):
    """The log probabilities of the tokens that make up `text`."""

    text: str | None = None
    logprobs: list[float] | None = None


class _Said(msgspec.Struct):
    content: list[_Content] | None = None
    tool_plan: str | None = None
    tool_calls: list[_Call] | None = None
    citations: Raw = Raw()


class _Answer(msgspec.Struct):
    """`message` is a text where an error stands in the place of an answer."""

    message: _Said | str | None = None
    finish_reason: str | None = None
    usage: Raw = Raw()
    logprobs: list[_Logprob] | None = None


class _Event(msgspec.Struct):
    type: str = ""
    index: int | None = None
    delta: Raw = Raw()
    logprobs: _Logprob | None = None


class _Piece(msgspec.Struct):
    content: _Content | None = None
    tool_plan: str | None = None
    tool_calls: _Call | None = None
    citations: Raw = Raw()


class _Delta(msgspec.Struct):
    message: _Piece


class _End(msgspec.Struct):
    finish_reason: str | None = None
    error: str | None = None
    usage: Raw = Raw()


class _Units(msgspec.Struct):
    input_tokens: Count | None = None
    output_tokens: Count | None = None


class _Usage(msgspec.Struct):
    billed_units: _Units | None = None
    tokens: _Units | None = None
    cached_tokens: Count | None = None


_encode = msgspec.json.Encoder().encode
_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_event = msgspec.json.Decoder(_Event).decode
_decode_delta = msgspec.json.Decoder(_Delta).decode
_decode_end = msgspec.json.Decoder(_End).decode
_decode_usage = msgspec.json.Decoder(_Usage).decode


def chat_answer(got: Whole, ask: Ask, failures: Failures) -> Answer:
    try:
        if not got.body.isascii():
            got.body.decode()
        answer = _decode_answer(got.body)
    except NOT_AS_ASKED as error:
        raise failures.broken("answered with something that is no chat") from error
    said = answer.message
    if not isinstance(said, _Said):
        if read_detail(got.body).message:
            raise failures.told(got.body)
        raise failures.broken("answered with JSON that is no chat")
    reason = _finish_reason(answer.finish_reason, None, failures)
    contents, calls = said.content or [], said.tool_calls or []
    text = "".join([content.text or "" for content in contents])
    thought = "".join([content.thinking or "" for content in contents]) + (said.tool_plan or "")
    message: dict[str, Any] = {"content": text if text or not calls else None}
    if thought:
        message["reasoning_content"] = thought
    if calls:
        message["tool_calls"] = [
            tool_call(
                call.id or f"call_{at}", call.function.name or "", call.function.arguments or "{}"
            )
            for at, call in enumerate(calls)
        ]
    if _is_given(said.citations):
        message["citations"] = said.citations
    choice = Choice(message, reason, _logprobs(answer.logprobs or ()))
    return whole_answer(got, ask, failures.provider, [choice], read_usage(answer.usage))


class EventFolder:
    """The typed events of one stream, from `message-start` to `message-end`; others are ignored."""

    def __init__(self, ask: Ask, failures: Failures) -> None:
        self.outgoing = Chunks(ask, failures.provider)
        self.done = False
        self._failures = failures
        self._calls: dict[int | None, int] = {}
        self._usage: Usage | None = None

    def take(self, event: Event) -> None:
        if not event.data or event.data.startswith(b"[DONE]"):
            return
        try:
            said = _decode_event(event.data)
            if said.type in _PIECES:
                self._take_piece(said, _decode_delta(said.delta).message)
            elif said.type == "message-end":
                self._take_end(_decode_end(said.delta))
            elif said.type in ("", "error") and read_detail(event.data).message:
                raise self._failures.told(event.data)
        except NOT_AS_ASKED as error:
            raise self._failures.broken("broke its stream: an event is not as it should be") from (
                error
            )

    def end(self) -> StreamEnd:
        if not self.done:
            raise self._failures.broken("ended its stream before the answer was complete")
        return self.outgoing.end(self._usage)

    def _take_piece(self, said: _Event, piece: _Piece) -> None:
        if piece.content is not None:
            self.outgoing.reasoning(piece.content.thinking or "")
            told = _logprobs((said.logprobs,)) if said.logprobs is not None else None
            self.outgoing.text(piece.content.text or "", logprobs=told)
        if piece.tool_plan:
            self.outgoing.reasoning(piece.tool_plan)
        if piece.tool_calls is not None:
            self._take_call(said, piece.tool_calls)
        if _is_given(piece.citations):
            self.outgoing.delta({"citations": [piece.citations]})

    def _take_call(self, said: _Event, call: _Call) -> None:
        function = call.function
        if said.type == "tool-call-start":
            number = self._calls[said.index] = len(self._calls)
            name, arguments = function.name or "", function.arguments or ""
            self.outgoing.tool(number, call.id or f"call_{number}", name, arguments)
        elif said.index in self._calls:
            self.outgoing.arguments(self._calls[said.index], function.arguments or "")
        else:
            raise self._failures.broken("went on with a tool call that it had not begun")

    def _take_end(self, end: _End) -> None:
        self.outgoing.finish(_finish_reason(end.finish_reason, end.error, self._failures))
        self._usage = read_usage(end.usage)
        self.done = True


def _finish_reason(reason: str | None, error: str | None, failures: Failures) -> str:
    """How an answer ended. Raises AttemptFailed where that was not well: its text is no answer."""
    if reason == "TIMEOUT":
        raise failures.timed_out("did not finish its answer")
    if error:
        failed = failures.told(_encode({"message": error}))
        failed.cost_known = False
        raise failed
    if reason == "ERROR":
        raise failures.broken("ended its answer with an error")
    return _FINISH_REASONS.get(reason or "", "stop")


def _logprobs(items: Iterable[_Logprob]) -> dict[str, Any] | None:
    """Cohere tells them by pieces of text, each of one or more tokens: a piece is as likely as its
    tokens together."""
    content = [
        {
            "token": item.text,
            "logprob": sum(item.logprobs),
            "bytes": list(item.text.encode()),
            "top_logprobs": [],
        }
        for item in items
        if item.text is not None and item.logprobs
    ]
    return {"content": content, "refusal": None} if content else None


def read_usage(reported: Raw) -> Usage | None:
    """What Cohere charges: `billed_units`, not `tokens`, which has its own prompt template in it
    (docs.cohere.com/v2/docs/how-does-cohere-pricing-work); `tokens` only where no unit is told.

    Thinking is a part of the output and not told apart. `cached_tokens` are counted in the whole
    prompt, with the template. Which of them were charged is not published: counted as cached input
    are those that must have been, were all that is not charged among them. Status unknown for what
    makes no sense; None if nothing is reported.
    """
    if not _is_given(reported):
        return None
    try:
        usage = _decode_usage(reported)
    except NOT_AS_ASKED:
        return Usage()
    units = usage.billed_units or usage.tokens
    if units is None or units.input_tokens is None or units.output_tokens is None:
        return Usage()
    went_in = int(units.input_tokens)
    processed = went_in if usage.tokens is None else int(usage.tokens.input_tokens or went_in)
    free = max(0, processed - went_in)
    cached = min(max(0, int(usage.cached_tokens or 0) - free), went_in)
    return Usage(
        input=went_in - cached,
        cached_input=cached,
        output=int(units.output_tokens),
        status="reported",
    )


def embedding_usage(meta: Raw) -> Usage | None:
    """`meta.billed_units`, as for a chat; there is no output."""
    if not _is_given(meta):
        return None
    try:
        units = _decode_usage(meta).billed_units
    except NOT_AS_ASKED:
        return Usage()
    if units is None or units.input_tokens is None:
        return None
    return Usage(input=int(units.input_tokens), status="reported")


def _is_given(raw: Raw) -> bool:
    return bytes(raw) not in (b"", b"null")
