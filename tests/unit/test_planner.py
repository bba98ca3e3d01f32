"""Where a request runs: by its name, by its `routing` block, by the word of the operator."""

import itertools
import json
from collections import Counter
from math import sqrt
from typing import Any

import pytest

from ingress.auth import Principal
from ingress.candidates import place_of
from ingress.conditions import Condition, NoConditions
from ingress.dialects import embeddings, openai
from ingress.planner import Choice, Planner
from ingress.routing import Router
from schemas.call import Target, Tenant
from schemas.config import (
    Config,
    ModelConfig,
    ProviderConfig,
    RoutePolicy,
    RouterConfig,
    RouteTarget,
    TargetConfig,
)
from schemas.errors import Forbidden, InvalidRequest, ModelNotFound, NexusError
from schemas.frames import FIRST_FENCE, Finish, Timings
from schemas.ids import Clock
from schemas.usage import Usage
from tests.planned import Known
from tests.routes import CATALOG, KEYED, MOCK, NOON

NOBODY = Principal(Tenant())
NONE: frozenset[str] = frozenset()


def places(plan: tuple[Target, ...]) -> list[str]:
    return [place_of(target) for target in plan]


def drawing(*draws: float) -> Clock:
    """A clock at noon whose randomness are these parts of one, over and over."""
    turns = itertools.cycle(draws)
    return Clock(
        now_ns=lambda: NOON,
        entropy=lambda n: int(next(turns) * (1 << 8 * n)).to_bytes(n, "big"),
    )


def planner(
    *providers: str,
    known: Known | None = None,
    clock: Clock | None = None,
    models: dict[str, ModelConfig] | None = None,
    more: dict[str, ProviderConfig] | None = None,
    **settings: Any,
) -> Planner:
    usable = {"mock": MOCK, **{name: KEYED[name] for name in providers}, **(more or {})}
    config = Config(providers=usable, models=models or {}, **settings)
    clock = clock or drawing(0.99)
    conditions = known or NoConditions()
    return Planner(Router(config, CATALOG, clock), conditions, clock)


def decide(
    plans: Planner,
    model: str,
    routing: Any = None,
    principal: Principal = NOBODY,
    brought: frozenset[str] = NONE,
    **fields: Any,
) -> Choice:
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], **fields}
    if routing is not None:
        body["routing"] = routing
    return plans.decide(principal, openai.parse(json.dumps(body).encode()), brought)


def refused(plans: Planner, model: str, routing: Any = None, **more: Any) -> NexusError:
    with pytest.raises(NexusError) as caught:
        decide(plans, model, routing, **more)
    return caught.value


def test_auto_chooses_among_all_usable_chat_models_by_the_default_strategy() -> None:
    plans = planner("openai", "anthropic", router=RouterConfig(default_strategy="quality"))
    choice = decide(plans, "auto")
    assert choice.model == "o1-preview"
    assert (choice.reason, choice.is_asked) == ("quality: rated 1351", True)
    assert len(choice.targets) == 4
    assert choice.considered[:2] == ("o1-preview", "claude-3-sonnet")
    assert not {"mock", "text-embedding-3-small"} & {*choice.considered}


def test_auto_takes_the_mock_where_there_is_nothing_else() -> None:
    assert decide(planner(), "auto").model == "mock"


@pytest.mark.parametrize(
    ("strategy", "model"),
    [("cost", "gpt-4o-mini"), ("quality", "o1-preview"), ("speed", "claude-3-haiku")],
)
def test_the_block_says_which_strategy(strategy: str, model: str) -> None:
    fast = Known({"anthropic/claude-3-haiku-20240307": Condition(total_ms=800)})
    plans = planner("openai", "anthropic", known=fast)
    assert decide(plans, "auto", {"strategy": strategy}).model == model


def test_a_named_model_runs_at_the_best_of_its_places() -> None:
    slow = Known({"azure/gpt-4o-mini": Condition(total_ms=9000)})
    slow.conditions["openai/gpt-4o-mini"] = Condition(total_ms=900)
    slow.conditions["openrouter/openai/gpt-4o-mini"] = Condition(total_ms=1900)
    plans = planner("azure", "openai", "openrouter", known=slow)
    named = decide(plans, "gpt-4o-mini", {"strategy": "speed"})
    assert places(named.targets) == [
        "openai/gpt-4o-mini", "openrouter/openai/gpt-4o-mini", "azure/gpt-4o-mini",
    ]  # fmt: skip
    assert named.model == "gpt-4o-mini"


