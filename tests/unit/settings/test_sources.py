"""Where a setting comes from: the documents' files, variables, the command line, and which wins."""

from pathlib import Path

import pytest

from compose import environment
from compose.notices import NO_SECRET
from compose.settings import load
from ingress.routing import Router
from schemas.catalog import Catalog
from tests.given_settings import from_env, from_yaml
from tests.unit.settings.documents import DESIGN, DOCUMENT_001, DOCUMENT_002, DOCUMENT_003

SAMPLE = Path(__file__).parents[3] / "config" / "models.yaml"


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
    assert notices == [
        NO_SECRET,
        "router.fallback_delay_ms, router.cache_enabled, router.cache_ttl_seconds: accepted,"
        " not enforced by this version",
    ]


def test_a_router_with_nothing_but_limits_of_cost_is_enforced() -> None:
    _, _, notices = from_yaml("router: {max_cost_per_request: 1, cost_alert_threshold: 0.5}")
    assert notices == [NO_SECRET]
    _, _, notices = from_yaml("router:")
    assert notices == [NO_SECRET]


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
