"""What generateContent answers, whole and streamed, as a canonical chat.

Sources: ai.google.dev/api/generate-content and the response types of `google-genai` 3.4.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Raw

from schemas.usage import Usage, tier_named
from workers.exchange import Whole
from workers.failures import Failures, read_detail
from workers.providers.base import NOT_AS_ASKED, Answer, Ask, StreamEnd
from workers.sse import Event
from workers.translated import Choice, Chunks, tool_call, whole_answer

_FINISH_REASONS = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "LANGUAGE": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "ESCALATION": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
}
# The model went wrong, and may do better the next time.
_FAILED = frozenset(
    {
        "MALFORMED_FUNCTION_CALL",
        "MALFORMED_RESPONSE",
        "MISSING_THOUGHT_SIGNATURE",
        "PUP_LIMITED_DISABLED",
        "TOO_MANY_TOOL_CALLS",
        "UNEXPECTED_TOOL_CALL",
    }
)
Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000_000)]


class _Blob(msgspec.Struct, rename="camel"):
    mime_type: str = "application/octet-stream"
    data: str = ""


class _FunctionCall(msgspec.Struct):
    name: str
    id: str = ""
    args: Raw = Raw(b"{}")


class _Part(msgspec.Struct, rename="camel"):
    text: str = ""
    thought: bool = False
    thought_signature: str = ""
    function_call: _FunctionCall | None = None
    inline_data: _Blob | None = None


class _Content(msgspec.Struct, frozen=True):
    parts: list[_Part] = []


class _Likely(msgspec.Struct, rename="camel"):
    token: str = ""
    log_probability: float = 0.0


class _LikelyTokens(msgspec.Struct):
    candidates: list[_Likely] = []


class _Logprobs(msgspec.Struct, rename="camel"):
    chosen_candidates: list[_Likely] = []
    top_candidates: list[_LikelyTokens] = []


class _Candidate(msgspec.Struct, rename="camel"):
    index: int = 0
    content: _Content = _Content()
    finish_reason: str = ""
    logprobs_result: _Logprobs | None = None
    grounding_metadata: Raw = Raw()


class _PromptFeedback(msgspec.Struct, frozen=True, rename="camel"):
    block_reason: str = ""


class _Response(msgspec.Struct, rename="camel"):
    candidates: list[_Candidate] = []
    prompt_feedback: _PromptFeedback = _PromptFeedback()
    usage_metadata: Raw = Raw()
    error: Raw = Raw()

    @property
    def blocked(self) -> bool:
        """The prompt was not answered because of what is in it."""
        return not self.candidates and bool(self.prompt_feedback.block_reason)


class _OfModality(msgspec.Struct, rename="camel"):
    modality: str = "TEXT"
    token_count: Count = 0


class _UsageMetadata(msgspec.Struct, rename="camel"):
    prompt_token_count: Count
    cached_content_token_count: Count = 0
    candidates_token_count: Count = 0
    thoughts_token_count: Count = 0
    tool_use_prompt_token_count: Count = 0
    total_token_count: Count | None = None
    prompt_tokens_details: list[_OfModality] = []
    cache_tokens_details: list[_OfModality] = []
    candidates_tokens_details: list[_OfModality] = []
    traffic_type: Any = None


_decode = msgspec.json.Decoder(_Response).decode
_decode_usage = msgspec.json.Decoder(_UsageMetadata).decode


def chat_answer(got: Whole, ask: Ask, failures: Failures) -> Answer:
    """A whole answer. Raises AttemptFailed for an error object, and for what is no answer."""
    try:
        # What travels unread has to be text too.
        if not got.body.isascii():
            got.body.decode()
        answer = _decode(got.body)
    except NOT_AS_ASKED as error:
        if read_detail(got.body).message:
            raise failures.told(got.body) from error
        raise failures.broken("answered with something that is no chat") from error
    if _is_given(answer.error):
        raise failures.told(got.body)
    if answer.blocked:
        choices = [Choice({"content": ""}, "content_filter")]
    else:
        candidates = sorted(answer.candidates, key=lambda candidate: candidate.index)
        choices = [_choice(candidate, ask, failures) for candidate in candidates]
    if not choices:
        raise failures.broken("answered without a candidate")
    return whole_answer(got, ask, failures.provider, choices, _given_usage(answer.usage_metadata))


def read_usage(reported: Raw) -> Usage:
    """Google's usage as disjoint classes; status unknown for what makes no sense.

    `promptTokenCount` includes `cachedContentTokenCount`; `thoughtsTokenCount` is beside
    `candidatesTokenCount`, and `toolUsePromptTokenCount` beside the prompt: the total is the sum
    of the four (`GenerateContentResponseUsageMetadata` of google-genai). A total that is their sum
    without the thoughts says that the candidates include them. The details are parts of their
    counts; what of them was cached is cached input.
    """
    try:
        usage = _decode_usage(reported)
    except NOT_AS_ASKED:
        return Usage()
    prompt, came_out = usage.prompt_token_count, usage.candidates_token_count
    used, thoughts = usage.tool_use_prompt_token_count, usage.thoughts_token_count
    if came_out >= thoughts and usage.total_token_count == prompt + used + came_out:
        came_out -= thoughts
    cached = min(usage.cached_content_token_count, prompt)
    asked, kept = usage.prompt_tokens_details, usage.cache_tokens_details
    heard = min(max(0, _of(asked, "AUDIO") - _of(kept, "AUDIO")), prompt - cached)
    seen = min(max(0, _of(asked, "IMAGE") - _of(kept, "IMAGE")), prompt - cached - heard)
    spoken = min(_of(usage.candidates_tokens_details, "AUDIO"), came_out)
    drawn = min(_of(usage.candidates_tokens_details, "IMAGE"), came_out - spoken)
    return Usage(
        input=prompt - cached - heard - seen + used,
        cached_input=cached,
        audio_input=heard,
        image_input=seen,
        output=came_out - spoken - drawn,
        reasoning=thoughts,
        audio_output=spoken,
        image_output=drawn,
        status="reported",
        tier=tier_named(usage.traffic_type),
    )


class ChatFolder:
    """The responses of one stream on their way to the client.

    Usage is cumulative, so the last one counts. Nothing says that the stream is over but its end,
    which is good once every candidate has a reason to have finished.
    """

    done = False

    def __init__(self, ask: Ask, failures: Failures) -> None:
        self._ask = ask
        self._failures = failures
        self._begun: set[int] = set()
        self._calls: dict[int, int] = {}
        self._reasons: dict[int, str] = {}
        self._usage = Raw()
        self.outgoing = Chunks(ask, failures.provider)

    def take(self, event: Event) -> None:
        """Adds to `outgoing` what may go out. Raises AttemptFailed at what breaks the stream."""
        try:
            response = _decode(event.data)
        except NOT_AS_ASKED as error:
            if read_detail(event.data).message:
                raise self._failures.told(event.data) from error
            raise self._failures.broken("sent a chunk that is not as it should be") from error
        if _is_given(response.error):
            raise self._failures.told(event.data)
        if _is_given(response.usage_metadata):
            self._usage = response.usage_metadata
        if response.blocked:
            self._reasons[0] = "content_filter"
        for candidate in response.candidates:
            self._take(candidate)

    def end(self) -> StreamEnd:
        """The good end of the stream. Raises AttemptFailed if it broke off before it."""
        if not self._reasons or self._begun - self._reasons.keys():
            raise self._failures.broken("ended its stream before the answer was complete")
        for choice, reason in sorted(self._reasons.items()):
            self.outgoing.finish(reason, choice)
        return self.outgoing.end(_given_usage(self._usage))

    def _take(self, candidate: _Candidate) -> None:
        choice, out = candidate.index, self.outgoing
        self._begun.add(choice)
        logprobs = _logprobs(candidate.logprobs_result)
        for part in candidate.content.parts:
            if part.function_call is not None:
                self._call(part, part.function_call, choice)
                continue
            if part.inline_data is not None:
                out.delta(_media(part.inline_data, self._ask), choice)
            elif part.thought:
                out.reasoning(part.text, choice)
            elif part.text:
                out.text(part.text, choice, logprobs)
                logprobs = None
            if part.thought_signature:
                out.delta(_extra(thought_signature=part.thought_signature), choice)
        if _is_given(candidate.grounding_metadata):
            out.delta(_extra(grounding_metadata=candidate.grounding_metadata), choice)
        if candidate.finish_reason:
            called = choice in self._calls
            self._reasons[choice] = _finish_reason(candidate, called, self._failures)

    def _call(self, part: _Part, call: _FunctionCall, choice: int) -> None:
        number = self._calls.get(choice, 0)
        self._calls[choice] = number + 1
        call_id = call.id or _made_id(self._ask, choice, number)
        more = _signed(part)
        self.outgoing.tool(number, call_id, call.name, _arguments(call), choice, **more)


def _choice(candidate: _Candidate, ask: Ask, failures: Failures) -> Choice:
    texts: list[str] = []
    thoughts: list[str] = []
    media: dict[str, Any] = {}
    calls: list[dict[str, Any]] = []
    extra: dict[str, Any] = {}
    for part in candidate.content.parts:
        if part.function_call is not None:
            call = part.function_call
            call_id = call.id or _made_id(ask, candidate.index, len(calls))
            calls.append(tool_call(call_id, call.name, _arguments(call), **_signed(part)))
            continue
        if part.inline_data is not None:
            for kind, made in _media(part.inline_data, ask).items():
                media[kind] = media.get(kind, []) + made if isinstance(made, list) else made
        elif part.text:
            (thoughts if part.thought else texts).append(part.text)
        if part.thought_signature:
            extra["thought_signature"] = part.thought_signature
    if _is_given(candidate.grounding_metadata):
        extra["grounding_metadata"] = candidate.grounding_metadata
    message: dict[str, Any] = {"content": "".join(texts) if texts or not calls else None}
    if thoughts:
        message["reasoning_content"] = "".join(thoughts)
    message.update(media)
    if calls:
        message["tool_calls"] = calls
    if extra:
        message.update(_extra(**extra))
    reason = _finish_reason(candidate, bool(calls), failures)
    return Choice(message, reason, _logprobs(candidate.logprobs_result))


def _finish_reason(candidate: _Candidate, called: bool, failures: Failures) -> str:
    """Why the answer ended; Google says STOP of calls too. Raises AttemptFailed where the model
    went wrong."""
    said = candidate.finish_reason
    if said in _FAILED:
        raise failures.broken(f"ended its answer with {said}")
    reason = _FINISH_REASONS.get(said, "stop")
    return "tool_calls" if called and reason == "stop" else reason


def _made_id(ask: Ask, choice: int, number: int) -> str:
    """An id for a call that came without: the same in every copy of the answer, and not longer
    than the forty letters that others take."""
    return f"call_{ask.call_id.replace('-', '')}{choice}{number:02d}"


def _arguments(call: _FunctionCall) -> str:
    """As compact JSON; a function without parameters may be called with nothing."""
    args = bytes(call.args)
    return msgspec.json.format(args, indent=-1).decode() if args.startswith(b"{") else "{}"


def _signed(part: _Part) -> dict[str, Any]:
    return _extra(thought_signature=part.thought_signature) if part.thought_signature else {}


def _extra(**google: Any) -> dict[str, Any]:
    """As Google's own OpenAI endpoint shows what OpenAI has no word for."""
    return {"extra_content": {"google": google}}


