"""Which providers, keys and limits follow from the variables of vendors and of the documents."""

from pathlib import Path

import pytest

from compose.decode import is_secret
from compose.notices import NO_SECRET
from compose.settings import ConfigError, load
from ingress.routing import Router
from schemas.catalog import Catalog
from tests.given_settings import from_env, from_yaml


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


def test_an_upstream_of_litellm_names_its_model_in_the_url() -> None:
    config = from_env(GATEWAY_UPSTREAMS="mini=litellm://gpt-4o-mini;any=litellm://").config
    assert config.providers["mini"].dialect == config.providers["any"].dialect == "litellm"
    assert (config.models["mini"].provider, config.models["mini"].engine) == ("mini", "gpt-4o-mini")
    assert config.models["any"].engine == ""
    targets = Router(config, Catalog.load()).plan("mini")
    assert [(one.provider, one.engine) for one in targets] == [("mini", "gpt-4o-mini")]
    assert targets[0].price is not None and targets[0].price.rates.input == 150_000_000


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
    assert config.providers["ollama"].base_url == "http://h:1"


def test_azure_needs_its_endpoint_and_its_key() -> None:
    half = from_env(AZURE_OPENAI_API_KEY="k")
    assert list(half.config.providers) == ["mock"]
    assert half.notices == [
        "providers.azure: not used, AZURE_OPENAI_ENDPOINT is not set",
        NO_SECRET,
    ]
    whole = from_env(AZURE_OPENAI_API_KEY="k", AZURE_OPENAI_ENDPOINT="https://n.openai.azure.com/")
    assert whole.config.providers["azure"].base_url == "https://n.openai.azure.com"


def test_azure_signs_in_by_its_key_a_token_or_an_application() -> None:
    place = {"AZURE_OPENAI_ENDPOINT": "https://n.openai.azure.com"}
    application = {"AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": "c", "AZURE_CLIENT_SECRET": "s"}
    for signs_in in ({"AZURE_API_KEY": "k"}, {"AZURE_OPENAI_AD_TOKEN": "a"}, application):
        found = from_env(**place, **signs_in)
        assert "azure" in found.config.providers, signs_in
    azure = found.config.providers["azure"]
    assert azure.options == {"tenant_id": "t", "client_id": "c", "client_secret": "s"}
    assert found.origins["providers.azure.options.client_id"] == "environment AZURE_CLIENT_ID"
    half = from_env(**place, AZURE_TENANT_ID="t")
    assert "azure" not in half.config.providers
    assert half.notices[0] == (
        "providers.azure: not used, AZURE_OPENAI_API_KEY and AZURE_OPENAI_ENDPOINT is not set"
    )


def test_bedrock_is_used_with_the_keys_of_aws_at_the_address_of_its_region() -> None:
    keys = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "s"}
    bedrock = from_env(**keys, AWS_REGION="eu-central-1").config.providers["bedrock"]
    assert bedrock.base_url == "https://bedrock-runtime.eu-central-1.amazonaws.com"
    assert bedrock.options == {"access_key_id": "AKIA", "secret_access_key": "s"}
    assert from_env(**keys).config.providers["bedrock"].region == "us-east-1"
    by_token = from_env(AWS_BEARER_TOKEN_BEDROCK="b").config.providers["bedrock"]
    assert by_token.api_key == "b"


@pytest.mark.parametrize("alone", ["AWS_REGION", "AWS_ACCESS_KEY_ID", "GOOGLE_CLOUD_PROJECT"])
def test_a_variable_that_says_nothing_by_itself_says_nothing(alone: str) -> None:
    found = from_env(**{alone: "x"})
    assert list(found.config.providers) == ["mock"]
    assert found.notices == [NO_SECRET]


def test_vertex_needs_its_project() -> None:
    found = from_env(GOOGLE_CLOUD_PROJECT="p", GOOGLE_APPLICATION_CREDENTIALS="/k.json")
    vertex = found.config.providers["vertex"]
    assert (vertex.dialect, vertex.base_url, vertex.region) == ("gemini", "", "us-central1")
    assert vertex.options == {"project": "p", "credentials_file": "/k.json"}
    assert "vertex" not in from_env(GOOGLE_APPLICATION_CREDENTIALS="/k.json").config.providers


def test_a_provider_with_a_name_of_its_own_has_the_address_of_its_dialect() -> None:
    text = "providers: {eu: {dialect: bedrock, region: eu-west-1, api_key: ${B}}}"
    eu = from_yaml(text, {"B": "token"}).config.providers["eu"]
    assert eu.base_url == "https://bedrock-runtime.eu-west-1.amazonaws.com"
    claude = from_yaml("providers: {c: {dialect: anthropic, api_key: ${A}}}", {"A": "k"})
    assert claude.config.providers["c"].base_url == "https://api.anthropic.com/v1"
    text = "providers: {g: {dialect: gemini, options: {project: p, access_token: ${T}}}}"
    assert from_yaml(text, {"T": "t"}).config.providers["g"].base_url == ""
    # Another one's key is not taken for it.
    other = from_yaml("providers: {c: {dialect: anthropic}}", {"ANTHROPIC_API_KEY": "k"})
    assert "c" not in other.config.providers and "anthropic" in other.config.providers


def test_a_vendor_brings_its_quirks_and_an_entry_has_the_last_word() -> None:
    keys = {"MISTRAL_API_KEY": "k"}
    quirks = from_env(**keys).config.providers["mistral"].quirks
    assert quirks.renames["seed"] == "random_seed" and not quirks.stream_usage
    text = "providers: {mistral: {quirks: {renames: {seed: seed2}}}}"
    assert from_yaml(text, keys).config.providers["mistral"].quirks.renames == {"seed": "seed2"}


def test_secrets_among_the_options_are_not_shown_and_do_not_belong_in_the_file() -> None:
    place = ("providers", "eu", "options", "client_secret")
    assert is_secret(place) and not is_secret((*place[:-1], "client_id"))
    with pytest.raises(ConfigError, match="a secret does not belong in the file"):
        from_yaml("providers: {eu: {dialect: azure, options: {client_secret: very-secret}}}")


def test_an_entry_in_the_file_adds_to_a_built_in_provider() -> None:
    text = "providers: {openai: {concurrency: 3}, mock: {options: {chunks: '9'}}, ollama: {}}"
    config = from_yaml(text, {"OPENAI_API_KEY": "k"}).config
    openai = config.providers["openai"]
    assert (openai.concurrency, openai.api_key) == (3, "k")
    assert openai.base_url == "https://api.openai.com/v1"
    assert config.providers["mock"].dialect == "mock"
    assert config.providers["ollama"].base_url == "http://127.0.0.1:11434"


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
