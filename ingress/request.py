"""What the gateway needs to know of a request for a model, whichever dialect it came in."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from ingress.call_budget import CallBudget
from ingress.wishes import Wishes
from schemas.frames import Chunk, Finish

Operation = Literal["chat", "embeddings"]
RoutingTold = Mapping[str, Any] | None


class Include(msgspec.Struct, frozen=True):
    """The `response` block: which extensions the answer carries."""

    include_usage: bool = True
    include_cost: bool = True
    include_latency: bool = True
    include_model_info: bool = False


class ModelRequest(msgspec.Struct, frozen=True):
    """One request; `body` is what the provider will be sent, as canonical JSON.

    `end_user` is OpenAI's `user` as the client wrote it; `wishes` are None where it has no
    `routing` block.
    """

    model: str
    stream: bool
    usage_chunk: bool
    include: Include
    body: bytes
    budget: CallBudget | None = None
    wishes: Wishes | None = None
    end_user: str = ""
    operation: Operation = "chat"


class Dialect(NamedTuple):
    """How clients of one kind write and read: a module of `ingress/dialects/` gives one.

    `parse(body, model)` reads a request (`model` is that of the path, if it names one) and raises
    InvalidRequest; `answer(finish, body, request, routing)` is a whole answer, `chunks(frame)`
    events of a stream, `last_chunks(finish, body, request, routing, call_id)` its end. `routing` is
    the block of that name, None for none. `keep_alive` says nothing.
    """

    parse: Callable[[bytes, str | None], ModelRequest]
    answer: Callable[[Finish, bytes, ModelRequest, RoutingTold], bytes]
    chunks: Callable[[Chunk], bytes]
    last_chunks: Callable[[Finish, bytes, ModelRequest, RoutingTold, str], bytes]
    keep_alive: bytes
