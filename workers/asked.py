"""A client's request as the dialects that translate read it: canonical JSON in, typed fields out.

What a dialect has no word for is refused by name, or left out where `drop_params` says so.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Raw

from workers.failures import Failures
from workers.providers.base import NOT_AS_ASKED, Ask, AttemptFailed

# What says nothing when it is left out: every provider does so by itself.
_NEUTRAL: dict[str, frozenset[bytes]] = {
    "frequency_penalty": frozenset({b"0", b"0.0"}),
    "logit_bias": frozenset({b"{}"}),
    "logprobs": frozenset({b"false"}),
    "modalities": frozenset({b'["text"]', b'[ "text" ]'}),
    "n": frozenset({b"1"}),
    "parallel_tool_calls": frozenset({b"true"}),
    "presence_penalty": frozenset({b"0", b"0.0"}),
    "response_format": frozenset({b'{"type":"text"}', b'{"type": "text"}'}),
    "service_tier": frozenset({b'"auto"', b'"default"'}),
    "store": frozenset({b"false"}),
    "stop": frozenset({b"[]"}),
    "tools": frozenset({b"[]"}),
    "functions": frozenset({b"[]"}),
    "top_logprobs": frozenset({b"0"}),
}
# What is the gateway's own, or tells a provider nothing about the answer that is wanted.
_OURS = frozenset(
    {
        "drop_params",
        "encoding_format",
        "messages",
        "metadata",
        "model",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "stream",
        "stream_options",
        "user",
    }
)


class Function(msgspec.Struct):
    """A function that the model may call; `parameters` is its JSON schema as it was written."""

    name: str
    description: str | None = None
    parameters: Raw = Raw(b"{}")
    strict: bool | None = None


class Tool(msgspec.Struct):
    function: Function
    type: str = "function"
    cache_control: dict[str, Any] | None = None


class CalledFunction(msgspec.Struct, frozen=True):
    """`arguments` is JSON as the model wrote it; it may be none."""

    name: str = ""
    arguments: str = ""


class ToolCall(msgspec.Struct):
    """`extra_content` is what a vendor wants back with the call, by vendor."""

    id: str = ""
    function: CalledFunction = CalledFunction()
    type: str = "function"
    extra_content: dict[str, Any] | None = None


class ImageUrl(msgspec.Struct):
    url: str
    detail: str | None = None


class InputAudio(msgspec.Struct):
    data: str
    format: str


class InputFile(msgspec.Struct):
    filename: str | None = None
    file_data: str | None = None
    file_id: str | None = None


class Part(msgspec.Struct):
    """A part of a message's content; `type` says which of the others is there."""

    type: str = "text"
    text: str | None = None
    refusal: str | None = None
    image_url: ImageUrl | str | None = None
    input_audio: InputAudio | None = None
    file: InputFile | None = None
    cache_control: dict[str, Any] | None = None

    @property
    def image(self) -> str:
        """The URL of an `image_url` part; empty if it is none."""
        if isinstance(self.image_url, ImageUrl):
            return self.image_url.url
        return self.image_url or ""


class Message(msgspec.Struct):
    """`thinking_blocks` are a vendor's own signed thoughts, given back as they were received;
    `extra_content` is what else a vendor wants back, by vendor."""

    role: str
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    thinking_blocks: list[dict[str, Any]] | None = None
    extra_content: dict[str, Any] | None = None
    cache_control: dict[str, Any] | None = None

    @property
    def parts(self) -> list[Part]:
        """The content as parts, whichever way it was written."""
        if isinstance(self.content, str):
            return [Part(text=self.content)] if self.content else []
        return self.content or []

    @property
    def text(self) -> str:
        """All text of the content."""
        return "".join(part.text or "" for part in self.parts if part.type == "text")


class JsonSchema(msgspec.Struct):
    name: str = "answer"
    schema: Raw = Raw(b"{}")
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(msgspec.Struct):
    """`type` is `text`, `json_object`, or `json_schema` with the schema."""

    type: str = "text"
    json_schema: JsonSchema | None = None


class NamedFunction(msgspec.Struct):
    name: str


class NamedTool(msgspec.Struct):
    function: NamedFunction
    type: str = "function"


