"""What the gateway needs to know of a request for a model, whichever dialect it came in."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import msgspec

from ingress.call_budget import CallBudget
from schemas.frames import Chunk, Finish

Operation = Literal["chat", "embeddings"]


class Include(msgspec.Struct, frozen=True):
    """The `response` block: which extensions the answer carries."""

    include_usage: bool = True
    include_cost: bool = True
    include_latency: bool = True
    include_model_info: bool = False


class ModelRequest(msgspec.Struct, frozen=True):
    """One request; `body` is what the provider will be sent, as canonical JSON.

    `end_user` is OpenAI's `user` as the client wrote it.
    """

    model: str
    stream: bool
    usage_chunk: bool
    include: Include
    body: bytes
    budget: CallBudget | None = None
    end_user: str = ""
    operation: Operation = "chat"


class Dialect(NamedTuple):
    """How clients of one kind write and read: a module of `ingress/dialects/` gives one.

    `parse(body, model)` reads a request (`model` is that of the path, if it names one) and raises
    InvalidRequest; `answer(finish, body, include)` is a whole answer, `chunks(frame)` events of a
    stream, `last_chunks(finish, body, request, call_id)` its end. `keep_alive` says nothing.
    """

    parse: Callable[[bytes, str | None], ModelRequest]
    answer: Callable[[Finish, bytes, Include], bytes]
    chunks: Callable[[Chunk], bytes]
    last_chunks: Callable[[Finish, bytes, ModelRequest, str], bytes]
    keep_alive: bytes
