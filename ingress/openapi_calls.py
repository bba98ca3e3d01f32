"""What the OpenAPI document says of calls of models: their bodies, refusals and headers."""

from typing import Any

import msgspec

from ingress.call_budget import BudgetBlock
from ingress.wishes import RoutingBlock


def _header(description: str, kind: str = "integer") -> dict[str, Any]:
    return {"description": description, "schema": {"type": kind}}


_MEANINGS = {
    "max_cost": (
        "The most that the call may cost. One that may cost more is answered 400"
        " `max_cost_exceeded` before it costs anything; without `max_tokens`, its answer is limited"
        " to what this pays for. The gateway's own maximum can be lowered, not raised"
    ),
    "cost_alert_threshold": "A call that has cost more leads to the event `model.cost.alert`",
    "tracking_id": "A name of your own for the call, in the ledger and in alerts",
    "user_id": (
        "The user whom the call belongs to, with that user's limits and budgets. A credential that"
        " is bound to a user may name no other: 403 `foreign_user`"
    ),
    "project_id": (
        "The project that the call belongs to, likewise: 403 `foreign_project` for another than the"
        " credential is bound to"
    ),
}


_ROUTING_MEANINGS = {
    "strategy": (
        "What the best target is. Without it, that of the model `auto` is the gateway's"
        " `default_strategy`, and every other model runs where it is configured to"
    ),
    "max_cost_per_1k_tokens": "US dollars that 1,000 tokens of this call may cost, by its estimate",
    "max_latency_ms": (
        "The measured time to the first byte of a stream, or to the end of an answer, that a target"
        " may take; one of which nothing is measured passes"
    ),
    "preferred_providers": "Their targets come before all others",
    "fallback_models": "The models to try after the first, instead of those that are configured",
    "enable_caching": "Without effect: nothing is cached yet",
    "region": "Only providers whose configured region is this or begins with it, such as `eu`",
}


def _block(
    kind: type[msgspec.Struct], title: str, about: str, meanings: dict[str, str]
) -> dict[str, Any]:
    """A block of ours as it is read, with the meaning of each field."""
    _, components = msgspec.json.schema_components((kind,))
    schema = components[kind.__name__]
    for name, field in schema["properties"].items():
        field["description"] = meanings[name]
    return {**schema, "title": title, "description": about}


_BUDGET = _block(
    BudgetBlock, "Budget", "What one call may cost, in US dollars, and whose it is", _MEANINGS
)
_ROUTING = _block(
    RoutingBlock, "Routing", "What is wished of the place where a call runs", _ROUTING_MEANINGS
)


_MODEL = {"type": "string", "description": "A name from GET /v1/models, or `auto`"}
_EXTENSIONS: dict[str, Any] = {
    "drop_params": {
        "type": "boolean",
        "default": False,
        "description": "Leave out what the provider has no word for, instead of refusing the call",
    },
    "budget": {"anyOf": [_BUDGET, {"type": "null"}]},
    "routing": {"anyOf": [_ROUTING, {"type": "null"}]},
    "response": {
        "type": "object",
        "properties": {
            "include_usage": {"type": "boolean", "default": True},
            "include_cost": {"type": "boolean", "default": True},
            "include_latency": {"type": "boolean", "default": True},
            "include_model_info": {"type": "boolean", "default": False},
        },
    },
}
_TOKENS = {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}}
_TEXT = {"type": "string", "minLength": 1}

CHAT: dict[str, Any] = {
    "type": "object",
    "required": ["model", "messages"],
    "additionalProperties": True,
    "properties": {
        "model": _MODEL,
        "messages": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "object", "required": ["role"], "additionalProperties": True},
        },
        "stream": {"type": "boolean", "default": False},
        "stream_options": {
            "type": "object",
            "properties": {"include_usage": {"type": "boolean"}},
        },
        "temperature": {"type": "number", "minimum": 0, "maximum": 2},
        "top_p": {"type": "number", "minimum": 0, "maximum": 1},
        "frequency_penalty": {"type": "number", "minimum": -2, "maximum": 2},
        "presence_penalty": {"type": "number", "minimum": -2, "maximum": 2},
        "max_tokens": {"type": "integer", "minimum": 1},
        "n": {"type": "integer", "minimum": 1, "maximum": 128},
        **_EXTENSIONS,
    },
}

EMBEDDINGS: dict[str, Any] = {
    "type": "object",
    "required": ["model", "input"],
    "additionalProperties": True,
    "properties": {
        "model": _MODEL,
        "input": {
            "description": "A text, a list of texts, or tokens where the model takes them",
            "anyOf": [
                _TEXT,
                {"type": "array", "minItems": 1, "items": _TEXT},
                _TOKENS,
                {"type": "array", "minItems": 1, "items": _TOKENS},
            ],
        },
        "dimensions": {"type": "integer", "minimum": 1, "maximum": 65_536},
        "encoding_format": {"enum": ["float", "base64"], "default": "float"},
        **_EXTENSIONS,
    },
}

STATUSES = {
    "400": (
        "The request cannot be asked of a provider. `max_cost_exceeded`: it may cost more than its"
        " `budget.max_cost`, or than any call may here; `price_unknown`: its cost is limited, and"
        " nobody knows its price"
    ),
    "401": "No or wrong credential",
    "403": (
        "`model_not_allowed`, or `foreign_project` and `foreign_user`: `budget` names another's"
        " than the credential is bound to"
    ),
    "404": "The model does not exist",
    "408": "The body came too slowly",
    "413": "The body is too large",
    "429": (
        "`budget_exceeded`: a hard budget has not enough left for the most that the call may cost;"
        " `rate_limit_exceeded`: a limit is reached, here or at the provider; `queue_full`: too"
        " much waits before it"
    ),
    "502": "The provider failed",
    "503": (
        "No worker, or the bus is away; `budget_unavailable`: whether a hard budget has enough left"
        " cannot be said now"
    ),
    "504": "The provider or the call took too long",
}

_LEAST = "Where several limits apply, of the one with the least left; not there without any"


def _rates(of: str) -> dict[str, Any]:
    name = of.capitalize()
    return {
        f"X-RateLimit-Limit-{name}": _header(f"The limit of {of}. {_LEAST}"),
        f"X-RateLimit-Remaining-{name}": _header(f"How many {of} of that limit are left"),
        f"X-RateLimit-Reset-{name}": _header("When all of it is there again: Unix time, seconds"),
    }


RATES = {**_rates("requests"), **_rates("tokens")}
_WAIT = {"Retry-After": _header("Seconds; there only where waiting helps")}
REFUSED: dict[str, dict[str, Any]] = {
    "429": {
        **RATES,
        **_WAIT,
        "x-should-retry": _header(
            "`false` where the same call again is of no use, as for a budget; SDKs obey it",
            "string",
        ),
    },
    "503": _WAIT,
}
"""Headers of a refusal, by its status."""