def _media(blob: _Blob, ask: Ask) -> dict[str, Any]:
    """What a model drew, or spoke, as fields of a message."""
    if blob.mime_type.startswith("audio/"):
        audio = {"id": f"audio_{ask.call_id}", "data": blob.data, "transcript": ""}
        return {"audio": {**audio, "expires_at": ask.created, "media_type": blob.mime_type}}
    url = f"data:{blob.mime_type};base64,{blob.data}"
    return {"images": [{"type": "image_url", "image_url": {"url": url}}]}


def _logprobs(result: _Logprobs | None) -> dict[str, Any] | None:
    if result is None:
        return None
    content = [_likely(chosen) for chosen in result.chosen_candidates]
    for at, token in enumerate(content):
        top = result.top_candidates[at].candidates if at < len(result.top_candidates) else []
        token["top_logprobs"] = [_likely(one) for one in top]
    return {"content": content, "refusal": None}


def _likely(one: _Likely) -> dict[str, Any]:
    token = one.token
    return {"token": token, "logprob": one.log_probability, "bytes": list(token.encode())}


def _given_usage(reported: Raw) -> Usage | None:
    return read_usage(reported) if _is_given(reported) else None


def _is_given(raw: Raw) -> bool:
    return len(raw) > 0 and bytes(raw) != b"null"


def _of(details: list[_OfModality], modality: str) -> int:
    return sum(one.token_count for one in details if one.modality == modality)