def test_without_a_strategy_a_named_model_runs_where_it_would_anyway() -> None:
    targets = (TargetConfig("openai", "a", 1), TargetConfig("anthropic", "b", 1))
    models = {"chat": ModelConfig(targets=targets, fallbacks=("mock",))}
    plans = planner("openai", "anthropic", models=models, clock=drawing(0.1, 0.9))
    firsts = {decide(plans, "chat", {}).targets[0].engine for _ in range(4)}
    assert firsts == {"a", "b"}
    assert places(decide(plans, "chat", {}).targets)[2] == "mock/mock"


def test_fallback_models_of_the_call_replace_those_of_the_configuration() -> None:
    models = {"m": ModelConfig(provider="local", fallbacks=("mock",))}
    plans = planner("local", "openai", "anthropic", models=models)
    asked = {"fallback_models": ["claude-3-haiku", "gpt-4o-mini"]}
    assert places(decide(plans, "m", asked).targets) == [
        "local/m", "anthropic/claude-3-haiku-20240307", "openai/gpt-4o-mini",
    ]  # fmt: skip
    chosen = decide(plans, "auto", {"strategy": "quality", **asked})
    assert places(chosen.targets) == [
        "openai/o1-preview", "anthropic/claude-3-haiku-20240307", "openai/gpt-4o-mini",
    ]  # fmt: skip


def test_no_target_is_tried_twice_where_it_is_its_own_fallback() -> None:
    plans = planner("openai")
    mini = ["openai/gpt-4o-mini"]
    cheapest = decide(plans, "auto", {"strategy": "cost", "fallback_models": ["gpt-4o-mini"]})
    assert places(cheapest.targets) == mini
    named = decide(plans, "gpt-4o-mini", {"fallback_models": ["gpt-4o-mini"]})
    assert places(named.targets) == mini


def test_a_fallback_has_to_be_known_and_allowed() -> None:
    plans = planner("openai")
    unknown = refused(plans, "gpt-4o", {"fallback_models": ["nobody"]})
    assert isinstance(unknown, ModelNotFound)
    assert unknown.info.param == "routing.fallback_models"
    only_mini = Principal(Tenant(), models=(("gpt-4o-mini",),))
    foreign = refused(plans, "gpt-4o-mini", {"fallback_models": ["gpt-4o"]}, principal=only_mini)
    assert isinstance(foreign, Forbidden)


def test_a_key_gets_from_auto_only_what_it_may_use() -> None:
    plans = planner("openai", "anthropic")
    claude = Principal(Tenant(), models=(("claude-*",),))
    choice = decide(plans, "auto", {"strategy": "cost"}, principal=claude)
    assert choice.model == "claude-3-haiku"
    assert all(name.startswith("claude-") for name in choice.considered)
    nothing = Principal(Tenant(), models=(("no-such-*",),))
    assert "your key may use" in refused(plans, "auto", principal=nothing).info.message


def test_wishes_that_nobody_fulfils_are_refused_with_who_was_excluded_by_what() -> None:
    plans = planner("openai")
    error = refused(plans, "gpt-4o", {"max_cost_per_1k_tokens": 0.000001})
    assert isinstance(error, InvalidRequest)
    assert (error.info.status, error.info.code) == (400, "no_eligible_model")
    assert error.info.param == "routing.max_cost_per_1k_tokens"
    assert "routing.max_cost_per_1k_tokens excludes openai/gpt-4o (1,000" in error.info.message
    many = refused(plans, "auto", {"region": "eu"}, tools=[{"type": "function"}])
    assert many.info.param == "routing"
    assert "tools excludes openai/o1-preview (it calls none)" in many.info.message
    assert "routing.region excludes openai/gpt-4o" in many.info.message


def test_a_region_leads_to_the_providers_there() -> None:
    there = ProviderConfig(base_url="https://eu.example/v1", api_key="k", region="eu-west-1")
    models = {"m": ModelConfig(targets=(TargetConfig("openai"), TargetConfig("there")))}
    plans = planner("openai", more={"there": there}, models=models)
    assert places(decide(plans, "m", {"region": "eu"}).targets) == ["there/m"]


def test_the_needs_of_a_call_filter_what_auto_chooses_from() -> None:
    plans = planner("openai", "anthropic")
    image = {"type": "image_url", "image_url": {"url": "https://x.example/i.png"}}
    looked = decide(
        plans, "auto", {"strategy": "quality"}, messages=[{"role": "user", "content": [image]}]
    )
    assert looked.model == "claude-3-sonnet", "o1-preview sees nothing"
    schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}
    assert decide(plans, "auto", {"strategy": "quality"}, response_format=schema).model == (
        "gpt-4o-mini"
    )
    long = [{"role": "user", "content": "word " * 130_000}]
    assert decide(plans, "auto", {"strategy": "cost"}, messages=long).model == "claude-3-haiku"


