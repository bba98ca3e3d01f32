"""What the choice of a target costs an ingress with thousands of models: processor time alone."""

import time

import msgspec

from ingress.auth import Principal
from ingress.conditions import Condition
from ingress.dialects import openai
from ingress.planner import Planner
from ingress.request import ModelRequest
from ingress.routing import Router
from schemas.call import Tenant
from schemas.catalog import Catalog
from schemas.config import Config, ModelConfig, ProviderConfig
from schemas.ids import Clock

MODELS = 2_000
CALLS = 20_000
_PROVIDERS = 20
_NAME = "model-7"
_STRATEGIES = ("cost", "speed", "quality", "auto")
_NOBODY = Principal(Tenant(key_id="bench"))


class Planned(msgspec.Struct):
    """One way of asking: processor time of a plan in ns, and of the first one of its kind, which
    ranks all models where there is a choice among them."""

    asked: str
    each_ns: float
    first_ns: float


class _Measured:
    """Something is known of every target."""

    def of(self, provider: str, engine: str) -> Condition:
        number = int(engine.rpartition("-")[2]) if engine.startswith("model-") else 0
        return Condition(first_byte_ms=100.0 + number % 97, total_ms=1000.0 + number % 89)


def measure(calls: int = CALLS) -> list[Planned]:
    """Plans of a name, of a name with a wish, and of `auto` by each strategy."""
    clock = Clock()
    names = [f"provider-{number}" for number in range(_PROVIDERS)]
    providers = {name: ProviderConfig(base_url="http://127.0.0.1:9/v1") for name in names}
    models = {
        f"model-{number}": ModelConfig(
            provider=names[number % _PROVIDERS],
            input_cost=(number + 1) * 1e-9,
            output_cost=(MODELS - number) * 1e-9,
            fallbacks=(f"model-{(number + 1) % MODELS}",),
        )
        for number in range(MODELS)
    }
    conditions = _Measured()
    router = Router(Config(providers=providers, models=models), Catalog.load(), clock, conditions)
    planner = Planner(router, conditions, clock)
    asked = {
        "a name": _request(_NAME),
        "a name and a wish": _request(_NAME, "cost"),
        **{f"auto by {one}": _request("auto", one) for one in _STRATEGIES},
    }
    return [_planned(planner, how, request, calls) for how, request in asked.items()]


def _planned(planner: Planner, how: str, request: ModelRequest, calls: int) -> Planned:
    first = _cpu_ns(planner, request, 1)
    return Planned(how, _cpu_ns(planner, request, calls) / calls, first)


def _cpu_ns(planner: Planner, request: ModelRequest, calls: int) -> int:
    used = time.process_time_ns()
    for _ in range(calls):
        planner.decide(_NOBODY, request, frozenset())
    return time.process_time_ns() - used


def _request(model: str, strategy: str | None = None) -> ModelRequest:
    body = {"model": model, "messages": [{"role": "user", "content": "How are you?"}]}
    routing = {} if strategy is None else {"routing": {"strategy": strategy}}
    return openai.parse(msgspec.json.encode({**body, **routing}))
