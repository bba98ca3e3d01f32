"""A name becomes an ordered plan of targets; a name that nobody knows becomes one clear error."""

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingress import models
from ingress.routing import Router
from schemas import subjects
from schemas.call import Target, Timeouts
from schemas.catalog import MOCK_PRICE, Catalog
from schemas.config import Config, ModelConfig, ProviderConfig, TargetConfig
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


def places(plan: tuple[Target, ...]) -> list[str]:
    return [f"{target.provider}/{target.engine}" for target in plan]


def refused(routes: Router, name: str) -> str:
    with pytest.raises(ModelNotFound) as caught:
        routes.plan(name)
    info = caught.value.info
    assert (info.status, info.type) == (404, "invalid_request_error")
    assert (info.code, info.param) == ("model_not_found", "model")
    return info.message


def everything(*names: str) -> bool:
    return True


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


def test_an_unknown_name_is_refused_as_document_003_words_it() -> None:
    message = refused(router("openai"), "invalid-model")
    assert message == "The model 'invalid-model' does not exist"


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("gpt-5-mini", "set OPENAI_API_KEY"),
        ("openai/gpt-4o", "set OPENAI_API_KEY"),
        ("claude-3-opus", "set ANTHROPIC_API_KEY, or set OPENROUTER_API_KEY"),
        ("azure/mine", "set AZURE_OPENAI_API_KEY and AZURE_OPENAI_ENDPOINT"),
        ("ollama/llama3", "set OLLAMA_BASE_URL"),
        ("vitals", "set OPENAI_API_KEY"),
        ("eu", "give provider azure-eu its key, or set OPENAI_API_KEY"),
    ],
)
def test_a_name_without_a_key_says_what_to_set(name: str, remedy: str) -> None:
    entries = {
        "task": ModelConfig(provider="openai"),
        "eu": ModelConfig(provider="azure-eu", fallbacks=("task",)),
    }
    routes = router(models=entries, defaults={"vitals": "task"})
    message = refused(routes, name)
    assert message == f"The model '{name}' is not available here: the operator can {remedy}"
    assert routes.remedy(name) == remedy


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "gpt-4o ",
        "gpt-4o\n",
        "gpt-4o\x00",
        "a b",
        "*",
        ">",
        "work.>",
        "../../etc/passwd",
        "openai/../secret",
        "openai/",
        "/gpt-4o",
        "openai/gpt-4o\r\nX-Evil: 1",
        "openai/gpt-4o?key=1",
        "gpt-4o" * 2000,
        "modèle",
        "\ud800",
    ],
)
@pytest.mark.parametrize("settings", [{}, {"mock_all": True}, {"default_provider": "local"}])
def test_a_hostile_name_is_refused_in_one_short_line(name: str, settings: dict[str, Any]) -> None:
    message = refused(router("openai", "local", **settings), name)
    assert "does not exist" in message
    assert message.isprintable()
    assert len(message) < 1000


@given(st.text(max_size=300) | st.from_regex(r"[a-z0-9]{1,8}[./:> *\n-]{1,3}[a-z0-9]{0,8}"))
def test_any_name_gives_a_plan_in_configured_pools_or_the_one_error(name: str) -> None:
    routes = router("openai", "local", default_provider="local")
    pools = routes.config.pools()
    try:
        plan = routes.plan(name)
    except ModelNotFound as error:
        assert error.info.message.isprintable()
    else:
        assert plan
        for target in plan:
            assert target.pool in pools
            assert subjects.work(target.pool, "interactive").count(".") == 2


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


def test_a_key_sees_only_the_models_it_may_use() -> None:
    routes = router("openai", "anthropic", defaults={"coding": "gpt-4o"})
    listed = models.models(routes, lambda *names: any(name == "gpt-4o" for name in names))
    assert [row["id"] for row in listed["data"]] == ["gpt-4o"]


def test_the_list_of_models_has_the_shape_of_document_003() -> None:
    listed = models.models(router("anthropic"), everything)
    assert listed["object"] == "list"
    row = next(row for row in listed["data"] if row["id"] == "claude-3.5-sonnet")
    assert row == {
        "id": "claude-3.5-sonnet",
        "object": "model",
        "created": 1729555200,
        "owned_by": "anthropic",
        "provider": "anthropic",
        "display_name": "Claude 3.5 Sonnet",
        "capabilities": {
            "max_tokens": 8192,
            "context_window": 200000,
            "supports_vision": True,
            "supports_function_calling": True,
            "supports_streaming": True,
            "cost_per_1k_input_tokens": 0.003,
            "cost_per_1k_output_tokens": 0.015,
            "avg_latency_ms": None,
        },
        "category": "reasoning",
        "tier": "premium",
        "available": True,
    }


def test_the_list_has_all_names_and_says_which_can_be_used() -> None:
    entry = ModelConfig(provider="local", max_tokens=99)
    routes = router("openai", "local", models={"mine": entry})
    rows = {row["id"]: row for row in models.models(routes, everything)["data"]}
    assert rows.keys() >= {"mine", "mock", "gpt-4o", "gpt-5-mini", "claude-3-opus"}
    assert len(rows) == len(models.models(routes, everything)["data"])
    assert {name: rows[name]["available"] for name in ("mine", "gpt-5-mini", "claude-3-opus")} == {
        "mine": True,
        "gpt-5-mini": True,
        "claude-3-opus": False,
    }
    usable = models.models(routes, everything, only_available=True)["data"]
    assert [row["id"] for row in usable] == [name for name, row in rows.items() if row["available"]]
    for row in usable:
        assert routes.plan(row["id"])
    assert rows["gemini-1.5-pro"]["provider"] == "google"


def test_what_is_not_known_of_a_model_is_null() -> None:
    routes = router("local", models={"mine": ModelConfig(provider="local", max_tokens=99)})
    row = models.model(routes, "mine")
    assert row["capabilities"] == {
        "max_tokens": 99,
        "context_window": None,
        "supports_vision": None,
        "supports_function_calling": None,
        "supports_streaming": None,
        "cost_per_1k_input_tokens": None,
        "cost_per_1k_output_tokens": None,
        "avg_latency_ms": None,
    }
    assert (row["created"], row["owned_by"], row["tier"]) == (0, "local", None)
    assert msgspec.json.decode(msgspec.json.encode(row)) == row


def test_one_model_is_shown_by_any_name_that_a_call_could_use() -> None:
    routes = router("openai", defaults={"vitals": "gpt-4o"})
    assert models.model(routes, "vitals")["capabilities"]["max_tokens"] == 16384
    assert models.model(routes, "openai/gpt-4o")["available"] is True
    assert models.model(routes, "claude-3-opus")["available"] is False
    with pytest.raises(ModelNotFound, match="The model 'nope' does not exist"):
        models.model(routes, "nope")


def test_the_configured_models_are_listed_as_document_001_writes_them() -> None:
    entry = ModelConfig(
        provider="openai", input_cost=0.0000025, output_cost=0.00001, max_tokens=8192, timeout=60
    )
    routes = router("openai", models={"gpt-4o": entry}, defaults={"vitals": "gpt-4o"})
    listed = models.configured_models(routes)
    assert listed["defaults"] == {"vitals": "gpt-4o"}
    assert [row["id"] for row in listed["models"]] == ["gpt-4o", "mock"]
    assert listed["models"][0] == {
        "id": "gpt-4o",
        "provider": "openai",
        "engine": "gpt-4o",
        "input_cost": 0.0000025,
        "output_cost": 0.00001,
        "max_tokens": 8192,
        "timeout": 60,
        "fallbacks": [],
        "available": True,
    }