def test_embeddings_are_left_to_models_that_make_them() -> None:
    plans = planner("openai")
    body = b'{"model": "auto", "input": "x"}'
    assert plans.decide(NOBODY, embeddings.parse(body), NONE).model == "text-embedding-3-small"


def test_blocked_providers_run_nothing_and_preferred_ones_come_first() -> None:
    blocked = planner("azure", "openai", router=RouterConfig(blocked_providers=("azure",)))
    assert places(decide(blocked, "gpt-4o").targets) == ["openai/gpt-4o"]
    assert "take azure off router.blocked_providers" in refused(blocked, "azure/x").info.message
    assert all(
        target.provider != "azure"
        for target in decide(blocked, "auto", {"strategy": "cost"}).targets
    )
    liked = planner(
        "azure", "openai", "openrouter", router=RouterConfig(preferred_providers=("openrouter",))
    )
    assert places(decide(liked, "gpt-4o").targets) == ["openrouter/openai/gpt-4o"]
    assert decide(liked, "auto", {"strategy": "cost"}).targets[0].provider == "openrouter"
    own = decide(liked, "auto", {"strategy": "cost", "preferred_providers": ["openai"]})
    assert own.targets[0].provider == "openai"


def test_the_operator_says_how_many_fallbacks_there_are() -> None:
    models = {"m": ModelConfig(provider="local", fallbacks=("mock", "gpt-4o", "gpt-4", "o3-pro"))}

    def length(**router: Any) -> int:
        plans = planner("local", "openai", models=models, router=RouterConfig(**router))
        count = len(decide(plans, "m").targets)
        assert len(decide(plans, "m", {}).targets) == count
        return count

    assert length() == 4
    assert length(max_fallback_attempts=1) == 2
    assert length(enable_fallbacks=False) == 1


def test_a_broken_target_comes_last_also_without_wishes() -> None:
    known = Known({"local/m": Condition(broken=True)})
    models = {"m": ModelConfig(provider="local", fallbacks=("mock",))}
    plans = planner("local", known=known, models=models)
    assert places(decide(plans, "m").targets) == ["mock/mock", "local/m"]
    known.conditions["mock/mock"] = Condition(broken=True)
    assert places(decide(plans, "m").targets) == ["local/m", "mock/mock"]


def test_what_breaks_is_left_at_once_also_where_a_ranking_is_remembered() -> None:
    known = Known()
    plans = planner("openai", known=known)
    assert decide(plans, "auto", {"strategy": "cost"}).model == "gpt-4o-mini"
    known.conditions["openai/gpt-4o-mini"] = Condition(broken=True)
    assert decide(plans, "auto", {"strategy": "cost"}).model == "gpt-3.5-turbo"


def test_a_task_may_stand_for_auto_and_a_model_may_be_called_so() -> None:
    tasks = planner("openai", defaults={"think": "auto"})
    assert decide(tasks, "think", {"strategy": "quality"}).model == "o1-preview"
    own = planner("openai", models={"auto": ModelConfig(provider="openai", engine="gpt-4o")})
    choice = decide(own, "auto")
    assert (choice.model, choice.is_asked) == ("auto", False)


def test_a_pattern_says_where_all_models_of_a_kind_run() -> None:
    models = {
        "claude-*": ModelConfig(provider="openrouter", timeout=5),
        "claude-x": ModelConfig(provider="local"),
        "gpt-?": ModelConfig(provider="local", engine="tiny"),
    }
    plans = planner("openrouter", "local", "anthropic", models=models)
    (target,) = decide(plans, "claude-opus-9").targets
    assert (target.provider, target.engine, target.timeouts.total) == (
        "openrouter", "claude-opus-9", 5,
    )  # fmt: skip
    assert places(decide(plans, "claude-3-haiku").targets) == [
        "openrouter/anthropic/claude-3-haiku"
    ], "what the vendor calls it"
    assert places(decide(plans, "claude-x").targets) == ["local/claude-x"]
    assert places(decide(plans, "gpt-9").targets) == ["local/tiny"]
    assert isinstance(refused(plans, "claude-*"), ModelNotFound)
    assert isinstance(refused(plans, "claude-\n"), ModelNotFound)


@pytest.mark.parametrize(("enabled", "busy_share"), [(True, 0), (False, 50)])
def test_equal_targets_share_by_load_unless_that_is_switched_off(
    enabled: bool, busy_share: int
) -> None:
    busy = Known({"local/m": Condition(total_ms=900, running=9), "mock/m": Condition(total_ms=90)})
    models = {"m": ModelConfig(targets=(TargetConfig("local"), TargetConfig("mock")))}
    settings = RouterConfig(load_balancing_enabled=enabled)
    clock = drawing(0.1, 0.1, 0.9, 0.9) if not enabled else drawing(0.1, 0.9)
    config = Config(
        providers={"mock": MOCK, "local": KEYED["local"]}, models=models, router=settings
    )
    routes = Router(config, CATALOG, clock, busy)
    firsts = Counter(routes.plan("m")[0].provider for _ in range(100))
    assert firsts["local"] == busy_share


