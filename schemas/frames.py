"""What a worker sends back while it runs a call: `Chunk* (Moved | Finish | Failure)`.

Frames are msgpack arrays on `resp.<ingress>.<call>`, kept for a while in the stream RESP. Every
frame has a fence, which orders the attempts of a call, and an index, which orders the frames of one
attempt from 1 without gaps. A reader drops what lies below the highest fence it has seen and what
it has already; a gap is refilled from RESP or is an error, never skipped.
"""

from typing import NamedTuple

import msgspec

from schemas.errors import ErrorInfo
from schemas.usage import Cost, Usage


class Fence(NamedTuple):
    """Orders the attempts of a call: job's sequence in WORK, its delivery, the worker's own try."""

    job: int
    delivery: int
    attempt: int


FIRST_FENCE = Fence(0, 0, 0)


class Timings(msgspec.Struct, frozen=True, array_like=True):
    """Milliseconds since the ingress received the call, by the worker's clock.

    `first_byte` is None when no byte came; `network` is the time on the provider's connection
    before its first byte.
    """

    total: float
    first_byte: float | None = None
    network: float | None = None


class Chunk(msgspec.Struct, frozen=True, array_like=True, tag="c"):
    """Deltas that arrived together: each part is one canonical `chat.completion.chunk` as JSON.

    `text_bytes` is the size of the text in them, for an estimate should nobody report usage. Parts
    too large for the bus lie in the object store under `parts_ref` instead, see `encode_parts`.
    """

    fence: Fence
    index: int
    parts: tuple[bytes, ...]
    text_bytes: int = 0
    parts_ref: str = ""


class Moved(msgspec.Struct, frozen=True, array_like=True, tag="m"):
    """The call goes on at target `at` of its plan; no byte has gone out yet.

    That target is in another pool, or in this one when the worker gave the job back: every attempt
    so far is recorded then, and nothing else was asked.
    """

    fence: Fence
    index: int
    at: int
    attempts: int
    hold_used: bool = False


class Finish(msgspec.Struct, frozen=True, array_like=True, tag="f"):
    """A good end, complete in itself: the terminal event is a pure function of call and frame.

    `body` is the canonical JSON answer, or for a stream its last chunk (the one with
    `finish_reason`), held back until usage was known; `body_ref` names it in the object store when
    it is too large for the bus.
    """

    fence: Fence
    index: int
    event_id: str
    time_ns: int
    provider: str
    engine: str
    usage: Usage
    cost: Cost | None
    price_id: str
    timings: Timings
    attempts: int
    finish_reason: str = ""
    body: bytes = b""
    body_ref: str = ""


class Failure(msgspec.Struct, frozen=True, array_like=True, tag="x"):
    """A bad end, complete in itself; `cancelled` when the client went away."""

    fence: Fence
    index: int
    event_id: str
    time_ns: int
    error: ErrorInfo
    timings: Timings
    attempts: int
    provider: str = ""
    engine: str = ""
    usage: Usage | None = None
    cost: Cost | None = None
    price_id: str = ""
    cancelled: bool = False


Frame = Chunk | Moved | Finish | Failure
End = Finish | Failure

encode_frame = msgspec.msgpack.Encoder().encode
decode_frame = msgspec.msgpack.Decoder(Frame).decode
encode_parts = encode_frame
decode_parts = msgspec.msgpack.Decoder(tuple[bytes, ...]).decode


def message_id_of_frame(call_id: str, fence: Fence) -> str:
    """Msg-Id of the acknowledged frame of an attempt (Moved or its end): RESP keeps one."""
    return f"{call_id}.f{fence.job}.{fence.delivery}.{fence.attempt}"
