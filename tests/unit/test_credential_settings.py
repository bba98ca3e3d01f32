"""What opens the gateway beside its keys: tokens, policies, keys of clients, and the server secret
behind them; each as the configuration says it."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compose.check import describe
from compose.notices import NO_SECRET
from compose.settings import ConfigError, load
from ledger.access.configured import configured, id_of
from schemas.access import Limits
from schemas.config import JwtConfig, KeyPolicy, ProviderConfig
from tests.given_settings import complaint, complaint_of, from_env, from_yaml

SECRET = "server-secret-of-more-than-16"
PEM = "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("env", "field", "value"),
    [
        ({"NEXUS_SECRET": SECRET}, "secret", (SECRET,)),
        ({"NEXUS_SECRET": f"{'n' * 16}, {SECRET}"}, "secret", ("n" * 16, SECRET)),
        ({"NEXUS_TARGET_URL": "https://x"}, "target_url", "https://x"),
        (
            {"GATEWAY_JWT_SECRET": "my-secret", "GATEWAY_JWT_ALGORITHMS": "HS256"},
            "jwt",
            JwtConfig(secret="my-secret"),
        ),
        (
            {
                "GATEWAY_JWT_PUBLIC_KEY": PEM.replace("\n", "\\n"),
                "GATEWAY_JWT_ALGORITHMS": "RS256, ES256",
                "GATEWAY_JWT_ISSUER": "https://id.example",
                "GATEWAY_JWT_AUDIENCE": "nexus",
            },
            "jwt",
            JwtConfig(
                public_key=PEM,
                algorithms=("RS256", "ES256"),
                issuer="https://id.example",
                audience="nexus",
            ),
        ),
        (
            {"GATEWAY_JWT_JWKS_URL": "https://id/jwks", "GATEWAY_JWT_ALGORITHMS": "RS256"},
            "jwt",
            JwtConfig(jwks_url="https://id/jwks", algorithms=("RS256",)),
        ),
    ],
)
def test_the_variables_of_who_may_call_are_read(
    env: dict[str, str], field: str, value: object
) -> None:
    assert getattr(from_env(**env).config, field) == value


def test_the_bus_can_be_told_who_we_are() -> None:
    bus = from_env(NEXUS_NATS_TLS_CERT="c.pem", NEXUS_NATS_TLS_KEY="k.pem").config.bus
    assert (bus.tls_cert, bus.tls_key) == ("c.pem", "k.pem")


@pytest.mark.parametrize(
    ("text", "texts"),
    [
        ("secret: ${A}", ("a" * 16,)),
        ("secret: ${AB}", ("a" * 16, "b" * 16)),
        ("secret: ['${B}', '${A}']", ("b" * 16, "a" * 16)),
        ("secret: ['${AB}', '${C}']", ("a" * 16, "b" * 16, "c" * 16)),
        ("secret: ['${UNSET:-}']", ()),
        ("secret:", ()),
    ],
)
def test_the_server_secret_is_one_text_or_several(text: str, texts: tuple[str, ...]) -> None:
    env = {"A": "a" * 16, "B": "b" * 16, "C": "c" * 16, "AB": f"{'a' * 16},{'b' * 16}"}
    assert from_yaml(text, env).config.secret == texts


def test_the_variable_wins_over_references_in_the_file_that_lead_nowhere() -> None:
    config = from_yaml("secret: ['${NOWHERE}']", {"NEXUS_SECRET": SECRET}).config
    assert config.secret == (SECRET,)


def test_a_short_server_secret_is_refused_without_being_shown() -> None:
    message = complaint_of({"NEXUS_SECRET": f"{SECRET},fifteen-letters"})
    assert message == (
        "secret.1: a server secret (NEXUS_SECRET) has at least 16 characters; this makes one:"
        " openssl rand -base64 32"
    )


def test_whoever_runs_without_a_server_secret_is_told_what_needs_it() -> None:
    assert from_env().notices == [NO_SECRET]
    assert from_env(NEXUS_SECRET=SECRET).notices == []


@pytest.mark.parametrize(
    ("jwt", "message"),
    [
        (
            "{public_key: p.pem}",
            "jwt.algorithms: HS256 cannot use jwt.public_key; name the algorithm of its key, such"
            " as RS256 or ES256 (GATEWAY_JWT_ALGORITHMS)",
        ),
        (
            "{jwks_url: 'https://x'}",
            "jwt.algorithms: HS256 cannot use jwt.jwks_url; name the algorithm of its key, such as"
            " RS256 or ES256 (GATEWAY_JWT_ALGORITHMS)",
        ),
        (
            "{algorithms: [RS256]}",
            "jwt.algorithms: RS256 needs jwt.public_key or jwt.jwks_url (GATEWAY_JWT_PUBLIC_KEY,"
            " GATEWAY_JWT_JWKS_URL)",
        ),
        (
            "{algorithms: [HS256, ES256], secret: '${S}'}",
            "jwt.algorithms: ES256 needs jwt.public_key or jwt.jwks_url (GATEWAY_JWT_PUBLIC_KEY,"
            " GATEWAY_JWT_JWKS_URL)",
        ),
        (
            "{algorithms: [HS256, RS256], public_key: p.pem}",
            "jwt.algorithms: HS256 needs jwt.secret (GATEWAY_JWT_SECRET); set it, or take HS256"
            " out",
        ),
        (
            "{algorithms: [RS256], public_key: p.pem, secret: '${S}'}",
            "jwt.secret: RS256 cannot use it; add HS256 to jwt.algorithms, or take the secret out",
        ),
        (
            "{secret: '${S}', algorithms: [HS256, none]}",
            "jwt.algorithms.1: 'none' would accept tokens that nobody signed",
        ),
        (
            "{secret: '${S}', algorithms: [NONE]}",
            "jwt.algorithms.0: 'NONE' would accept tokens that nobody signed",
        ),
        (
            "{secret: '${S}', algorithms: [hs256]}",
            "jwt.algorithms.0: unknown algorithm 'hs256'; known here: HS256, HS384, HS512, RS256,"
            " RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, ES256K, EdDSA",
        ),
        (
            "{jwks_url: 'file:///etc/passwd', algorithms: [RS256]}",
            "jwt.jwks_url: expected an http:// or https:// URL, got 'file:///etc/passwd'",
        ),
        (
            "{public_key: '-----BEGIN PRIVATE KEY-----', algorithms: [RS256]}",
            "jwt.public_key: this is a private key; give the public one of the pair",
        ),
    ],
)
def test_half_said_and_dangerous_token_settings_are_refused(jwt: str, message: str) -> None:
    assert complaint(f"jwt: {jwt}", {"S": "s" * 32}) == message


def test_weak_and_useless_token_settings_are_noticed() -> None:
    assert from_env(NEXUS_SECRET=SECRET, GATEWAY_JWT_SECRET="my-secret").notices == [
        "jwt.secret: shorter than 32 characters, so whoever has a token can guess it"
    ]
    assert from_env(NEXUS_SECRET=SECRET, GATEWAY_JWT_ISSUER="me").notices == [
        "jwt: no token is accepted without secret, public_key or jwks_url"
    ]
    lost = from_env(
        NEXUS_SECRET=SECRET, GATEWAY_JWT_PUBLIC_KEY="lost.pem", GATEWAY_JWT_ALGORITHMS="RS256"
    )
    assert lost.notices == [
        "jwt.public_key: neither a key as PEM text nor a file that can be found here"
    ]
    Path("lost.pem").write_text(PEM)
    found = from_env(
        NEXUS_SECRET=SECRET, GATEWAY_JWT_PUBLIC_KEY="lost.pem", GATEWAY_JWT_ALGORITHMS="RS256"
    )
    assert found.notices == []


def test_the_policies_of_document_004_are_kept_by_the_id_of_their_key() -> None:
    env = {
        "GATEWAY_API_KEYS": "alpha,beta",
        "GATEWAY_API_KEY_POLICIES": json.dumps(
            {"alpha": {"allowed_models": ["chat"], "rate_limit_per_minute": 30}, "beta": {}}
        ),
    }
    config, origins, _ = from_env(**env)
    policy = KeyPolicy(allowed_models=("chat",), rate_limit_per_minute=30)
    assert config.key_policies == {id_of("alpha"): policy, id_of("beta"): KeyPolicy()}
    origin = origins[f"key_policies.{id_of('alpha')}.allowed_models"]
    assert origin == "environment GATEWAY_API_KEY_POLICIES"
    assert configured(config).keys[id_of("alpha")].limits == Limits(requests_per_minute=30)


def test_the_dev_key_may_have_a_policy_while_it_exists() -> None:
    env = {"GATEWAY_API_KEY_POLICIES": '{"dev-key": {"allowed_models": ["chat"]}}'}
    config = from_env(**env).config
    assert configured(config).keys[id_of("dev-key")].allowed_models == ("chat",)
    assert complaint_of({**env, "GATEWAY_API_KEYS": "own"}) == (
        f"key_policies.{id_of('dev-key')}: policy 1 of GATEWAY_API_KEY_POLICIES is for a key that"
        " is not in GATEWAY_API_KEYS; add the key, or take the policy out"
    )


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        ("hunter2", "GATEWAY_API_KEY_POLICIES: expected JSON such as {"),
        ('["hunter2"]', "GATEWAY_API_KEY_POLICIES: expected JSON such as {"),
        ('{"hunter2": 5}', "key_policies.ID: expected a mapping of settings, got a number"),
        ('{"hunter2": "hunter2"}', "key_policies.ID: expected a mapping of settings, got text"),
        (
            '{"hunter2": {"hunter2": 1}}',
            "key_policies.ID: unknown setting; known here: allowed_models, rate_limit_per_minute",
        ),
        (
            '{"hunter2": {"allowed_models": "hunter2"}}',
            "key_policies.ID.allowed_models: expected a list, got text",
        ),
        (
            '{"hunter2": {"rate_limit_per_minute": 0}}',
            "key_policies.ID.rate_limit_per_minute: expected a whole number >= 1, got a number",
        ),
        ('{"hunter3": {}}', "key_policies.OTHER: policy 1 of GATEWAY_API_KEY_POLICIES is for a"),
    ],
)
def test_a_wrong_policy_is_refused_without_showing_any_key(policies: str, message: str) -> None:
    env = {"GATEWAY_API_KEYS": "hunter2", "GATEWAY_API_KEY_POLICIES": policies}
    said = complaint_of(env)
    ids = message.replace("ID", id_of("hunter2")).replace("OTHER", id_of("hunter3"))
    assert said.startswith(ids)
    assert "hunter" not in said


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.just("hunter2"),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(("hunter2", "allowed_models", "rate_limit_per_minute")),
                inner,
                max_size=3,
            )
        ),
        max_leaves=8,
    )
)
def test_no_policy_however_wrong_shows_a_key(policies: object) -> None:
    env = {"GATEWAY_API_KEYS": "hunter2", "GATEWAY_API_KEY_POLICIES": json.dumps(policies)}
    try:
        loaded = load(None, env, {})
    except ConfigError as error:
        assert "hunter2" not in str(error)
    else:
        described = describe(loaded.config, loaded.origins)
        globs = [one.allowed_models for one in loaded.config.key_policies.values()]
        assert any(globs) or "hunter2" not in described
        assert not any("hunter2" in notice for notice in loaded.notices)


def test_target_url_is_a_provider_for_clients_with_keys_of_their_own() -> None:
    config, origins, notices = from_yaml("target_url: https://api.openai.com/")
    assert config.providers["target"] == ProviderConfig(
        base_url="https://api.openai.com/v1", client_keys="required"
    )
    assert origins["providers.target.base_url"] == "given.yaml"
    assert notices == [NO_SECRET]
    deep = from_env(NEXUS_TARGET_URL="http://127.0.0.1:1/openai/v1")
    assert deep.config.providers["target"].base_url == "http://127.0.0.1:1/openai/v1"


def test_a_provider_may_be_called_target_where_there_is_no_target_url() -> None:
    config = from_yaml("providers: {target: {base_url: 'http://h/v1'}}").config
    assert config.providers["target"].client_keys == "allowed"


def test_a_model_may_run_at_the_target() -> None:
    text = "target_url: https://x\nmodels: {m: {provider: target}}"
    assert from_yaml(text).notices == [NO_SECRET]


def test_a_provider_for_clients_keys_is_used_without_one_of_its_own() -> None:
    text = "providers: {openai: {client_keys: required}, groq: {client_keys: refused}}"
    config, _, notices = from_yaml(text)
    assert list(config.providers) == ["openai", "mock"]
    assert config.providers["openai"].base_url == "https://api.openai.com/v1"
    assert notices[0] == "providers.groq: not used, GROQ_API_KEY is not set"


@pytest.mark.parametrize(
    ("text", "env", "origin"),
    [
        ("{client_keys: required}", {"OPENAI_API_KEY": "k"}, " (environment OPENAI_API_KEY)"),
        ("{client_keys: required, api_key: '${K}'}", {"K": "k"}, ""),
    ],
)
def test_a_provider_for_clients_keys_has_none_of_the_gateway(
    text: str, env: dict[str, str], origin: str
) -> None:
    assert complaint(f"providers: {{openai: {text}}}", env) == (
        "providers.openai.client_keys: required means that only clients have a key, but api_key is"
        f" set{origin}; unset it, or write allowed"
    )


CONFIGURED = [
    ("keys: {web: {key: '${K}'}}", {"K": "k" * 32}),
    ("target_url: https://x", {}),
    ("jwt: {secret: '${S}'}", {"S": "s" * 32}),
]


@pytest.mark.parametrize(("text", "env"), CONFIGURED)
def test_whoever_says_who_may_call_may_listen_anywhere_and_has_no_dev_key(
    text: str, env: dict[str, str]
) -> None:
    for host in ("127.0.0.1", "0.0.0.0"):
        config = from_yaml(text, env, host=host).config
        assert config.api_keys == ()
        assert config.host == host


def test_what_says_not_who_may_call_opens_nothing() -> None:
    for text in ("projects: {a: {}}", "jwt: {issuer: x}", "tiers: {gold: {burst: 1}}"):
        assert from_yaml(text).config.api_keys == ("dev-key",)
        assert complaint(text, host="0.0.0.0").startswith("host: 0.0.0.0 can be reached from")
    message = complaint("keys: {web: {key: '${K}'}}", {"K": "dev-key"}, host="0.0.0.0")
    assert message.startswith("host: 'dev-key' is known to everybody")
