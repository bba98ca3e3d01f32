"""A name becomes an ordered plan of targets: which providers, which engines, at which prices."""

from collections import Counter
from typing import Any

import pytest

from ingress.routing import Router
from schemas.call import Target, Timeouts
from schemas.catalog import MOCK_PRICE, Catalog
from schemas.config import Config, ModelConfig, ProviderConfig, TargetConfig
from schemas.errors import ModelNotFound
from schemas.ids import Clock
from tests.routes import CATALOG, KEYED, MOCK, NOON, refused, router


def places(plan: tuple[Target, ...]) -> list[str]:
    return [f"{target.provider}/{target.engine}" for target in plan]


OF_CLIENTS = ProviderConfig(base_url="https://api.openai.com/v1", client_keys="required")


def of_clients(**settings: Any) -> Router:
    """A gateway without a key for OpenAI, whose clients bring their own; and with one for Azure."""
    providers = {"mock": MOCK, "openai": OF_CLIENTS, "azure": KEYED["azure"], **settings}
    return Router(Config(providers=providers), CATALOG, Clock(now_ns=lambda: NOON))


def test_mock_is_always_there() -> None:
    assert router().plan("mock") == (Target("mock", "mock", "mock", MOCK_PRICE),)


@pytest.mark.parametrize(
    ("providers", "place"),
    [
        (["azure", "openai"], "azure/gpt-4o-2024-08-06"),
        (["openai"], "openai/gpt-4o"),
        (["openrouter"], "openrouter/openai/gpt-4o"),
    ],
)
def test_an_alias_runs_at_its_own_provider_else_at_any_with_a_key(
    providers: list[str], place: str
) -> None:
    plan = router(*providers).plan("gpt-4o")
    assert places(plan) == [place]
    assert plan[0].price is not None
    assert plan[0].price.rates.input == 2_500_000_000


def test_an_alias_has_its_price_also_where_the_engine_is_not_listed() -> None:
    (target,) = router("azure").plan("gpt-3.5-turbo")
    assert target.engine == "gpt-35-turbo-0125"
    assert target.price is not None
    assert target.price.rates.input == 500_000_000


def test_the_configuration_wins_over_the_catalog() -> None:
    entry = ModelConfig(provider="local", engine="llama", input_cost=0.0000025, output_cost=0.00001)
    (target,) = router("openai", "local", models={"gpt-4o": entry}).plan("gpt-4o")
    assert (target.provider, target.engine, target.pool) == ("local", "llama", "local")
    assert target.price is not None
    assert target.price.id.startswith("config/gpt-4o/")
    assert (target.price.rates.input, target.price.rates.output) == (2_500_000_000, 10_000_000_000)


def test_the_id_of_a_configured_price_changes_with_the_figures() -> None:
    def price_id(output_cost: float) -> str:
        entry = ModelConfig(provider="local", input_cost=0.000001, output_cost=output_cost)
        price = router("local", models={"m": entry}).plan("m")[0].price
        assert price is not None
        return price.id

    assert price_id(0.000002) == price_id(0.000002)
    assert price_id(0.000002) != price_id(0.000003)


def test_a_model_that_names_nothing_but_itself_is_found_in_the_catalog() -> None:
    routes = router("openai", models={"gpt-4o": ModelConfig(timeout=7), "mine": ModelConfig()})
    (target,) = routes.plan("gpt-4o")
    assert places((target,)) == ["openai/gpt-4o"]
    assert target.timeouts == Timeouts(connect=7, first_byte=7, idle=7, total=7)


def test_an_unknown_price_is_none() -> None:
    (target,) = router("local", models={"m": ModelConfig(provider="local")}).plan("m")
    assert target.price is None


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("openai/gpt-4o", "openai/gpt-4o"),
        ("openai/ft:gpt-4o:acme::id", "openai/ft:gpt-4o:acme::id"),
        ("local/meta-llama/Llama-3", "local/meta-llama/Llama-3"),
        ("mock/anything", "mock/anything"),
        ("gpt-5-mini", "openai/gpt-5-mini"),
        ("claude-3-opus-20240229", "anthropic/claude-3-opus-20240229"),
    ],
)
def test_engines_are_reached_by_provider_or_by_a_listed_name(name: str, place: str) -> None:
    assert places(router("openai", "anthropic", "local").plan(name)) == [place]


