"""Who may call, as the configuration says it: every form of it is read, every mistake is named with
its place and a way out, and no secret is ever shown."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compose.check import describe
from compose.notices import NO_SECRET
from compose.settings import ConfigError, load
from ledger.access.configured import configured, id_of
from ledger.access.key_text import new_key
from schemas.access import BudgetSettings, BudgetTerms, Limits
from schemas.config import (
    JwtConfig,
    KeyConfig,
    KeyPolicy,
    ProjectConfig,
    ProviderConfig,
    TeamConfig,
)
from tests.given_settings import complaint, complaint_of, from_env, from_yaml

KEYS = {
    "WEB_APP_KEY": "web-app-key-of-32-characters-000",
    "CI_KEY": "ci-key-of-32-characters-00000000",
}
WEB = "keys: {web: {key: '${WEB_APP_KEY}', %s}}"
SECRET = "server-secret-of-more-than-16"
PEM = "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----"
WHOLE = """
keys:
  web:
    key: ${WEB_APP_KEY}
    name: the web shop
    project: shop
    team: web
    user: auth0|17
    allowed_models: [gpt-*, claude-3-sonnet]
    tier: gold
    limits: {requests_per_minute: 60, concurrent: 5}
    metadata: {owner: anna, since: 2026-01-01}
    on_disconnect: drain
    payloads: redacted
    expires_at: 2027-01-01
    budgets: [{period: day, limit_usd: 5}]
  ci: {key: '${CI_KEY}'}
projects:
  shop: {name: Shop, team: web, payloads: full, budgets: [{period: month, limit_usd: 100}]}
teams:
  web: {name: Web, allowed_models: ['*']}
budgets:
  - {scope: global, period: month, limit_usd: 1e3, hard_stop: false}
  - {scope: user, id: auth0|17, period: total, limit_usd: 7.5, warning_threshold: 0.5}
tiers:
  gold: {requests_per_second: 10, burst: 20}
