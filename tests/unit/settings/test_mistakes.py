"""What is wrong in the settings is named with its place and a way out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compose.settings import ConfigError, load
from ingress.routing import Router
from schemas.catalog import Catalog
from schemas.config import Config
from tests.given_settings import complaint, complaint_of, from_yaml


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: {gpt-4o: {input_cost: abc}}", "models.gpt-4o.input_cost: expected a number,"),
        ("models: {m: {max_tokens: 1.5}}", "models.m.max_tokens: expected a whole number, got 1.5"),
        ("models: {m: {max_tokens: 0}}", "models.m.max_tokens: expected a whole number >= 1, got"),
        ("models: {m: {fallbacks: x}}", "models.m.fallbacks: expected a list, got 'x'"),
        (
            "models: {m: {targets: [{provider: mock, weight: -1}]}}",
            "models.m.targets.0.weight: expected a whole number >= 0, got -1",
        ),
        ("models: {m: {targets: [{engine: x}]}}", "models.m.targets.0.provider: missing"),
        (
            "models: {m: {providr: x}}",
            "models.m.providr: unknown setting; did you mean models.m.provider?",
        ),
        ("models: {m: {zzz: x}}", "models.m.zzz: unknown setting; known here: audio_input_cost,"),
        ("model: {}", "model: unknown setting; did you mean models?"),
        ("models: [a]", "models: expected a mapping by name, got ['a']"),
        ("models: {m: 5}", "models.m: expected a mapping of settings, got 5"),
        ("port: '80'", "port: expected a whole number, got '80'"),
        ("port: 70000", "port: expected a whole number <= 65535, got 70000"),
        (
            "log_level: loud",
            "log_level: expected one of debug, info, warning, error, critical, got",
        ),
        ("mock_all: 1", "mock_all: expected true or false, got 1"),
        ("defaults: {vitals: 5}", "defaults.vitals: expected text, got 5"),
        ("budget: {daily_limit_usd: -1}", "budget.daily_limit_usd: expected a number >= 0.0, got"),
        ("budget: {warning_threshold: 80}", "budget.warning_threshold: expected a number <= 1.0,"),
        (
            "router: {default_strategy: best}",
            "router.default_strategy: expected one of auto, cost,",
        ),
        ("limits: {burst: many}", "limits.burst: expected a whole number, got 'many'"),
        ("queue: {ack_wait: .inf}", "queue.ack_wait: expected a number, got inf"),
        ("queue: {ack_wait: .nan}", "queue.ack_wait: expected a number, got nan"),
        ("metrics: {open: true}", "metrics.open: unknown setting; known here: require_key"),
        ("providers: [x]", "providers: expected a mapping of settings, got a list"),
        ("providers: {x: {base_url: ftp://x}}", "providers.x.base_url: expected an http:// or"),
        ("providers: {x: {base_url: 'http://h:99999'}}", "providers.x.base_url: expected an http"),
        ("providers: {x: {}}", "providers.x.base_url: missing, it has no default"),
        ("providers: {x: {dialect: klingon}}", "providers.x.dialect: expected one of anthropic,"),
        ("providers: {'a b': {}}", "providers.a b: a name has letters, digits,"),
        ("providers: {mock: {pool: a.>}}", "providers.mock.pool: a name has letters, digits,"),
        ("providers: {mock: {concurrency: 0}}", "providers.mock.concurrency: expected a whole"),
        ("- a", "given.yaml: expected a mapping of settings such as `models:`"),
        ("models: {", "given.yaml: not valid YAML:"),
        ("models: {1: {}}", "models: the name 1 is not text: put it in quotes"),
    ],
)
def test_an_error_names_the_setting_and_what_it_takes(text: str, message: str) -> None:
    assert complaint(text).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: {m: {provider: opnai}}", "models.m.provider: unknown provider 'opnai'; add it"),
        (
            "models: {m: {targets: [{provider: nobody}]}}",
            "models.m.targets.0.provider: unknown provider 'nobody'",
        ),
        ("models: {m: {}}", "models.m.provider: missing, and no built-in model is 'm'"),
        (
            "models: {m: {provider: mock, targets: [{provider: mock}]}}",
            "models.m: give either provider and engine, or targets",
        ),
        (
            "models: {m: {targets: [{provider: mock, weight: 0}]}}",
            "models.m.targets: at least one weight must be above 0",
        ),
        (
            "models: {m: {provider: ollama, input_cost: 0.1e-5}}",
            "models.m.output_cost: missing, and the price book does not know 'm' of ollama;",
        ),
        (
            "models: {m: {provider: mock, fallbacks: [gtp-4o]}}",
            "models.m.fallbacks: unknown model 'gtp-4o'; add it under models:",
        ),
        ("defaults: {vitals: gtp-4o}", "defaults.vitals: unknown model 'gtp-4o'"),
        ("bus: {tls_key: k.pem}", "bus.tls_cert: missing, bus.tls_key is the key of a certificate"),
        ("default_provider: nobody", "default_provider: 'nobody' cannot be used; one of: mock"),
    ],
)
def test_a_contradiction_between_settings_is_refused(text: str, message: str) -> None:
    assert complaint(text).startswith(message)


@pytest.mark.parametrize("cost", ["-0.000001", "0.011", "2.5", ".inf"])
def test_negative_and_absurd_costs_are_refused(cost: str) -> None:
    text = f"models: {{m: {{provider: mock, input_cost: {cost}, output_cost: 0}}}}"
    assert complaint(text).startswith("models.m.input_cost: expected a number")


@pytest.mark.parametrize("cost", ["0.0000025", "2.5e-6", "25e-7", "2.5E-06"])
def test_a_cost_may_be_written_as_any_number(cost: str) -> None:
    text = f"models: {{m: {{provider: mock, input_cost: {cost}, output_cost: 0}}}}"
    price = Router(from_yaml(text).config, Catalog.load()).plan("m")[0].price
    assert price is not None
    assert price.rates.input == 2_500_000_000


def test_a_setting_that_is_there_twice_is_refused() -> None:
    message = complaint("models:\n  m: {provider: mock}\n  m: {provider: openai}\n")
    assert "'m' is there twice" in message
    assert "line 3" in message


def test_a_reference_to_nothing_names_the_variable() -> None:
    assert complaint("data_dir: ${NOWHERE}") == (
        "data_dir: NOWHERE is not set; set it, or give a default with ${NOWHERE:-value}"
    )
    assert complaint("api_keys: ['${A_KEY}']").startswith("api_keys.0: A_KEY is not set")


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("PORT", "eighty", "PORT: expected a whole number, got 'eighty'"),
        ("NEXUS_MOCK", "maybe", "NEXUS_MOCK: expected true or false, got 'maybe'"),
        ("GATEWAY_REQUEST_TIMEOUT_SECONDS", "x", "GATEWAY_REQUEST_TIMEOUT_SECONDS: expected a"),
        ("GATEWAY_REQUEST_TIMEOUT_SECONDS", "0", "attempt_timeout: expected a number > 0.0"),
        ("GATEWAY_UPSTREAMS", "llama", "GATEWAY_UPSTREAMS: expected name=value;name=value"),
        ("GATEWAY_UPSTREAMS", "a b=http://x", "GATEWAY_UPSTREAMS: expected name=value;name=value"),
        ("GATEWAY_UPSTREAMS", "a=ftp://x", "GATEWAY_UPSTREAMS: a: expected an http://, https://"),
        ("GATEWAY_FALLBACKS", "a", "GATEWAY_FALLBACKS: expected name=value;name=value"),
        ("GATEWAY_DEFAULT_UPSTREAM", "nobody", "default_provider: 'nobody' cannot be used"),
        ("OPENAI_BASE_URL", "nonsense", "providers.openai.base_url: expected an http:// or"),
        ("CONFIG_PATH", "nowhere.yaml", "nowhere.yaml: cannot be read"),
    ],
)
def test_a_wrong_variable_is_named(variable: str, text: str, message: str) -> None:
    assert complaint_of({variable: text}).startswith(message)


def test_an_unknown_zone_for_budgets_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigError, match=r"^budget_zone: There is no time zone 'Mars/North' here"):
        from_yaml("budget_zone: Mars/North")
    assert from_yaml("budget_zone: Europe/Berlin").config.budget_zone == "Europe/Berlin"


JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(field=st.sampled_from(Config.__struct_fields__), value=JSON_LIKE)
def test_any_value_of_any_setting_loads_or_is_refused_by_name(field: str, value: object) -> None:
    try:
        loaded = load(None, {}, {field: value})
    except ConfigError as error:
        assert str(error)
    else:
        assert isinstance(loaded.config, Config)
