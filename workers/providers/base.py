"""The seam between the life of a call and a provider: what is asked, what comes back, how it fails.

A provider is one file in this folder with a function `create(name, config, http, clock)`; its
requests and answers on this side are canonical, that is OpenAI-shaped JSON.
"""

from collections.abc import AsyncGenerator, Mapping
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from schemas.call import Timeouts
from schemas.errors import ErrorInfo
from schemas.usage import Usage

BYTES_PER_TOKEN = 4
# What msgspec raises for bytes that are not the JSON asked for: malformed, invalid, too deep.
NOT_AS_ASKED = (ValueError, RecursionError)
# 401 is about the client's own key; the gateway's troubles with its keys are a 502.
_THE_CLIENTS_TO_MEND = frozenset({400, 401, 413, 422})


class Ask(NamedTuple):
    """One attempt of one call at one provider.

    `model` is the name the client used, which its answer must show; `engine` the provider's own
    (empty: the same). `body` is the client's request as canonical JSON, `created` Unix seconds for
    the answer, `headers` the client's headers to pass on. `credential` is the client's own key for
    this provider (empty: the gateway's is used); it is kept no longer than the attempt.
    """

    call_id: str
    model: str
    engine: str
    body: bytes
    stream: bool
    created: int
    headers: Mapping[str, str]
    timeouts: Timeouts
    credential: str = ""

    def __repr__(self) -> str:
        """Short, because the rest is the client's: what it said and its key."""
        return f"Ask(call_id={self.call_id!r}, engine={self.engine!r}, stream={self.stream})"


class Answer(NamedTuple):
    """A whole answer as canonical JSON, already with the gateway's id, model, created, provider.

    `sent` and `first_byte` are monotonic seconds: when the request went out on its connection, and
    when the first byte of the answer's body was there.
    """

    body: bytes
    usage: Usage
    finish_reason: str
    first_byte: float
    sent: float


class Deltas(NamedTuple):
    """What arrived in one read of the socket: canonical `chat.completion.chunk` objects as JSON.

    `text_bytes` is the UTF-8 size of the text in them (content, reasoning, tool calls), which is
    what an estimate of the usage rests on when the stream ends early.
    """

    parts: tuple[bytes, ...]
    first_byte: float
    sent: float
    text_bytes: int


class StreamEnd(NamedTuple):
    """The good end of a stream.

    `last` is the chunk with `finish_reason`, without usage; empty if the provider sent none.
    """

    last: bytes
    usage: Usage
    finish_reason: str


Blame = Literal["", "target", "provider"]


class AttemptFailed(Exception):
    """An attempt came to nothing; `info` is what the client would see.

    `retryable`: the same request may succeed at the same target. `reached`: the provider may have
    seen the request; False only if it certainly has not. `retry_after`: seconds the provider asked
    to wait. `cost_known`: it cost nothing; False when the provider may have worked, and billed.
    `network`: the connection failed before the first byte of an answer. `blame` says what a circuit
    breaker counts it against: one target, all that the provider has, or nothing.
    """

    def __init__(
        self,
        info: ErrorInfo,
        *,
        retryable: bool,
        reached: bool,
        retry_after: float | None = None,
        cost_known: bool = True,
        network: bool = False,
        blame: Blame = "",
    ) -> None:
        super().__init__(info.message)
        self.cost_known = cost_known
        self.network = network
        self.blame = blame
        self.info = info
        self.retryable = retryable
        self.reached = reached
        self.retry_after = retry_after

    @property
    def falls_back(self) -> bool:
        """Another target may still answer: always, unless the request as such was refused, or the
        client's own key."""
        return self.info.status not in _THE_CLIENTS_TO_MEND


class Provider(Protocol):
    """What runs an attempt. All methods raise AttemptFailed and nothing else that is not a bug."""

    name: str

    async def complete(self, ask: Ask) -> Answer:
        """The whole answer at once."""
        ...

    def stream(self, ask: Ask) -> AsyncGenerator[Deltas | StreamEnd, None]:
        """Deltas as they come, then exactly one StreamEnd.

        Closing the generator, or cancelling whoever reads it, closes the upstream connection.
        """
        ...

    async def embed(self, ask: Ask) -> Answer:
        """The embeddings of `input`, as OpenAI shapes them."""
        ...

    async def close(self) -> None:
        """Lets go of what the provider holds; running attempts must have ended."""
        ...


def text_size(content: Any) -> int:
    """UTF-8 bytes of a message's content: text, or a list of parts of which only text counts."""
    if isinstance(content, str):
        return len(content) if content.isascii() else len(content.encode("utf-8", "surrogatepass"))
    if isinstance(content, list):
        return sum(text_size(part) for part in content)
    if isinstance(content, dict):
        return text_size(content.get("text"))
    return 0


class _Message(msgspec.Struct):
    content: Any = None


class _Request(msgspec.Struct):
    messages: list[_Message] = []
    tools: msgspec.Raw = msgspec.Raw()
    n: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    input: Any = None


_decode_request = msgspec.json.Decoder(_Request).decode


def estimate_usage(body: bytes, text_bytes: int) -> Usage:
    """Tokens of an attempt whose provider reported none, at four bytes a token, rounded up.

    In goes the text of the messages or of the `input`, and the definitions of the tools, not images
    or audio; out came `text_bytes`, over all choices, and never more tokens than were asked for:
    money is held for those. A body that cannot be read counts as nothing.
    """
    output = -(-text_bytes // BYTES_PER_TOKEN)
    try:
        request = _decode_request(body)
    except NOT_AS_ASKED:
        asked = 0
    else:
        asked = len(request.tools) + sum(text_size(m.content) for m in request.messages)
        asked += _input_size(request.input)
        limit = max(request.max_tokens or 0, request.max_completion_tokens or 0)
        if limit:
            output = min(output, limit * (request.n or 1))
    return Usage(
        input=-(-asked // BYTES_PER_TOKEN),
        output=output,
        status="estimated",
    )


def _input_size(given: Any) -> int:
    """Bytes of what is to be embedded; a number is a token already."""
    if isinstance(given, list):
        return sum(_input_size(one) for one in given)
    return BYTES_PER_TOKEN if isinstance(given, int) else text_size(given)