def test_the_name_of_a_task_stands_for_its_model() -> None:
    routes = router("openai", defaults={"vitals": "gpt-4o", "mock": "gpt-4o"})
    assert routes.plan("vitals") == routes.plan("gpt-4o")
    assert (routes.chosen("vitals"), routes.chosen("gpt-4o")) == ("gpt-4o", "gpt-4o")


def test_a_configured_model_wins_over_a_task_of_its_name() -> None:
    entry = ModelConfig(provider="local", engine="tiny")
    routes = router("local", models={"vitals": entry}, defaults={"vitals": "gpt-4o"})
    assert places(routes.plan("vitals")) == ["local/tiny"]


def test_fallbacks_follow_in_order_once_each_and_only_where_they_can_run() -> None:
    entries = {
        "a": ModelConfig(
            provider="local", fallbacks=("claude-3-haiku", "b", "a", "mistral-large", "mock")
        ),
        "b": ModelConfig(provider="openai", engine="gpt-4o-mini", fallbacks=("a",)),
    }
    plan = router("local", "openai", "anthropic", models=entries).plan("a")
    assert places(plan) == [
        "local/a",
        "anthropic/claude-3-haiku-20240307",
        "openai/gpt-4o-mini",
        "mock/mock",
    ]


def test_a_model_whose_own_provider_has_no_key_runs_at_its_fallback() -> None:
    entry = ModelConfig(provider="anthropic", fallbacks=("mock",))
    assert places(router(models={"m": entry}).plan("m")) == ["mock/mock"]


