"""The OpenAI embeddings format: `POST …/embeddings`."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from ingress.call_budget import BudgetBlock
from ingress.dialects import openai
from ingress.json_body import read_json, without_fields
from ingress.request import Dialect, Include, ModelRequest, RoutingTold
from ingress.wishes import RoutingBlock
from schemas.errors import InvalidRequest
from schemas.frames import Finish
from schemas.usage import Usage

_Token = Annotated[int, Meta(ge=0, le=10_000_000)]
_Text = Annotated[str, Meta(min_length=1)]
_Tokens = Annotated[list[_Token], Meta(min_length=1)]


class _Body(msgspec.Struct):
    input: _Text | Annotated[list[_Text | _Token | _Tokens], Meta(min_length=1)] | UnsetType = UNSET
    model: str | UnsetType = UNSET
    dimensions: Annotated[int, Meta(ge=1, le=65_536)] | None = None
    encoding_format: Literal["float", "base64"] | None = None
    stream: Literal[False] | None = None
    response: Include | UnsetType | None = UNSET
    routing: RoutingBlock | UnsetType | None = UNSET
    budget: BudgetBlock | UnsetType | None = UNSET
    user: Any = None
    drop_params: bool | None = None


_body = msgspec.json.Decoder(_Body)
_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.Encoder().encode


def parse(body: bytes, model: str | None = None) -> ModelRequest:
    """A request from its JSON. Raises InvalidRequest with the offending `param`."""
    asked = read_json(_body, body)
    name = model if model is not None else asked.model
    if name is UNSET or not name:
        raise InvalidRequest(
            "No model was named. Set 'model' to a name from GET /v1/models.",
            param="model",
            code="missing_model",
        )
    if asked.input is UNSET:
        raise InvalidRequest(
            "Nothing to embed was sent. Set 'input' to a text or a list of texts.",
            param="input",
            code="missing_input",
        )
    if asked.response is not UNSET or asked.routing is not UNSET or asked.budget is not UNSET:
        body = without_fields(body, openai.EXTENSIONS)
    return ModelRequest(
        model=name,
        stream=False,
        usage_chunk=False,
        include=asked.response if isinstance(asked.response, Include) else Include(),
        body=body,
        budget=asked.budget.read() if isinstance(asked.budget, BudgetBlock) else None,
        wishes=asked.routing.read() if isinstance(asked.routing, RoutingBlock) else None,
        end_user=asked.user if isinstance(asked.user, str) else "",
        operation="embeddings",
    )


def answer(finish: Finish, body: bytes, request: ModelRequest, routing: RoutingTold) -> bytes:
    """The JSON of the embeddings, with `cost` and `latency` beside them."""
    fields: dict[str, Any] = dict(_decode_fields(body))
    fields["usage"] = _usage_fields(finish.usage)
    openai.extend(fields, finish, request.include, routing)
    return _encode(fields)


def _usage_fields(usage: Usage) -> Raw:
    """Null counts when nobody counted."""
    tokens = None if usage.status == "unknown" else usage.prompt
    return Raw(_encode({"prompt_tokens": tokens, "total_tokens": tokens}))


EMBEDDINGS = Dialect(parse, answer, openai.chunks, openai.last_chunks, openai.KEEP_ALIVE)
