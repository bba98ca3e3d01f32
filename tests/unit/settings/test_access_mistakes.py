"""Every mistake about who may call is named with its place and a way out, and shows no secret."""

import pytest

from ledger.access.key_text import new_key
from tests.given_settings import complaint
from tests.unit.settings.keys import KEYS, WEB

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
