"""What the mock provider says and how it goes wrong: pure functions of script and request."""

import math
import random
import re
from collections.abc import Iterable, Iterator
from itertools import chain, cycle, islice
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from schemas.usage import Usage
from workers.providers.base import Ask, estimate_usage, text_size

_LONGEST_ECHO = 2000
_TOKEN = re.compile(r"\s*\S+")
_FILLER = (" and", " so", " on")

Seconds = Annotated[float, msgspec.Meta(ge=0, le=3600)]
Amount = Annotated[int, msgspec.Meta(ge=0, le=10_000)]


class Script(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the mock behaves; chunks are those with content.

    `latency` and `interval` are seconds before the first chunk and between two; `chunks` and
    `tokens` the length of a stream and of each choice (0: as the text comes out). `error` is the
    status to fail with, after `status_after` chunks, naming `retry_after` seconds, but only in the
    first `fails` attempts of a call (0: in all). `cut` breaks the connection after so many chunks,
    `hang` goes silent before the first or in the middle. `usage=none` reports none. `tool` is the
    name of the offered tool to call, `calls` how often it is called at once.
    """

    latency: Seconds = 0.0
    interval: Seconds = 0.0
    chunks: Amount = 0
    tokens: Amount = 0
    error: Annotated[int, msgspec.Meta(ge=400, le=599)] | None = None
    status_after: Amount = 0
    retry_after: Seconds | None = None
    fails: Amount = 0
    cut: Amount | None = None
    hang: Literal["", "first", "mid"] = ""
    usage: Literal["reported", "none"] = "reported"
    tool: str = ""
    calls: Annotated[int, msgspec.Meta(ge=1, le=100)] = 1


class _Message(msgspec.Struct):
    role: str = ""
    content: Any = None


class _Function(msgspec.Struct, frozen=True):
    name: str = ""


class _Tool(msgspec.Struct):
    function: _Function = _Function()


class _Request(msgspec.Struct):
    messages: list[_Message] = []
    n: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    tools: list[_Tool] | None = None


class Take(NamedTuple):
    """One attempt: what every choice of its answer says, in pieces.

    A piece is a few words, or with a `tool` a part of the arguments; a stream has one per chunk.
    """

    script: Script
    pieces: tuple[tuple[str, ...], ...]
    tool: str
    finish_reason: str
    choices: int
    logprobs: bool
    prompt_tokens: int


_encode = msgspec.json.Encoder().encode
_decode_request = msgspec.json.Decoder(_Request).decode


def read_script(*texts: str) -> Script:
    """A script from `name=value,name=value`; of several texts the later ones win.

    Raises ValueError naming what makes no sense.
    """
    settings = {name: value for text in texts for name, value in _settings(text)}
    return msgspec.convert(settings, Script, strict=False)


def _settings(text: str) -> Iterator[tuple[str, str]]:
    for entry in filter(None, (entry.strip() for entry in text.split(","))):
        name, sign, value = entry.partition("=")
        if not sign:
            raise ValueError(f"expected name=value, got {entry!r}")
        yield name.strip(), value.strip()


def plan(script: Script, body: bytes) -> Take:
    """What to answer to the request in `body`; what msgspec raises if it is none."""
    request = _decode_request(body)
    spoken = [_text(message.content) for message in request.messages if message.role == "user"]
    said = spoken[-1].strip()[:_LONGEST_ECHO] if spoken else ""
    offered = {tool.function.name for tool in request.tools or ()}
    tool = script.tool if script.tool in offered else ""
    finish_reason = "stop"
    if tool:
        arguments = _encode({"input": said}).decode()
        parts = ("", *(arguments[i : i + 8] for i in range(0, len(arguments), 8)))
        pieces = tuple((part,) for part in parts)
        finish_reason = "tool_calls"
    else:
        words = _TOKEN.findall(f"This is the mock model of Nexus. You said: {said}")
        count = script.tokens or max(len(words), script.chunks)
        limit = request.max_completion_tokens or request.max_tokens
        if limit and 0 < limit < count:
            count, finish_reason = limit, "length"
        words = list(islice(chain(words, cycle(_FILLER)), count))
        chunks = min(script.chunks or count, count)
        pieces = tuple(
            tuple(words[count * at // chunks : count * (at + 1) // chunks]) for at in range(chunks)
        )
    return Take(
        script=script,
        pieces=pieces,
        tool=tool,
        finish_reason=finish_reason,
        choices=request.n or 1,
        logprobs=bool(request.logprobs) and not tool,
        prompt_tokens=sum(len(_text(message.content).split()) for message in request.messages),
    )


def _text(content: Any) -> str:
    if isinstance(content, list):
        return " ".join(_text(part.get("text")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def usage_of(take: Take, ask: Ask) -> Usage:
    """Words in and out, over all choices; an estimate where the script reports nothing."""
    if take.script.usage == "none":
        said = sum(text_size("".join(piece)) for piece in take.pieces)
        return estimate_usage(ask.body, take.choices * said)
    words = take.choices * sum(len(piece) for piece in take.pieces)
    return Usage(input=take.prompt_tokens, output=words, status="reported")


def whole_choices(take: Take, ask: Ask) -> list[dict[str, Any]]:
    """The choices of a whole answer."""
    whole = "".join(word for piece in take.pieces for word in piece)
    choices = []
    for choice in range(take.choices):
        message: dict[str, Any] = {"role": "assistant", "content": None if take.tool else whole}
        if take.tool:
            message["tool_calls"] = _calls(take, ask, choice, whole)
        words = [word for piece in take.pieces for word in piece]
        choices.append(
            {
                "index": choice,
                "message": message,
                "logprobs": _logprobs(words) if take.logprobs else None,
                "finish_reason": take.finish_reason,
            }
        )
    return choices


def delta(take: Take, ask: Ask, choice: int, at: int) -> dict[str, Any]:
    """Chunk number `at` of one choice of a stream."""
    text = "".join(take.pieces[at])
    said: dict[str, Any] = {} if at else {"role": "assistant"}
    if not take.tool:
        said["content"] = text
    elif at:
        said["tool_calls"] = [
            {"index": index, "function": {"arguments": text}} for index in range(take.script.calls)
        ]
    else:
        said["content"] = None
        calls = enumerate(_calls(take, ask, choice, text))
        said["tool_calls"] = [{"index": index, **call} for index, call in calls]
    return {
        "index": choice,
        "delta": said,
        "logprobs": _logprobs(take.pieces[at]) if take.logprobs else None,
        "finish_reason": None,
    }


def _calls(take: Take, ask: Ask, choice: int, arguments: str) -> list[dict[str, Any]]:
    function = {"name": take.tool, "arguments": arguments}
    return [
        {"id": f"call_{ask.call_id}_{choice}_{number}", "type": "function", "function": function}
        for number in range(take.script.calls)
    ]


def finish(take: Take, choice: int) -> dict[str, Any]:
    """The last chunk of one choice of a stream."""
    return {"index": choice, "delta": {}, "logprobs": None, "finish_reason": take.finish_reason}


def vector_of(text: str, dimensions: int) -> list[float]:
    """An embedding of length 1: texts that share words are near each other."""
    vector = [0.0] * dimensions
    for word in text.lower().split() or [""]:
        bits = random.Random(word)
        for at in range(dimensions):
            vector[at] += bits.uniform(-1, 1)
    length = math.hypot(*vector)
    return [one / length for one in vector]


def _logprobs(words: Iterable[str]) -> dict[str, Any]:
    return {
        "content": [
            {"token": word, "logprob": -0.01, "bytes": list(word.encode()), "top_logprobs": []}
            for word in words
        ]
    }
