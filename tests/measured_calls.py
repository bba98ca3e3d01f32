"""Bodies of calls and targets with a price, for tests of what a call may cost."""

import json
from typing import Any

from ingress.routing import Router
from schemas.call import Target
from schemas.catalog import Catalog
from schemas.config import Config, ModelConfig, ProviderConfig
from schemas.usage import Price, Rates

CATALOG = Catalog.load()
KEYED = {
    "openai": ProviderConfig(base_url="https://api.openai.com/v1", api_key="k"),
    "anthropic": ProviderConfig(base_url="https://api.anthropic.com/v1", api_key="k"),
    "local": ProviderConfig(base_url="http://127.0.0.1:8001/v1"),
}
PRICE = Price(id="p", rates=Rates(input=1_000_000_000, output=2_000_000_000))
TARGET = Target("local", "llama", "local", PRICE)


def router(models: dict[str, ModelConfig] | None = None, **settings: Any) -> Router:
    return Router(Config(providers=KEYED, models=models or {}, **settings), CATALOG)


def body(*contents: Any, **fields: Any) -> bytes:
    messages = [{"role": "user", "content": content} for content in contents]
    return json.dumps({"model": "m", "messages": messages, **fields}).encode()


def image(detail: str | None = None, url: str = "https://example.com/a.png") -> dict[str, Any]:
    wishes = {"detail": detail} if detail else {}
    return {"type": "image_url", "image_url": {"url": url, **wishes}}