CANARY = RoutePolicy("canary", primary="one", canary="two", percent=5)
TWO = {
    "one": ModelConfig(provider="local", fallbacks=("mock",)),
    "two": ModelConfig(provider="openai"),
}


def test_a_canary_of_five_percent_gets_its_share_within_binomial_bounds() -> None:
    plans = planner(
        "local", "openai", models=TWO, routes={"chat": CANARY}, clock=Clock(now_ns=lambda: NOON)
    )
    calls, share = 20_000, 0.05
    found = Counter(tuple(places(decide(plans, "chat").targets)) for _ in range(calls))
    assert found.keys() == {
        ("local/one", "mock/mock"),
        ("openai/two", "local/one"),
    }, "the primary stands in for the canary, which stands in for nobody"
    # Five standard deviations: one run in 1.7 million is further off.
    bound = 5 * sqrt(calls * share * (1 - share))
    assert abs(found["openai/two", "local/one"] - calls * share) < bound


@pytest.mark.parametrize(("percent", "engines"), [(0, {"one"}), (100, {"two"})])
def test_a_canary_of_nothing_or_all(percent: float, engines: set[str]) -> None:
    route = RoutePolicy("canary", primary="one", canary="two", percent=percent)
    clock = drawing(*[(number + 0.5) / 1000 for number in range(1000)])
    plans = planner("local", "openai", models=TWO, routes={"chat": route}, clock=clock)
    assert {decide(plans, "chat").targets[0].engine for _ in range(1000)} == engines


def test_a_weighted_route_is_drawn_by_its_weights_with_the_others_behind() -> None:
    targets = (RouteTarget("one", 90), RouteTarget("two", 10), RouteTarget("mock", 0))
    route = RoutePolicy("weighted", targets=targets)
    clock = drawing(*[(number + 0.5) / 1000 for number in range(1000)])
    plans = planner("local", "openai", models=TWO, routes={"chat": route}, clock=clock)
    found = Counter(tuple(places(decide(plans, "chat").targets)) for _ in range(1000))
    assert found == {
        ("local/one", "openai/two", "mock/mock"): 900,
        ("openai/two", "local/one", "mock/mock"): 100,
    }


def test_wishes_do_not_change_the_shares_of_a_route_and_bound_it_all_the_same() -> None:
    clock = drawing(*[number / 100 for number in range(100)])
    plans = planner("local", "openai", models=TWO, routes={"chat": CANARY}, clock=clock)
    asked = {"strategy": "cost", "preferred_providers": ["openai"]}
    firsts = Counter(decide(plans, "chat", asked).targets[0].engine for _ in range(100))
    assert firsts["one"] > 90
    assert refused(plans, "chat", {"region": "eu"}).info.code == "no_eligible_model"


def finish(provider: str, engine: str) -> Finish:
    return Finish(
        FIRST_FENCE, 1, "e", NOON, provider, engine, Usage(), None, "", Timings(1.0), attempts=1
    )


def test_an_answer_tells_of_its_route_where_it_was_asked_for_or_a_fallback_was_used() -> None:
    models = {"m": ModelConfig(provider="local", fallbacks=("mock",))}
    plans = planner("local", models=models)
    plain = decide(plans, "m")
    assert plain.told(finish("local", "m")) is None
    assert plain.told(finish("mock", "mock")) == {
        "selected_provider": "mock",
        "routing_reason": "as configured; local/m did not answer",
        "considered_models": ("local/m", "mock/mock"),
        "fallback_used": True,
        "cache_hit": False,
    }
    asked = decide(plans, "m", {}).told(finish("local", "m"))
    assert asked is not None
    assert (asked["fallback_used"], asked["routing_reason"]) == (False, "as configured")


def test_an_explanation_is_the_plan_that_a_call_gets() -> None:
    models = {"m": ModelConfig(provider="local", fallbacks=("mock",), max_tokens=9)}
    plans = planner("local", "openai", models=models)
    for model, routing in [
        ("m", None),
        ("m", {}),
        ("auto", {"strategy": "cost"}),
        ("gpt-4o", None),
    ]:
        body = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
        if routing is not None:
            body["routing"] = routing
        request = openai.parse(json.dumps(body).encode())
        explained = plans.explain(NOBODY, request, NONE)
        assert explained.targets == plans.decide(NOBODY, request, NONE).targets
        assert {one.candidate.target for one in explained.chosen} == {*explained.targets}
