"""Settings: what the documents write is accepted, what is wrong is named with its place and a way
out, and no secret is ever shown."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compose import environment
from compose.check import describe
from compose.notices import NO_SECRET
from compose.settings import ConfigError, load
from ingress.routing import Router
from schemas.catalog import Catalog
from schemas.config import Config
from tests.given_settings import complaint, complaint_of, from_env, from_yaml

SAMPLE = Path(__file__).parents[2] / "config" / "models.yaml"
DOCUMENT_001 = """
models:
  gpt-4o:
    provider: openai
    engine: gpt-4o
    input_cost: 0.0000025   # USD per token
    output_cost: 0.00001
    max_tokens: 8192
defaults:
  self_reflection: o3-pro
  vitals: gpt-4o
  experiment: o3-pro
budget:
  daily_limit_usd: 20
  hard_stop: true          # Block requests when limit reached
  warning_threshold: 0.8   # Warn at 80% usage
"""
DOCUMENT_002 = """
target_url: https://api.openai.com
limits:
  requests_per_second: 10      # 10 requests per second per API key
  burst: 20                    # Allow bursts up to 20 requests
  model_tokens_per_minute: 50000  # 50k tokens per minute per API key
"""
DOCUMENT_003 = """
router:
  default_strategy: auto
  preferred_providers: [anthropic, openai]
  blocked_providers: []
  enable_fallbacks: true
  max_fallback_attempts: 3
  fallback_delay_ms: 1000
  max_cost_per_request: 1.00
  cost_alert_threshold: 0.50
  enable_cost_optimization: true
  cache_enabled: true
  cache_ttl_seconds: 3600
  load_balancing_enabled: true
