"""Who may call, as the configuration says it: every form of it is read, every mistake is named with
its place and a way out, and no secret is ever shown."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from compose.check import describe
from ledger.access.configured import id_of
from ledger.access.key_text import new_key
from schemas.access import BudgetSettings, BudgetTerms, LimitSettings
from schemas.config import (
    KeyConfig,
    ProjectConfig,
    TeamConfig,
)
from tests.given_settings import complaint, from_env, from_yaml

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
        limits=LimitSettings(requests_per_minute=60, concurrent=5),
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
    assert config.tiers == {"gold": LimitSettings(requests_per_second=10, burst=20)}
    assert config.api_keys == ()


def test_nothing_of_who_may_call_is_left_to_a_later_version() -> None:
    text = WHOLE + "limits: {burst: 5}\nbudget: {daily_limit_usd: 20}\n"
    env = {
        **KEYS,
        "GATEWAY_API_KEYS": "k",
        "GATEWAY_API_KEY_POLICIES": '{"k": {"rate_limit_per_minute": 5}}',
        "NEXUS_SECRET": SECRET,
    }
    assert from_yaml(text, env).notices == []


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
        "NEXUS_NATS_TLS_CERT": "cert.pem",
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