"""


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_keys_projects_teams_budgets_and_tiers_are_read() -> None:
    config = from_yaml(WHOLE, KEYS).config
    assert config.keys["web"] == KeyConfig(
        key=KEYS["WEB_APP_KEY"],
        name="the web shop",
        project="shop",
        team="web",
        user="auth0|17",
        allowed_models=("gpt-*", "claude-3-sonnet"),
        tier="gold",
        limits=Limits(requests_per_minute=60, concurrent=5),
        metadata={"owner": "anna", "since": "2026-01-01"},
        on_disconnect="drain",
        payloads="redacted",
        expires_at=datetime(2027, 1, 1, tzinfo=UTC),
        budgets=(BudgetTerms(period="day", limit_usd=5),),
    )
    assert config.keys["ci"] == KeyConfig(key=KEYS["CI_KEY"])
    month = BudgetTerms(period="month", limit_usd=100)
    assert config.projects == {
        "shop": ProjectConfig(name="Shop", team="web", payloads="full", budgets=(month,))
    }
    assert config.teams == {"web": TeamConfig(name="Web", allowed_models=("*",))}
    assert config.budgets == (
        BudgetSettings(scope="global", period="month", limit_usd=1000, hard_stop=False),
        BudgetSettings(
            scope="user", id="auth0|17", period="total", limit_usd=7.5, warning_threshold=0.5
        ),
    )
    assert config.tiers == {"gold": Limits(requests_per_second=10, burst=20)}
    assert config.api_keys == ()


def test_what_is_stored_and_not_enforced_is_named_exactly() -> None:
    text = WHOLE + "limits: {burst: 5}\nbudget: {daily_limit_usd: 20}\n"
    env = {
        **KEYS,
        "GATEWAY_API_KEYS": "k",
        "GATEWAY_API_KEY_POLICIES": '{"k": {"rate_limit_per_minute": 5}}',
        "NEXUS_SECRET": SECRET,
    }
    assert from_yaml(text, env).notices == [
        "budget, budgets, tiers, limits.burst, keys.web.tier, keys.web.limits, keys.web.budgets,"
        f" projects.shop.budgets, key_policies.{id_of('k')}.rate_limit_per_minute: accepted, not"
        " enforced by this version"
    ]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2027-01-01", datetime(2027, 1, 1, tzinfo=UTC)),
        ("'2027-01-01'", datetime(2027, 1, 1, tzinfo=UTC)),
        ("2027-01-01 18:30:00", datetime(2027, 1, 1, 18, 30, tzinfo=UTC)),
        ("2027-01-01T18:30:00", datetime(2027, 1, 1, 18, 30, tzinfo=UTC)),
        ("2027-01-01T18:30:00Z", datetime(2027, 1, 1, 18, 30, tzinfo=UTC)),
        ("2027-01-01T18:30:00.5+02:00", datetime(2027, 1, 1, 16, 30, 0, 500_000, tzinfo=UTC)),
        ("${END}", datetime(2027, 6, 1, tzinfo=UTC)),
        ("null", None),
    ],
)
def test_a_date_or_a_time_is_utc_unless_it_says_otherwise(
    written: str, meant: datetime | None
) -> None:
    config = from_yaml(WEB % f"expires_at: {written}", {**KEYS, "END": "2027-06-01"}).config
    assert config.keys["web"].expires_at == meant
    if meant is not None:
        assert config.keys["web"].expires_at.tzinfo is UTC  # type: ignore[union-attr]


EXPECTED = [
    ("allowed_models: [gpt-4o, 5]", "allowed_models.1: expected text, got 5"),
    ("allowed_models: ['']", "allowed_models.0: expected text of at least 1 character, got ''"),
    ("allowed_models: []", "allowed_models: expected a list of at least 1 entry, got []"),
    ("allowed_models: gpt-4o", "allowed_models: expected a list, got 'gpt-4o'"),
    (
        "project: ' shop'",
        "project: expected text without control characters and without spaces at its ends,"
        " got ' shop'",
    ),
    ('name: "a\\nb"', r"name: expected text without control characters, got 'a\nb'"),
    ("user: 17", "user: expected text, got 17"),
    (f"team: {'t' * 129}", f"team: expected text of at most 128 characters, got '{'t' * 56}..."),
    ("limits: 5", "limits: expected a mapping of settings, got 5"),
    ("limits: {burst: 0}", "limits.burst: expected a whole number >= 1, got 0"),
    (
        "limits: {bursts: 1}",
        "limits.bursts: unknown setting; did you mean keys.web.limits.burst?",
    ),
    ("metadata: {cost: 5}", "metadata.cost: expected text, got 5"),
    (f"metadata: {{{'n' * 65}: x}}", "metadata: expected names of at most 64 characters, got {"),
    ("on_disconnect: wait", "on_disconnect: expected one of cancel, drain, detach, got 'wait'"),
    ("payloads: all", "payloads: expected one of none, redacted, full, got 'all'"),
    (
        "expires_at: soon",
        "expires_at: expected a date or a time such as 2027-01-01 or 2027-01-01T18:00:00Z,"
        " got 'soon'",
    ),
    (
        "expires_at: 5",
        "expires_at: expected a date or a time such as 2027-01-01 or 2027-01-01T18:00:00Z, got 5",
    ),
    (
        "budgets: [{period: day, limit_usd: 1}, {period: year, limit_usd: 1}]",
        "budgets.1.period: expected one of day, week, month, total, got 'year'",
    ),
    ("budgets: [{period: day}]", "budgets.0.limit_usd: missing, it has no default"),
    ("tier: silver", "tier: unknown tier 'silver'; add it under tiers:, or use one of enterprise,"),
    ("projekt: shop", "projekt: unknown setting; did you mean keys.web.project?"),
]


@pytest.mark.parametrize(("written", "message"), EXPECTED)
def test_an_error_in_a_key_names_the_setting_and_what_it_takes(written: str, message: str) -> None:
    assert complaint(WEB % written, KEYS).startswith(f"keys.web.{message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "budgets: [{scope: project, id: shop, period: day, limit_usd: -1}]",
            "budgets.0.limit_usd: expected a number >= 0.0, got -1",
        ),
        (
            "budgets: [{scope: project, id: shop, period: day, limit_usd: '1'}]",
            "budgets.0.limit_usd: expected a number, got '1'",
        ),
        ("budgets: {day: 5}", "budgets: expected a list, got {'day': 5}"),
        (
            "budgets: [{scope: project, period: day, limit_usd: 1}]",
            "budgets.0.id: missing, it says for which project",
        ),
        (
            "budgets: [{scope: global, id: x, period: day, limit_usd: 1}]",
            "budgets.0.id: the scope global has none; leave it out",
        ),
        (
            "budgets:\n- {scope: user, id: a, period: day, limit_usd: 1}\n"
            "- {scope: user, id: a, period: day, limit_usd: 2}",
            "budgets.1: the budget user:a:day is there already, as budgets.0",
        ),
        (
            "budgets: [{scope: team, id: a, period: day, limit_usd: 1}]\n"
            "teams: {a: {budgets: [{period: day, limit_usd: 2}]}}",
            "teams.a.budgets.0: the budget team:a:day is there already, as budgets.0",
        ),
        (
            "budget: {daily_limit_usd: 1}\nbudgets: [{scope: global, period: day, limit_usd: 1}]",
            "budgets.0: the budget global:day is there already, as budget.daily_limit_usd",
        ),
        ("projects: {shop: {tier: x}}", "projects.shop.tier: unknown tier 'x'; add it under"),
        ("teams: {web: {tier: x}}", "teams.web.tier: unknown tier 'x'; add it under tiers:, or"),
        ("teams: {'': {}}", "teams.'': an id has 1 to 128 characters, without control"),
        ("projects: {' a': {}}", "projects.' a': an id has 1 to 128 characters, without control"),
        ("tiers: {'': {}}", "tiers.'': a name has 1 to 128 characters, without control characters"),
        ("tiers: {gold: 5}", "tiers.gold: expected a mapping of settings, got 5"),
        ("target_url: api.openai.com", "target_url: expected an http:// or https:// URL, got"),
        ("target_url: ftp://x", "target_url: expected an http:// or https:// URL, got 'ftp://x'"),
        (
            "target_url: https://x\nproviders: {target: {base_url: https://y}}",
            "providers.target: this is the name of the provider behind target_url; choose another,"
            " or leave target_url out",
        ),
        ("jwt: {leeway: 601}", "jwt.leeway: expected a number <= 600.0, got 601"),
        (
            "jwt: {algorithm: [RS256]}",
            "jwt.algorithm: unknown setting; did you mean jwt.algorithms",
        ),
        ("jwt: {algorithms: RS256}", "jwt.algorithms: expected a list, got 'RS256'"),
        ("jwt: {algorithms: []}", "jwt.algorithms: expected at least one, such as HS256 or RS256"),
    ],
)
def test_a_mistake_is_named_with_its_place(text: str, message: str) -> None:
    assert complaint(text).startswith(message)


@pytest.mark.parametrize("id", ["key_1", "jwt_1", "client_1", "admin"])
def test_ids_that_nexus_gives_itself_are_not_for_configured_keys(id: str) -> None:
    assert complaint(f"keys: {{{id}: {{key: '${{WEB_APP_KEY}}'}}}}", KEYS) == (
        f"keys.{id}: choose another id; admin, and all that begin with key_, jwt_, client_ are"
        " taken"
    )


def test_a_key_comes_by_reference_and_the_unset_variable_is_named() -> None:
    assert complaint("keys: {web: {key: ${WEB_APP_KEY}}}") == (
        "keys.web.key: WEB_APP_KEY is not set; set it"
    )
    assert complaint("keys: {web: {name: x}}") == "keys.web.key: missing, it has no default"
    assert complaint("keys: {web: {key: ${WEB_APP_KEY:-}}}") == (
        "keys.web.key: expected a key, got an empty text"
    )


@pytest.mark.parametrize(
    ("text", "variable"),
    [
        ("keys: {web-app: {key: hunter2}}", "WEB_APP_KEY"),
        ("keys: {web-app: {key: 20202}}", "WEB_APP_KEY"),
        ("keys: {web-app: {key: '${WEB_APP_KEY:-hunter2}'}}", "WEB_APP_KEY"),
        ("jwt: {secret: hunter2}", "GATEWAY_JWT_SECRET"),
        ("secret: hunter2", "NEXUS_SECRET"),
        ("secret: ['${GOOD}', hunter2]", "NEXUS_SECRET"),
        ("providers: {mock: {api_key: '${X:-hunter2}'}}", "MOCK_API_KEY"),
    ],
)
def test_a_secret_in_the_file_is_refused_without_being_shown(text: str, variable: str) -> None:
    message = complaint(text, {"GOOD": "good"})
    assert f"a secret does not belong in the file; write ${{{variable}}}" in message
    assert "hunter2" not in message
    assert "20202" not in message


@pytest.mark.parametrize(
    "text",
    [
        "keys: ${X}",
        "keys: ['${X}']",
        "keys: {web: '${X}'}",
        "keys: {web: {key: {a: '${X}'}}}",
        "keys: {web: {key: ['${X}']}}",
        "jwt: ${X}",
        "jwt: {secret: ['${X}']}",
        "secret: {a: '${X}'}",
        "api_keys: ${X}",
        "admin_token: ['${X}']",
        "providers: ${X}",
        "providers: ['${X}']",
        "providers: {mock: '${X}'}",
        "providers: {mock: {headers: '${X}'}}",
        "providers: {mock: {headers: {X-Auth: ['${X}']}}}",
        "bus: ${X}",
        "bus: {password: ['${X}']}",
    ],
)
def test_a_secret_in_the_wrong_place_is_not_shown(text: str) -> None:
    message = complaint(text, {"X": "hunter2hunter2hunter2"})
    assert "hunter2" not in message
    assert "expected" in message


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (
            {"WEB_APP_KEY": "same-key-for-all-of-us", "CI_KEY": "same-key-for-all-of-us"},
            "keys.ci.key: the same text as keys.web.key; each key needs one of its own",
        ),
        (
            {**KEYS, "GATEWAY_API_KEYS": f"other,{KEYS['CI_KEY']}"},
            "keys.ci.key: the same text as api_keys.1; each key needs one of its own",
        ),
        (
            {**KEYS, "ADMIN_TOKEN": "all-the-same", "GATEWAY_API_KEYS": "all-the-same"},
            "api_keys.0: the same text as admin_token; each key needs one of its own",
        ),
        (
            {**KEYS, "GATEWAY_API_KEYS": "twice,twice"},
            "api_keys.1: the same text as api_keys.0; each key needs one of its own",
        ),
        (
            {**KEYS, "CI_KEY": new_key(lambda n: b"x" * n)},
            "keys.ci.key: begins with nx-, as only keys do that Nexus itself has made; choose"
            " another",
        ),
        (
            {**KEYS, "GATEWAY_API_KEYS": "nx-1"},
            "api_keys.0: begins with nx-, as only keys do that Nexus itself has made; choose"
            " another",
        ),
        (
            {**KEYS, "CI_KEY": "two words of a key"},
            "keys.ci.key: a key has letters, digits and signs only, no spaces: others do not"
            " travel well in a header",
        ),
    ],
)
def test_keys_that_cannot_be_told_apart_are_refused_without_being_shown(
    env: dict[str, str], message: str
) -> None:
    assert complaint("keys: {web: {key: ${WEB_APP_KEY}}, ci: {key: ${CI_KEY}}}", env) == message


def test_the_admin_token_that_up_makes_may_begin_like_a_key_of_ours() -> None:
    assert from_env(ADMIN_TOKEN="nx-admin-1").config.admin_token == "nx-admin-1"


def test_short_keys_of_the_file_are_noticed_and_those_of_document_004_are_not() -> None:
    text = "keys: {web: {key: ${WEB_APP_KEY}}, ci: {key: ${CI_KEY}}}"
    env = {**KEYS, "CI_KEY": "short", "GATEWAY_API_KEYS": "k", "NEXUS_SECRET": SECRET}
    assert from_yaml(text, env).notices == [
        "keys.ci.key: shorter than 16 characters, easy to guess"
    ]


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
    ("keys: {web: {key: '${WEB_APP_KEY}'}}", KEYS),
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


def test_the_description_has_all_of_it_and_no_secret_of_any_kind() -> None:
    env = {
        "WEB_APP_KEY": "hunter2-web-app",
        "CI_KEY": "hunter2-ci",
        "NEXUS_SECRET": "hunter2-server-secret,hunter2-older-server-secret",
        "GATEWAY_JWT_SECRET": "hunter2-jwt",
        "GATEWAY_JWT_PUBLIC_KEY": PEM,
        "GATEWAY_JWT_ALGORITHMS": "HS256,RS256",
        "GATEWAY_JWT_JWKS_URL": "https://hunter2:hunter2@id.example/jwks",
        "GATEWAY_API_KEYS": "hunter2-api-key",
        "GATEWAY_API_KEY_POLICIES": '{"hunter2-api-key": {"allowed_models": ["gpt-*", "o3"]}}',
        "ADMIN_TOKEN": "hunter2-admin",
        "NEXUS_TARGET_URL": "https://hunter2:hunter2@api.example",
        "NEXUS_NATS_PASSWORD": "hunter2-bus",
        "NEXUS_NATS_NKEY_SEED": "hunter2-seed",
        "NEXUS_NATS_TLS_KEY": "key.pem",
    }
    config, origins, notices = from_yaml(WHOLE, env)
    described = describe(config, origins)
    assert "hunter2" not in described
    assert not any("hunter2" in notice for notice in notices)
    lines = {}
    for line in described.splitlines():
        path, _, rest = line.partition(" = ")
        value, _, origin = rest.rpartition("  (")
        lines[path] = (value.strip(), origin.removesuffix(")"))
    policy = f"key_policies.{id_of('hunter2-api-key')}.allowed_models"
    expected = {
        "keys.web.key": ("set", "given.yaml"),
        "keys.web.allowed_models": ("gpt-*, claude-3-sonnet", "given.yaml"),
        "keys.web.limits.requests_per_minute": ("60", "given.yaml"),
        "keys.web.metadata.since": ("2026-01-01", "given.yaml"),
        "keys.web.expires_at": ("2027-01-01T00:00:00Z", "given.yaml"),
        "keys.web.budgets.0.limit_usd": ("5.0", "given.yaml"),
        "keys.web.budgets.0.hard_stop": ("true", "given.yaml"),
        "keys.ci.allowed_models": ("unset", "default"),
        "keys.ci.payloads": ("unset", "default"),
        "projects.shop.team": ("web", "given.yaml"),
        "teams.web.allowed_models": ("*", "given.yaml"),
        "budgets.1.id": ("auth0|17", "given.yaml"),
        "budgets.1.limit_usd": ("7.5", "given.yaml"),
        "tiers.gold.burst": ("20", "given.yaml"),
        "secret": ("set (2)", "environment NEXUS_SECRET"),
        "jwt.secret": ("set", "environment GATEWAY_JWT_SECRET"),
        "jwt.public_key": ("-----BEGIN PUBLIC KEY----- ...", "environment GATEWAY_JWT_PUBLIC_KEY"),
        "jwt.jwks_url": ("https://***@id.example/jwks", "environment GATEWAY_JWT_JWKS_URL"),
        "jwt.algorithms": ("HS256, RS256", "environment GATEWAY_JWT_ALGORITHMS"),
        "jwt.leeway": ("10.0", "default"),
        "api_keys": ("set (1)", "environment GATEWAY_API_KEYS"),
        "admin_token": ("set", "environment ADMIN_TOKEN"),
        policy: ("gpt-*, o3", "environment GATEWAY_API_KEY_POLICIES"),
        "target_url": ("https://***@api.example", "environment NEXUS_TARGET_URL"),
        "providers.target.base_url": (
            "https://***@api.example/v1",
            "environment NEXUS_TARGET_URL",
        ),
        "providers.target.client_keys": ("required", "target_url"),
        "providers.target.api_key": ("unset", "default"),
        "bus.tls_key": ("key.pem", "environment NEXUS_NATS_TLS_KEY"),
    }
    assert {path: lines.get(path) for path in expected} == expected


def test_the_sample_in_the_documentation_works_as_it_is_printed() -> None:
    page = (Path(__file__).parents[2] / "docs" / "compatibility.md").read_text()
    sample = page.partition("```yaml\n")[2].partition("```")[0]
    config = from_yaml(sample, {**KEYS, "NEXUS_SECRET": SECRET}).config
    assert config.keys["web"].project in config.projects
    assert config.keys["web"].tier in config.tiers