"""
DESIGN = """
providers:
  openai:   {dialect: openai, base_url: https://api.openai.com/v1, api_key: ${OPENAI_API_KEY}}
  eu:       {base_url: https://NAME.openai.azure.com/openai/v1, api_key: ${EU_KEY}, region: eu}
  local:    {dialect: openai, base_url: http://127.0.0.1:8001/v1}
models:
  gpt-4o:
    provider: openai
    engine: gpt-4o-2024-08-06
    timeout: 60
    fallbacks: [claude-3-sonnet]
  chat:
    targets: [{provider: local, engine: llama, weight: 90}, {provider: openai, weight: 10}]
"""


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_nothing_set_is_a_working_gateway_on_loopback() -> None:
    config, origins, notices = from_env()
    assert (config.host, config.port) == ("127.0.0.1", 8080)
    assert list(config.providers) == ["mock"]
    assert config.pools() == {"mock": 256}
    assert config.api_keys == ("dev-key",)
    assert origins == {"api_keys": "default, on loopback only"}
    assert notices == [NO_SECRET]


def test_the_sample_works_as_it_is_shipped() -> None:
    config, _, notices = load(str(SAMPLE), {"OPENAI_API_KEY": "k"}, {})
    routes = Router(config, Catalog.load())
    for name in ("gpt-4o", "gpt-4o-mini", "o3-pro", "self_reflection", "vitals", "experiment"):
        assert routes.plan(name)[0].provider == "openai"
    assert notices == [NO_SECRET]


def test_the_sections_of_document_001_are_read() -> None:
    config, _, notices = from_yaml(DOCUMENT_001, {"OPENAI_API_KEY": "k"})
    assert config.models["gpt-4o"].input_cost == 0.0000025
    assert config.defaults["vitals"] == "gpt-4o"
    assert (config.budget.daily_limit_usd, config.budget.hard_stop) == (20, True)
    assert notices == [NO_SECRET]


def test_the_sections_of_document_002_are_read() -> None:
    config, _, notices = from_yaml(DOCUMENT_002)
    assert config.target_url == "https://api.openai.com"
    assert (config.limits.requests_per_second, config.limits.burst) == (10, 20)
    assert config.limits.max_body_bytes == 32 * 1024 * 1024
    assert notices == [NO_SECRET]


def test_the_twelve_keys_of_the_router_are_read() -> None:
    config, _, notices = from_yaml(DOCUMENT_003)
    assert config.router.preferred_providers == ("anthropic", "openai")
    assert config.router.max_cost_per_request == 1
    assert notices == [NO_SECRET, "router: accepted, not enforced by this version"]


def test_the_sections_of_the_design_are_read() -> None:
    keys = {"OPENAI_API_KEY": "sk-1", "EU_KEY": "sk-2"}
    config, _, notices = from_yaml(DESIGN, keys)
    assert list(config.providers) == ["openai", "mock", "eu", "local"]
    assert (config.providers["openai"].api_key, config.providers["eu"].api_key) == ("sk-1", "sk-2")
    assert config.models["chat"].targets[0].weight == 90
    assert notices == [
        NO_SECRET,
        "models.gpt-4o.fallbacks.claude-3-sonnet: not available,"
        " set ANTHROPIC_API_KEY, or set OPENROUTER_API_KEY",
    ]


def test_a_provider_whose_key_is_not_set_is_not_used_and_says_so() -> None:
    config, _, notices = from_yaml(DESIGN)
    assert list(config.providers) == ["mock", "local"]
    assert notices[:2] == [
        "providers.openai: not used, OPENAI_API_KEY is not set",
        "providers.eu: not used, EU_KEY is not set",
    ]
    assert any(notice.startswith("models.gpt-4o: not available") for notice in notices)


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
        ("models: {m: {zzz: x}}", "models.m.zzz: unknown setting; known here: engine, fallbacks,"),
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
        ("providers: {x: {dialect: klingon}}", "providers.x.dialect: expected one of mock, openai"),
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
            "models: {m: {provider: mock, input_cost: 0.1e-5}}",
            "models.m: give both input_cost and output_cost, or neither",
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


def test_references_are_resolved_anywhere_and_may_have_a_default() -> None:
    text = "data_dir: ${HOME_DIR}/nexus\nhost: ${HOST:-localhost}\nbus: {url: ${BUS:-nats://b:1}}"
    config = from_yaml(text, {"HOME_DIR": "/srv"}).config
    assert (config.data_dir, config.host, config.bus.url) == (
        "/srv/nexus",
        "localhost",
        "nats://b:1",
    )


def test_a_reference_to_nothing_names_the_variable() -> None:
    assert complaint("data_dir: ${NOWHERE}") == (
        "data_dir: NOWHERE is not set; set it, or give a default with ${NOWHERE:-value}"
    )
    assert complaint("api_keys: ['${A_KEY}']").startswith("api_keys.0: A_KEY is not set")


@pytest.mark.parametrize(
    ("text", "variable"),
    [
        ("admin_token: hunter2", "ADMIN_TOKEN"),
        ("api_keys: [hunter2]", "GATEWAY_API_KEYS"),
        ("api_keys: ['${GOOD}', hunter2]", "GATEWAY_API_KEYS"),
        ("bus: {password: hunter2}", "NEXUS_NATS_PASSWORD"),
        ("providers: {azure-eu: {base_url: https://x, api_key: hunter2}}", "AZURE_EU_API_KEY"),
    ],
)
def test_a_secret_in_the_file_is_refused_without_being_shown(text: str, variable: str) -> None:
    message = complaint(text, {"GOOD": "good"})
    assert f"a secret does not belong in the file; write ${{{variable}}}" in message
    assert "hunter2" not in message


def test_a_wrong_secret_is_not_shown() -> None:
    message = complaint("providers: {mock: {api_key: [987654]}}", {})
    assert "987654" not in message


def test_secrets_by_reference_are_read() -> None:
    text = "api_keys: ['${ONE}', '${TWO}']\nadmin_token: ${THREE}"
    config = from_yaml(text, {"ONE": "1", "TWO": "2", "THREE": "3"}).config
    assert (config.api_keys, config.admin_token) == (("1", "2"), "3")


def test_environment_beats_file_and_command_line_beats_environment() -> None:
    text = "port: 1\nhost: localhost\ndata_dir: d\nlog_level: error"
    env = {"NEXUS_PORT": "2", "NEXUS_HOST": "127.0.0.2", "LOG_LEVEL": "DEBUG"}
    config, origins, _ = from_yaml(text, env, port=3, host=None)
    assert (config.port, config.host, config.data_dir) == (3, "127.0.0.2", "d")
    assert config.log_level == "debug"
    assert origins["port"] == "command line"
    assert origins["host"] == "environment NEXUS_HOST"
    assert origins["data_dir"] == "given.yaml"


@pytest.mark.parametrize(
    ("env", "field", "value"),
    [
        ({"PORT": "1"}, "port", 1),
        ({"PORT": "1", "UNIFIED_GATEWAY_PORT": "2"}, "port", 2),
        ({"PORT": "1", "UNIFIED_GATEWAY_PORT": "2", "NEXUS_PORT": "3"}, "port", 3),
        ({"NEXUS_PORT": "tcp://10.0.0.1:80"}, "port", 8080),
        ({"PORT": ""}, "port", 8080),
        ({"UNIFIED_GATEWAY_HOST": "::1"}, "host", "::1"),
        ({"GATEWAY_API_KEYS": " a, b ,,c"}, "api_keys", ("a", "b", "c")),
        ({"ADMIN_TOKEN": "t"}, "admin_token", "t"),
        ({"ADMIN_TOKEN": "t"}, "api_keys", ()),
        ({"GATEWAY_REQUEST_TIMEOUT_SECONDS": "7.5"}, "attempt_timeout", 7.5),
        ({"NEXUS_CLICKHOUSE_URL": "http://c:8123"}, "clickhouse_url", "http://c:8123"),
        ({"NEXUS_DATA_DIR": "/srv"}, "data_dir", "/srv"),
        ({"NEXUS_MOCK": "true"}, "mock_all", True),
    ],
)
def test_variables_of_all_documents_are_read(
    env: dict[str, str], field: str, value: object
) -> None:
    assert getattr(from_env(**env).config, field) == value


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
        ("GATEWAY_UPSTREAMS", "a=litellm://b", "GATEWAY_UPSTREAMS: a: litellm:// comes with a"),
        ("GATEWAY_FALLBACKS", "a", "GATEWAY_FALLBACKS: expected name=value;name=value"),
        ("GATEWAY_DEFAULT_UPSTREAM", "nobody", "default_provider: 'nobody' cannot be used"),
        ("OPENAI_BASE_URL", "nonsense", "providers.openai.base_url: expected an http:// or"),
        ("CONFIG_PATH", "nowhere.yaml", "nowhere.yaml: cannot be read"),
    ],
)
def test_a_wrong_variable_is_named(variable: str, text: str, message: str) -> None:
    assert complaint_of({variable: text}).startswith(message)


def test_upstreams_of_document_004_are_providers_and_models() -> None:
    config, origins, _ = from_env(
        GATEWAY_UPSTREAMS="llama=http://localhost:8001;mock=mock://local;big=https://h/v2/",
        GATEWAY_DEFAULT_UPSTREAM="llama",
        GATEWAY_FALLBACKS="llama=big,mock",
    )
    assert config.providers["llama"].base_url == "http://localhost:8001/v1"
    assert config.providers["big"].base_url == "https://h/v2"
    assert origins["models.llama.fallbacks"] == "environment GATEWAY_FALLBACKS"
    routes = Router(config, Catalog.load())

    def places(name: str) -> list[str]:
        return [f"{target.provider}/{target.engine}" for target in routes.plan(name)]

    assert places("llama") == ["llama/llama", "big/big", "mock/mock"]
    assert places("something-else") == ["llama/something-else"]


def test_a_vendor_is_used_when_its_key_is_set() -> None:
    config, origins, _ = from_env(GROQ_API_KEY="k", MISTRAL_API_KEY="", XAI_API_KEY=" k2 ")
    assert list(config.providers) == ["groq", "xai", "mock"]
    assert config.providers["groq"].base_url == "https://api.groq.com/openai/v1"
    assert config.providers["xai"].api_key == "k2"
    assert origins["providers.groq.api_key"] == "environment GROQ_API_KEY"


def test_a_vendor_at_another_address_needs_no_key() -> None:
    config = from_env(OPENAI_BASE_URL="http://127.0.0.1:9999", OLLAMA_BASE_URL="http://h:1").config
    assert config.providers["openai"].base_url == "http://127.0.0.1:9999/v1"
    assert config.providers["openai"].api_key == ""
    assert config.providers["ollama"].base_url == "http://h:1/v1"


def test_azure_needs_its_endpoint_and_its_key() -> None:
    half = from_env(AZURE_OPENAI_API_KEY="k")
    assert list(half.config.providers) == ["mock"]
    assert half.notices == [
        "providers.azure: not used, AZURE_OPENAI_ENDPOINT is not set",
        NO_SECRET,
    ]
    whole = from_env(AZURE_OPENAI_API_KEY="k", AZURE_OPENAI_ENDPOINT="https://n.openai.azure.com/")
    assert whole.config.providers["azure"].base_url == "https://n.openai.azure.com/openai/v1"


def test_an_entry_in_the_file_adds_to_a_built_in_provider() -> None:
    text = "providers: {openai: {concurrency: 3}, mock: {options: {chunks: '9'}}, ollama: {}}"
    config = from_yaml(text, {"OPENAI_API_KEY": "k"}).config
    openai = config.providers["openai"]
    assert (openai.concurrency, openai.api_key) == (3, "k")
    assert openai.base_url == "https://api.openai.com/v1"
    assert config.providers["mock"].dialect == "mock"
    assert config.providers["ollama"].base_url == "http://127.0.0.1:11434/v1"


def test_a_key_that_the_file_refers_to_wins_over_the_vendors_own_variable() -> None:
    text = "providers: {openai: {api_key: ${TEAM_KEY}}}"
    both = {"TEAM_KEY": "team", "OPENAI_API_KEY": "own"}
    assert from_yaml(text, both).config.providers["openai"].api_key == "team"
    assert from_yaml(text, {"OPENAI_API_KEY": "own"}).config.providers["openai"].api_key == "own"


def test_an_address_that_is_the_gateway_itself_is_noticed() -> None:
    notices = from_env(OPENAI_BASE_URL="http://localhost:8080/v1").notices
    assert any("looks like this gateway itself" in notice for notice in notices)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "gateway.example", ""])
def test_without_keys_of_its_own_the_gateway_listens_on_loopback_only(host: str) -> None:
    with pytest.raises(ConfigError, match="set GATEWAY_API_KEYS or ADMIN_TOKEN"):
        load(None, {}, {"host": host})
    with pytest.raises(ConfigError, match="'dev-key' is known to everybody"):
        load(None, {"GATEWAY_API_KEYS": "other,dev-key"}, {"host": host})
    for key in ("GATEWAY_API_KEYS", "ADMIN_TOKEN"):
        config = load(None, {key: "own"}, {"host": host}).config
        assert (config.host, "dev-key" in config.api_keys) == (host, False)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost", "LOCALHOST"])
def test_the_dev_key_exists_on_loopback_while_nothing_is_configured(host: str) -> None:
    assert load(None, {}, {"host": host}).config.api_keys == ("dev-key",)
    assert load(None, {"GATEWAY_API_KEYS": "own"}, {"host": host}).config.api_keys == ("own",)
    assert load(None, {"ADMIN_TOKEN": "own"}, {"host": host}).config.api_keys == ()


def test_what_has_no_effect_is_said() -> None:
    notices = from_env(
        DATABASE_URL="postgresql://x",
        GATEWAY_REDIS_URL="redis://x",
        HMAC_SECRET="x",
        GATEWAY_TYPO="1",
    ).notices
    assert notices == [
        NO_SECRET,
        "DATABASE_URL, GATEWAY_REDIS_URL: not used, replaced by NATS and ClickHouse",
        "HMAC_SECRET: accepted, not enforced by this version",
        "GATEWAY_TYPO: not a setting of Nexus, ignored",
    ]


@pytest.mark.parametrize(
    ("env", "file", "limit", "origin"),
    [
        ({}, "", None, None),
        ({"GATEWAY_TYPO": "1"}, "", None, None),
        ({"NEXUS_MOCK": "1"}, "", None, None),
        ({"GATEWAY_API_KEYS": "own"}, "", 60, "default with GATEWAY_ variables"),
        ({"GATEWAY_API_KEYS": "own"}, "limits: {requests_per_minute: 7}", 7, "nexus.yaml"),
        (
            {"GATEWAY_RATE_LIMIT_PER_MINUTE": "30"},
            "limits: {requests_per_minute: 7}",
            30,
            "environment GATEWAY_RATE_LIMIT_PER_MINUTE",
        ),
        (
            {"GATEWAY_RATE_LIMIT_PER_MINUTE": "0", "GATEWAY_API_KEYS": "own"},
            "",
            0,
            "environment GATEWAY_RATE_LIMIT_PER_MINUTE",
        ),
    ],
)
def test_each_key_has_sixty_requests_a_minute_where_variables_of_that_gateway_are_used(
    env: dict[str, str], file: str, limit: int | None, origin: str | None
) -> None:
    Path("nexus.yaml").write_text(file)
    loaded = from_env(**env)
    assert loaded.config.limits.requests_per_minute == limit
    assert loaded.origins.get("limits.requests_per_minute") == origin


def test_an_unknown_zone_for_budgets_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigError, match=r"^budget_zone: There is no time zone 'Mars/North' here"):
        from_yaml("budget_zone: Mars/North")
    assert from_yaml("budget_zone: Europe/Berlin").config.budget_zone == "Europe/Berlin"


def test_files_in_the_working_folder_are_read_unless_one_is_named() -> None:
    Path("config").mkdir()
    Path("config/models.yaml").write_text("data_dir: a\nlog_level: error\n")
    Path("nexus.yaml").write_text("data_dir: b\n")
    Path("other.yaml").write_text("port: 9\n")
    both = from_env()
    assert (both.config.data_dir, both.config.log_level) == ("b", "error")
    assert both.origins["log_level"] == "config/models.yaml"
    for named in (from_env(CONFIG_PATH="other.yaml"), load("other.yaml", {}, {})):
        assert (named.config.data_dir, named.config.port) == (".nexus", 9)


def test_a_later_file_adds_to_the_sections_of_an_earlier_one() -> None:
    Path("config").mkdir()
    Path("config/models.yaml").write_text("models: {a: {provider: mock, timeout: 1}, b: {}}\n")
    Path("nexus.yaml").write_text("models: {a: {timeout: 2}, b: {provider: mock}}\ndefaults:\n")
    config = from_env().config
    assert (config.models["a"].provider, config.models["a"].timeout) == ("mock", 2)
    assert config.models["b"].provider == "mock"


def test_an_empty_file_sets_nothing() -> None:
    for text in ("", "# nothing\n", "models:\nproviders:\nbudget:\n"):
        assert from_yaml(text).config == from_env().config


def test_a_child_with_the_overrides_as_variables_loads_the_same_config() -> None:
    overrides = {
        "host": "localhost",
        "port": 9,
        "data_dir": "/srv/nexus",
        "log_level": "warning",
        "mock_all": True,
        "clickhouse_url": "http://c:1",
        "bus.url": "nats://b:1",
        "bus.user": "ingress",
        "bus.password": "p",
        "admin_token": "t",
        "api_keys": ["k1", "k2"],
        "limits.requests_per_minute": 7,
        "secret": ("s" * 16, "t" * 16),
        "target_url": "https://api.example",
        "jwt.secret": "j",
        "jwt.algorithms": ["HS256", "HS384"],
    }
    parent = load(None, {"NEXUS_PORT": "1"}, overrides).config
    child = load(None, {"NEXUS_PORT": "1", **environment.for_child(overrides)}, {}).config
    assert child == parent
    assert environment.for_child({"port": None}) == {}


def test_the_description_has_every_value_with_its_origin_and_no_secret() -> None:
    env = {
        "OPENAI_API_KEY": "sk-secret-1",
        "ADMIN_TOKEN": "sk-secret-2",
        "GATEWAY_API_KEYS": "sk-secret-3,sk-secret-4",
        "NEXUS_NATS_URL": "nats://u:sk-secret-5@a:1,nats://b:2",
        "NEXUS_NATS_PASSWORD": "sk-secret-6",
        "HEADER": "sk-secret-7",
    }
    text = f"{DOCUMENT_001}\nproviders: {{mock: {{headers: {{X-Auth: ${{HEADER}}}}}}}}"
    config, origins, _ = from_yaml(text, env, port=9)
    described = describe(config, origins)
    assert "sk-secret" not in described
    lines = {line.partition(" = ")[0]: line.partition(" = ")[2] for line in described.splitlines()}
    assert lines.keys() >= {
        f"{section}.{name}"
        for section in ("queue", "limits", "bus", "budget", "router")
        for name in getattr(config, section).__struct_fields__
    }

    def line(path: str) -> list[str]:
        return lines[path].split("  (")

    assert [part.strip() for part in line("port")] == ["9", "command line)"]
    assert [part.strip() for part in line("models.gpt-4o.input_cost")] == [
        "0.0000025",
        "given.yaml)",
    ]
    assert line("providers.openai.api_key")[0].strip() == "set"
    assert line("providers.mock.api_key")[0].strip() == "unset"
    assert line("api_keys")[0].strip() == "set (2)"
    assert line("bus.url")[0].strip() == "nats://***@a:1,nats://b:2"
    assert line("providers.mock.headers")[0].strip() == "set (X-Auth)"
    assert line("queue.ack_wait")[1] == "default)"


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