class Chat(msgspec.Struct):
    """The parameters of a chat that more than one vendor knows; None is not given."""

    messages: list[Message]
    tools: list[Tool] | None = None
    tool_choice: NamedTool | str | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: str | list[str] | None = None
    n: int | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    reasoning_effort: str | None = None
    service_tier: str | None = None
    user: str | None = None

    @property
    def limit(self) -> int | None:
        """The output tokens that each choice may have, by whichever name."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def stops(self) -> list[str]:
        """The texts that end an answer."""
        if isinstance(self.stop, str):
            return [self.stop]
        return self.stop or []


class Embedding(msgspec.Struct):
    """What is to be embedded: texts, or token numbers that only OpenAI's own models understand."""

    input: str | list[str | int | list[int]]
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=65_536)] | None = None
    encoding_format: str | None = None
    user: str | None = None


_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_chat = msgspec.json.Decoder(Chat).decode
_decode_embedding = msgspec.json.Decoder(Embedding).decode


def read_chat(
    ask: Ask, takes: frozenset[str], failures: Failures, *, drop: bool
) -> tuple[Chat, dict[str, Raw]]:
    """The chat of a request, and all its fields that are not null as they were written.

    `takes` are the parameters that the dialect has words for. Any other is left out if it says
    nothing, or if `drop` or the request's own `drop_params` says so. Raises AttemptFailed (400)
    for the rest by name, and for what is not shaped as a chat.
    """
    given = _given(ask, failures)
    _require_known(given, takes, failures, drop=drop)
    try:
        return _decode_chat(ask.body), given
    except NOT_AS_ASKED as error:
        raise _unreadable(error, failures) from error


def read_embedding(
    ask: Ask, takes: frozenset[str], failures: Failures, *, drop: bool
) -> tuple[Embedding, dict[str, Raw]]:
    """What a request wants embedded, and all its fields that are not null; as `read_chat`."""
    given = _given(ask, failures)
    _require_known(given, takes | {"input"}, failures, drop=drop)
    try:
        return _decode_embedding(ask.body), given
    except NOT_AS_ASKED as error:
        raise _unreadable(error, failures) from error


def texts_of(embedding: Embedding, failures: Failures) -> list[str]:
    """The texts to embed. Raises AttemptFailed (400) for token numbers."""
    if isinstance(embedding.input, str):
        return [embedding.input]
    texts = [one for one in embedding.input if isinstance(one, str)]
    if len(texts) < len(embedding.input):
        raise failures.unsendable(
            f"{failures.provider} embeds texts only: send 'input' as a string or a list of them.",
            "input",
        )
    return texts


def cannot(what: str, param: str, failures: Failures) -> AttemptFailed:
    """A request that this provider cannot be asked, because of a parameter or of a part of it."""
    return failures.unsendable(f"{failures.provider} cannot {what}.", param)


def present(raw: Raw | None) -> Raw | None:
    """A field that is there and not null."""
    return None if raw is None or bytes(raw) == b"null" else raw


def says_nothing(name: str, value: Raw) -> bool:
    """Whether a parameter asks for what it would get without it."""
    return bytes(value) == b"null" or bytes(value) in _NEUTRAL.get(name, ())


def not_taken(param: str, failures: Failures) -> AttemptFailed:
    """A request with a parameter that this provider has no word for."""
    return failures.unsendable(
        f"{failures.provider} does not take '{param}': leave it out,"
        " or set 'drop_params' to true to have it left out.",
        param,
    )


def _given(ask: Ask, failures: Failures) -> dict[str, Raw]:
    try:
        fields = _decode_fields(ask.body)
    except NOT_AS_ASKED as error:
        raise _unreadable(error, failures) from error
    return {name: raw for name, raw in fields.items() if bytes(raw) != b"null"}


def _require_known(
    given: dict[str, Raw], takes: frozenset[str], failures: Failures, *, drop: bool
) -> None:
    if drop or bytes(given.get("drop_params", b"")) == b"true":
        return
    for name, raw in given.items():
        if name not in takes and name not in _OURS and not says_nothing(name, raw):
            raise not_taken(name, failures)


def _unreadable(error: Exception, failures: Failures) -> AttemptFailed:
    """A request that is not shaped as it should be, with the field that is not."""
    said, _, where = str(error).partition(" - at `$")
    path = where.strip(".`")
    field = path.partition(".")[0].partition("[")[0]
    message = f"The request cannot be passed on: {said}" + (f" at '{path}'." if path else ".")
    return failures.unsendable(message, field or None)
