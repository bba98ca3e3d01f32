"""What the load generator and the upstream agree on.

A request carries a tag in its prompt. Every piece of the answer repeats it in a mark,
`[bench <tag> <index> <sent>]`, with the index of the piece and the monotonic time in ns at which it
was sent: so a crossed, lost, repeated or reordered piece is seen, and so is how late it came.
"""

import re
from functools import lru_cache
from urllib.parse import urlsplit

import msgspec

MARK = re.compile(rb"\[bench (\d+) (\d+) (\d+)\]")
UNARY = "bench-unary"

_TAG = re.compile(rb"\[tag (\d+)\]")
_TAG_FORM = b"%016d"
_STREAM = re.compile(r"bench-stream-(\d+)(?:-(\d+)ms)?")

_ANSWER = (
    b'{"id":"chatcmpl-bench","object":"chat.completion","created":1700000000,"model":"bench",'
    b'"choices":[{"index":0,"message":{"role":"assistant","content":"[bench %b 0 %d]"},'
    b'"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":256,"completion_tokens":16,"total_tokens":272}}'
)
_CHUNK_HEAD = (
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,'
    b'"model":"bench",'
)
_CHUNK = (
    _CHUNK_HEAD + b'"choices":[{"index":0,"delta":{%b"content":"[bench %b %d %d]"},'
    b'"finish_reason":null}]}\n\n'
)
_LAST_CHUNK = _CHUNK_HEAD + b'"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
_USAGE_CHUNK = (
    _CHUNK_HEAD + b'"choices":[],"usage":{"prompt_tokens":256,"completion_tokens":%d,'
    b'"total_tokens":%d}}\n\n'
)
_DONE = b"data: [DONE]\n\n"


class Shape(msgspec.Struct, frozen=True):
    """How a model answers: `chunks` 0 is one JSON body, else a stream with `interval` seconds."""

    chunks: int
    interval: float


class StreamOptions(msgspec.Struct, frozen=True):
    """The part of `stream_options` that changes the answer."""

    include_usage: bool = False


class Ask(msgspec.Struct, frozen=True):
    """The part of a chat request that the upstream looks at."""

    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None


@lru_cache
def shape_of(model: str) -> Shape | None:
    """The shape that a model's name spells: `bench-unary`, `bench-stream-<N>[-<interval>ms]`."""
    if model == UNARY:
        return Shape(0, 0.0)
    stream = _STREAM.fullmatch(model)
    if stream is None:
        return None
    return Shape(int(stream[1]), int(stream[2] or 0) / 1000)


def request(
    url: str,
    model: str,
    *,
    key: str = "",
    headers: dict[str, str] | None = None,
    prompt: int = 1024,
) -> tuple[bytes, bytes]:
    """A chat request to the API at `url`, cut where `tag(n)` belongs; `prompt` is bytes of text."""
    shape = shape_of(model)
    stream = b"true" if shape is not None and shape.chunks else b"false"
    before = (
        b'{"model":"%b","stream":%b,"max_tokens":256,"messages":[{"role":"user","content":"[tag '
        % (model.encode(), stream)
    )
    after = b'] %b"}]}' % (b"lorem ipsum " * (prompt // 12))
    parts = urlsplit(url)
    lines = {
        "host": parts.netloc,
        "content-type": "application/json",
        "authorization": f"Bearer {key}" if key else "",
        "content-length": str(len(before) + len(tag(0)) + len(after)),
        **(headers or {}),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
    start = f"POST {parts.path.rstrip('/')}/chat/completions HTTP/1.1\r\n{head}\r\n"
    return start.encode() + before, after


def tag(number: int) -> bytes:
    """The tag of one request, of fixed width, so that every request of a load has one length."""
    return _TAG_FORM % number


def tag_in(body: bytes) -> bytes:
    """The tag that a request body carries; zero when it has none."""
    found = _TAG.search(body)
    return found[1] if found else tag(0)


def answer(tag: bytes, sent: int) -> bytes:
    """A complete chat answer of about 300 bytes, marked and with usage."""
    return _ANSWER % (tag, sent)


def chunk(tag: bytes, index: int, sent: int) -> bytes:
    """One content chunk of a stream as a server-sent event."""
    role = b"" if index else b'"role":"assistant",'
    return _CHUNK % (role, tag, index, sent)


def ending(chunks: int, *, usage: bool) -> bytes:
    """What follows the last content chunk: the finish reason, the usage if asked for, `[DONE]`."""
    totals = _USAGE_CHUNK % (chunks, 256 + chunks) if usage else b""
    return _LAST_CHUNK + totals + _DONE
