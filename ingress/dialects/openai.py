"""The OpenAI chat completions format, with the gateway's extensions to it.

Only what the gateway uses is decoded; everything else goes through as it came, both ways.
"""

import re
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from ingress.call_budget import BudgetBlock
from ingress.json_body import read_json, without_fields
from ingress.request import Dialect, Include, ModelRequest, RoutingTold
from ingress.wishes import RoutingBlock
from schemas.errors import InvalidRequest
from schemas.frames import Chunk, Finish, Timings
from schemas.money import usd
from schemas.usage import Cost, Usage

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"

EXTENSIONS = frozenset({"response", "routing", "budget"})
# OpenAI's models that think refuse `max_tokens`.
_COMPLETION_LIMIT = re.compile(r"(^|/)(o\d|gpt-([5-9]|\d\d))")


class _Message(msgspec.Struct):
    role: str


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


_Penalty = Annotated[float, Meta(ge=-2.0, le=2.0)]


class _Body(msgspec.Struct):
    messages: Annotated[list[_Message], Meta(min_length=1)] | UnsetType = UNSET
    model: str | UnsetType = UNSET
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    temperature: Annotated[float, Meta(ge=0.0, le=2.0)] | None = None
    top_p: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None
    frequency_penalty: _Penalty | None = None
    presence_penalty: _Penalty | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    response: Include | UnsetType | None = UNSET
    routing: RoutingBlock | UnsetType | None = UNSET
    budget: BudgetBlock | UnsetType | None = UNSET
    user: Any = None
    drop_params: bool | None = None


_body = msgspec.json.Decoder(_Body)
_object: msgspec.json.Decoder[dict[str, Raw]] = msgspec.json.Decoder(dict[str, Raw])
_encode = msgspec.json.Encoder().encode


def parse(body: bytes, model: str | None = None) -> ModelRequest:
    """A request from its JSON; `model` is that of the path where the path names one.

    Raises InvalidRequest with the offending `param` for anything a provider could not be asked.
    """
    asked = read_json(_body, body)
    name = model if model is not None else asked.model
    if name is UNSET or not name:
        raise InvalidRequest(
            "No model was named. Set 'model' to a name from GET /v1/models.",
            param="model",
            code="missing_model",
        )
    if asked.messages is UNSET:
        raise InvalidRequest(
            "No messages were sent. Set 'messages' to a list of at least one message.",
            param="messages",
            code="missing_messages",
        )
    if asked.response is not UNSET or asked.routing is not UNSET or asked.budget is not UNSET:
        body = without_fields(body, EXTENSIONS)
    return ModelRequest(
        model=name,
        stream=bool(asked.stream),
        usage_chunk=bool(asked.stream_options and asked.stream_options.include_usage),
        include=asked.response if isinstance(asked.response, Include) else Include(),
        body=body,
        budget=asked.budget.read() if isinstance(asked.budget, BudgetBlock) else None,
        wishes=asked.routing.read() if isinstance(asked.routing, RoutingBlock) else None,
        end_user=asked.user if isinstance(asked.user, str) else "",
    )


def limited(request: ModelRequest, output: int, engine: str) -> ModelRequest:
    """The request with a limit of output tokens, in the words that the engine understands; for one
    that came without."""
    fields = _object.decode(request.body)
    for null in ("max_tokens", "max_completion_tokens"):
        fields.pop(null, None)
    name = "max_completion_tokens" if _COMPLETION_LIMIT.search(engine) else "max_tokens"
    fields[name] = Raw(b"%d" % output)
    return msgspec.structs.replace(request, body=_encode(fields))


def answer(finish: Finish, body: bytes, request: ModelRequest, routing: RoutingTold) -> bytes:
    """The JSON of a whole answer: the provider's, with `cost` and `latency` beside it."""
    fields: dict[str, Any] = dict(_object.decode(body))
    extend(fields, finish, request.include, routing)
    return _encode(fields)


