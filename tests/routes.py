"""Routers over providers with keys, at a fixed noon, and how a plan reads in tests."""

from datetime import UTC, datetime
from typing import Any

import pytest

from ingress.routing import Router
from schemas.catalog import Catalog
from schemas.config import Config, ModelConfig, ProviderConfig
from schemas.errors import ModelNotFound
from schemas.ids import Clock

NOON = int(datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()) * 1_000_000_000
CATALOG = Catalog.load(Clock(now_ns=lambda: NOON))
MOCK = ProviderConfig(dialect="mock")
KEYED = {
    "openai": ProviderConfig(base_url="https://api.openai.com/v1", api_key="k"),
    "azure": ProviderConfig(base_url="https://x.openai.azure.com/openai/v1", api_key="k"),
    "anthropic": ProviderConfig(base_url="https://api.anthropic.com/v1", api_key="k"),
    "openrouter": ProviderConfig(base_url="https://openrouter.ai/api/v1", api_key="k"),
    "local": ProviderConfig(base_url="http://127.0.0.1:8001/v1"),
}


def router(
    *providers: str,
    models: dict[str, ModelConfig] | None = None,
    clock: Clock | None = None,
    **settings: Any,
) -> Router:
    usable = {"mock": MOCK, **{name: KEYED[name] for name in providers}}
    config = Config(providers=usable, models=models or {}, **settings)
    return Router(config, CATALOG, clock or Clock(now_ns=lambda: NOON))


def refused(routes: Router, name: str) -> str:
    with pytest.raises(ModelNotFound) as caught:
        routes.plan(name)
    info = caught.value.info
    assert (info.status, info.type) == (404, "invalid_request_error")
    assert (info.code, info.param) == ("model_not_found", "model")
    return info.message
