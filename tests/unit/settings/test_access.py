"""Who may call, as the configuration says it: every form of it is read, and no secret is shown."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from compose.check import describe
from ledger.access.configured import id_of
from schemas.access import BudgetSettings, BudgetTerms, LimitSettings
from schemas.config import KeyConfig, ProjectConfig, TeamConfig
from tests.given_settings import from_env, from_yaml
from tests.unit.settings.keys import KEYS, WEB

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
    page = (Path(__file__).parents[3] / "docs" / "compatibility.md").read_text()
    sample = page.partition("```yaml\n")[2].partition("```")[0]
    config = from_yaml(sample, {**KEYS, "NEXUS_SECRET": SECRET}).config
    assert config.keys["web"].project in config.projects
    assert config.keys["web"].tier in config.tiers