def chunks(frame: Chunk) -> bytes:
    """Deltas as server-sent events."""
    return b"".join([b"data: %b\n\n" % part for part in frame.parts])


def last_chunks(
    finish: Finish, body: bytes, request: ModelRequest, routing: RoutingTold, call_id: str
) -> bytes:
    """The end of a stream: the held back chunk with the extensions, usage if asked, `[DONE]`."""
    events = []
    if body:
        fields: dict[str, Any] = dict(_object.decode(body))
        extend(fields, finish, request.include, routing)
        events.append(b"data: %b\n\n" % _encode(fields))
    if request.usage_chunk:
        usage = {
            "id": f"chatcmpl-{call_id}",
            "object": "chat.completion.chunk",
            "created": finish.time_ns // 1_000_000_000,
            "model": request.model,
            "provider": finish.provider,
            "choices": [],
            "usage": usage_fields(finish.usage),
        }
        events.append(b"data: %b\n\n" % _encode(usage))
    events.append(DONE)
    return b"".join(events)


def extend(fields: dict[str, Any], finish: Finish, include: Include, routing: RoutingTold) -> None:
    """Adds to an answer, or to the last chunk, what the gateway knows of the call."""
    reported = bytes(fields.get("usage", b"null"))
    if not include.include_usage:
        fields.pop("usage", None)
    elif reported == b"null":
        fields["usage"] = usage_fields(finish.usage)
    elif finish.usage.cached_input:
        fields["usage"] = {**usage_fields(finish.usage), **msgspec.json.decode(reported)}
    if include.include_cost:
        fields["cost"] = _cost_fields(finish.cost, finish.usage)
    if include.include_latency:
        fields["latency"] = _latency_fields(finish.timings)
    if include.include_model_info:
        fields["model_info"] = {"provider": finish.provider, "engine": finish.engine}
    if routing is not None:
        fields["routing"] = routing


def usage_fields(usage: Usage) -> dict[str, Any]:
    """Usage as OpenAI prints it, plus `cache_hit_tokens`; null counts when nobody counted.

    The details are there where one of them is not zero.
    """
    if usage.status == "unknown":
        return {"prompt_tokens": None, "completion_tokens": None, "total_tokens": None}
    fields: dict[str, Any] = {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
    }
    if usage.cached_input:
        fields["cache_hit_tokens"] = usage.cached_input
    went_in = {"cached_tokens": usage.cached_input, "audio_tokens": usage.audio_input}
    came_out = {"reasoning_tokens": usage.reasoning, "audio_tokens": usage.audio_output}
    if any(went_in.values()):
        fields["prompt_tokens_details"] = went_in
    if any(came_out.values()):
        fields["completion_tokens_details"] = came_out
    return fields


def _cost_fields(cost: Cost | None, usage: Usage) -> dict[str, Any]:
    if cost is None:
        return {"input_cost": None, "output_cost": None, "total_cost": None, "currency": "USD"}
    tokens = usage.prompt + usage.completion
    fields: dict[str, Any] = {
        "input_cost": usd(cost.input),
        "output_cost": usd(cost.output),
        "total_cost": usd(cost.total),
        "cost_per_1k_tokens": usd(cost.total * 1000 // tokens) if tokens else 0.0,
        "currency": "USD",
    }
    if cost.cache_savings:
        fields["cache_savings"] = usd(cost.cache_savings)
    return fields


def _latency_fields(timings: Timings) -> dict[str, Any]:
    fields: dict[str, Any] = {"total_time_ms": timings.total}
    if timings.first_byte is not None:
        fields["ttfb_ms"] = timings.first_byte
        fields["processing_time_ms"] = round(timings.total - timings.first_byte, 3)
    if timings.network is not None:
        fields["network_time_ms"] = timings.network
    return fields


CHAT = Dialect(parse, answer, chunks, last_chunks, KEEP_ALIVE)
