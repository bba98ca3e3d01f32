"""The model lists: OpenAI's shape with the capabilities and prices of document 003."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from ingress.routing import Router, shown
from schemas.catalog import ModelFacts
from schemas.errors import ModelNotFound
from schemas.money import NANO
from schemas.usage import MILLION, Rates

Json = dict[str, Any]

_UNKNOWN = ModelFacts()


def models(router: Router, allows: Callable[..., bool], only_available: bool = False) -> Json:
    """`GET /v1/models`: the configured and built-in names that the caller is allowed, each with
    what it stands for; unknown values are null."""
    rows = [_row(router, name) for name in router.names if allows(name, router.chosen(name))]
    return {
        "object": "list",
        "data": [row for row in rows if row["available"] or not only_available],
    }


def model(router: Router, name: str) -> Json:
    """`GET /v1/models/{id}`. Raises ModelNotFound for a name that is not known at all."""
    if not router.places(name):
        raise ModelNotFound(f"The model '{shown(name)}' does not exist", param="model")
    return _row(router, name)


def configured_models(router: Router) -> Json:
    """`GET /models` of document 001: the configured models with costs in USD per token, and the
    models of the tasks."""
    names = dict.fromkeys((*router.configured, "mock"))
    return {
        "models": [_configured_row(router, name) for name in names],
        "defaults": dict(router.config.defaults),
    }


def _row(router: Router, name: str) -> Json:
    target, chosen = router.target(name), router.chosen(name)
    seller, engine = router.places(name)[0]
    facts = router.catalog.facts(chosen) or router.catalog.facts(engine) or _UNKNOWN
    listed = router.listed(seller, engine)
    entry = router.entry(chosen)
    provider = target.provider if target is not None else facts.owner or seller
    rates = _rates(router, name)
    return {
        "id": name,
        "object": "model",
        "created": _created(facts.released),
        "owned_by": facts.owner or provider,
        "provider": provider,
        "display_name": facts.display_name or (listed.display_name if listed else None),
        "capabilities": {
            "max_tokens": (entry.max_tokens if entry else None) or facts.max_tokens,
            "context_window": facts.context_window or (listed.context_window if listed else None),
            "supports_vision": facts.vision,
            "supports_function_calling": facts.tools,
            "supports_streaming": facts.streaming,
            "cost_per_1k_input_tokens": _usd(rates.input, 1000) if rates else None,
            "cost_per_1k_output_tokens": _usd(rates.output, 1000) if rates else None,
            "avg_latency_ms": None,
        },
        "category": facts.category,
        "tier": facts.tier,
        "available": target is not None,
    }


def _configured_row(router: Router, name: str) -> Json:
    seller, engine = router.places(name)[0]
    entry = router.entry(name)
    rates = _rates(router, name)
    return {
        "id": name,
        "provider": seller,
        "engine": engine,
        "input_cost": _usd(rates.input, 1) if rates else None,
        "output_cost": _usd(rates.output, 1) if rates else None,
        "max_tokens": entry.max_tokens if entry else None,
        "timeout": entry.timeout if entry else None,
        "fallbacks": list(entry.fallbacks) if entry else [],
        "available": router.target(name) is not None,
    }


def _rates(router: Router, name: str) -> Rates | None:
    """What the name costs where it runs, or would run with a key."""
    target = router.target(name)
    if target is not None:
        return target.price.rates if target.price is not None else None
    price = router.price(router.chosen(name), *router.places(name)[0])
    return price.rates if price is not None else None


def _usd(nano_per_million: int, tokens: int) -> float:
    """The price of some tokens as a number for display."""
    return nano_per_million * tokens / (MILLION * NANO)


def _created(released: str | None) -> int:
    """Unix seconds of a day; 0 where it is unknown, because OpenAI's clients want an integer."""
    if released is None:
        return 0
    return int(datetime.fromisoformat(released).replace(tzinfo=UTC).timestamp())