def test_weights_choose_the_first_target_and_the_others_follow() -> None:
    targets = (
        TargetConfig("local", "llama", 90),
        TargetConfig("openai", "gpt-4o-mini", 10),
        TargetConfig("mock", "spare", 0),
        TargetConfig("anthropic", "claude", 500),
    )
    draws = iter(range(10_000))
    clock = Clock(
        now_ns=lambda: NOON,
        entropy=lambda n: (next(draws) * (2**32 // 10_000)).to_bytes(n, "big"),
    )
    routes = router("local", "openai", models={"chat": ModelConfig(targets=targets)}, clock=clock)
    plans = Counter(tuple(places(routes.plan("chat"))) for _ in range(10_000))
    assert plans.keys() == {
        ("local/llama", "openai/gpt-4o-mini", "mock/spare"),
        ("openai/gpt-4o-mini", "local/llama", "mock/spare"),
    }
    assert plans["local/llama", "openai/gpt-4o-mini", "mock/spare"] == pytest.approx(9000, abs=2)


def test_a_single_usable_target_needs_no_weight() -> None:
    targets = (TargetConfig("openai", "x", 1), TargetConfig("local", "y", 0))
    routes = router("local", models={"chat": ModelConfig(targets=targets)})
    assert places(routes.plan("chat")) == ["local/y"]


def test_providers_may_share_a_pool() -> None:
    config = Config(providers={"mock": MOCK, "local": ProviderConfig(base_url="x", pool="gpu")})
    (target,) = Router(config, CATALOG).plan("local/llama")
    assert target.pool == "gpu"


def test_the_attempt_timeout_holds_where_a_model_has_none() -> None:
    routes = router("openai", models={"m": ModelConfig(provider="mock", timeout=3)})
    assert routes.plan("m")[0].timeouts.total == 3
    assert routes.plan("gpt-4o")[0].timeouts == Timeouts()
    bounded = router("openai", attempt_timeout=30.0)
    assert bounded.plan("gpt-4o")[0].timeouts == Timeouts(
        connect=10, first_byte=30, idle=30, total=30
    )


def test_with_mock_all_every_known_name_is_answered_by_the_mock_at_its_real_price() -> None:
    entry = ModelConfig(provider="openai", input_cost=0.000003, output_cost=0.000004)
    routes = router(mock_all=True, models={"mine": entry})
    for name, rate in {
        "gpt-4o": 2_500_000_000,
        "claude-3-sonnet": 3_000_000_000,
        "gpt-5-mini": 250_000_000,
        "openai/gpt-4o": 2_500_000_000,
        "mine": 3_000_000_000,
    }.items():
        (target,) = routes.plan(name)
        assert (target.provider, target.engine, target.pool) == ("mock", name, "mock")
        assert target.price is not None
        assert target.price.rates.input == rate
    assert "does not exist" in refused(routes, "no-such-model")


def test_the_default_provider_answers_plausible_names_that_nobody_knows() -> None:
    routes = router("local", default_provider="local")
    assert places(routes.plan("qwen2.5-coder:7b")) == ["local/qwen2.5-coder:7b"]
    assert "set OPENAI_API_KEY" in refused(routes, "gpt-4o")


def test_a_plan_follows_a_price_that_changes_with_the_time_of_day() -> None:
    now = NOON
    clock = Clock(now_ns=lambda: now)
    config = Config(providers={"deepseek": ProviderConfig(base_url="x", api_key="k")})
    routes = Router(config, Catalog.load(clock), clock)

    def rate() -> int:
        price = routes.plan("deepseek-chat")[0].price
        assert price is not None
        return price.rates.input

    day = rate()
    now = NOON + 5 * 3600 * 1_000_000_000
    assert (day, rate()) == (270_000_000, 135_000_000)


def test_many_names_are_not_remembered_for_ever() -> None:
    routes = router("local")
    for number in range(10_000):
        routes.plan(f"local/model-{number}")
    assert len(routes._routes) <= 4096
    assert places(routes.plan("local/model-0")) == ["local/model-0"]


def test_a_provider_of_clients_is_used_by_those_who_bring_a_key() -> None:
    routes = of_clients()
    assert places(routes.plan("gpt-4o")) == ["azure/gpt-4o-2024-08-06"]
    assert places(routes.plan("gpt-4o", frozenset({"openai"}))) == ["openai/gpt-4o"]
    assert places(routes.plan("gpt-4o")) == ["azure/gpt-4o-2024-08-06"], "it is not remembered"
    assert places(routes.plan("openai/gpt-4.1", frozenset({"openai"}))) == ["openai/gpt-4.1"]


def test_a_key_for_a_provider_that_cannot_run_the_model_changes_nothing() -> None:
    routes = router("openai", "anthropic")
    assert places(routes.plan("gpt-4o", frozenset({"anthropic"}))) == ["openai/gpt-4o"]


def test_among_several_providers_the_one_with_the_clients_key_is_chosen() -> None:
    routes = router("azure", "openai", "openrouter")
    brought = frozenset({"openrouter"})
    assert places(routes.plan("gpt-4o", brought)) == ["openrouter/openai/gpt-4o"]


def test_what_runs_only_with_a_clients_key_says_so() -> None:
    routes = of_clients()
    assert refused(routes, "openai/gpt-4.1") == (
        "The model 'openai/gpt-4.1' runs here only with your own key:"
        " send 'X-Nexus-Provider-Key: openai=<key>'"
    )
    assert routes.target("openai/gpt-4.1") is None


def test_passing_through_keeps_the_name_and_knows_its_price() -> None:
    routes = of_clients(target=OF_CLIENTS)
    (target,) = routes.through("gpt-4o")
    assert (target.provider, target.engine, target.pool) == ("target", "gpt-4o", "target")
    assert target.price is not None and target.price == CATALOG.price("openai", "gpt-4o")
    assert routes.through("ft:gpt-4o:mine::1")[0].price is None
    assert "target" not in places(routes.plan("gpt-4o"))[0]
    with pytest.raises(ModelNotFound):
        routes.through("../admin")
