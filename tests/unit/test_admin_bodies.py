"""What the admin API reads: which settings a body gives, and which mistake it is told of."""

import json
from datetime import datetime
from typing import Any

import msgspec
import pytest

from ingress.admin import bodies, checks, views
from ingress.admin.resources.keys import NewKey, Rotation
from ingress.admin.resources.projects import NewProject
from schemas.access import BudgetSettings, BudgetTerms, Key, KeySettings, Limits, LimitSettings
from schemas.config import Config
from schemas.errors import InvalidRequest
from tests.admin_records import HOUR, NOON, NOTHING, refused


def settings_of(**fields: Any) -> dict[str, Any]:
    return bodies.given(json.dumps(fields).encode(), KeySettings)


def test_what_is_shown_can_be_sent_back() -> None:
    key = Key(id="key_a", name="shop", limits=Limits(burst=2), metadata={"a": "b"})
    shown = msgspec.to_builtins(views.key_view(key, (), NOTHING, NOON))
    ours = {name: shown[name] for name in KeySettings.__struct_fields__}
    read = bodies.decode(msgspec.json.encode(ours), NewKey)
    assert bodies.fields_of(read, KeySettings) == bodies.fields_of(key, KeySettings)


def test_null_is_the_default_and_what_is_not_said_stays() -> None:
    assert settings_of(name=None, on_disconnect=None, limits=None, tier="pro") == {
        "name": "",
        "on_disconnect": "cancel",
        "limits": None,
        "tier": "pro",
    }
    assert settings_of() == {}
    assert bodies.given(b"", KeySettings) == {}


# name: (what is read, the body, the field that is wrong, what is said of it)
MISTAKES: dict[str, tuple[type[msgspec.Struct], Any, str, str]] = {
    "a wrong type": (NewKey, {"name": 5}, "name", "expected text."),
    "an unknown field": (NewKey, {"nmae": "x"}, "nmae", "unknown field; did you mean name?"),
    "an unknown null": (NewKey, {"foo": None}, "foo", "unknown field; known here: allowed_"),
    "an unknown inner field": (
        NewKey, {"limits": {"brust": 5}}, "limits.brust",
        "unknown field; did you mean limits.burst?",
    ),
    "an unprintable field": (NewKey, {"a\n": 5}, "a\\n", "unknown field; known here:"),
    "a field that ends like a place": (
        NewKey, {"a` - at `$.x": 1}, "x.a", "unknown field; known here:",
    ),
    "no list": (NewKey, {"allowed_models": "gpt"}, "allowed_models", "expected a list."),
    "an empty list": (
        NewKey, {"allowed_models": []}, "allowed_models", "expected a list of at least 1 entry.",
    ),
    "an empty entry": (
        NewKey, {"allowed_models": ["a", ""]}, "allowed_models.1",
        "expected text of at least 1 character.",
    ),
    "a fraction": (NewKey, {"limits": {"burst": 1.5}}, "limits.burst", "expected a whole number."),
    "too small": (
        NewKey, {"limits": {"burst": 0}}, "limits.burst", "expected a whole number >= 1.",
    ),
    "a space before an id": (
        NewKey, {"project": " a"}, "project",
        "expected text without line breaks, that neither begins nor ends with a space.",
    ),
    "a line break in a name": (
        NewKey, {"name": "a\nb"}, "name",
        "expected text without line breaks or other control characters.",
    ),
    "a long id": (NewKey, {"user": "x" * 129}, "user", "expected text of at most 128 characters."),
    "an unknown word": (
        NewKey, {"payloads": "some"}, "payloads", "expected one of none, redacted, full.",
    ),
    "metadata of numbers": (NewKey, {"metadata": {"a": 5}}, "metadata", "an entry: expected text."),
    "metadata without a name": (
        NewKey, {"metadata": {"": "a"}}, "metadata",
        "the name of an entry: expected text of at least 1 character.",
    ),
    "a time without zone": (
        NewKey, {"expires_at": "2030-01-01T00:00:00"}, "expires_at",
        "expected a time with its zone, like 2027-01-31T12:00:00Z.",
    ),
    "a budget without limit": (
        NewKey, {"budgets": [{"period": "day"}]}, "budgets.0.limit_usd",
        "missing, it has no default.",
    ),
    "five budgets": (
        NewKey, {"budgets": [{"period": "day", "limit_usd": 1}] * 5}, "budgets",
        "expected a list of at most 4 entries.",
    ),
    "no id": (NewProject, {"name": "x"}, "id", "missing, it has no default."),
    "a null id": (NewProject, {"id": None}, "id", "expected text."),
    "a long grace": (
        Rotation, {"grace_seconds": 2_592_001}, "grace_seconds",
        "expected a whole number <= 2592000.",
    ),
    "an unknown scope": (
        BudgetSettings, {"scope": "all", "period": "day", "limit_usd": 1}, "scope",
        "expected one of global, team, project, user, key.",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "body", "field", "says"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_told_by_its_field(
    kind: type[msgspec.Struct], body: Any, field: str, says: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        bodies.decode(json.dumps(body).encode(), kind)
    assert caught.value.info.message.startswith(f"{field}: {says}")
    assert refused(caught.value) == ("invalid_value", field)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "invalid_json"),
        (b"[]", "invalid_json"),
        (b"null", "invalid_json"),
        (b'{"limits":{"burst":1e999}}', "invalid_json"),
        (b'{"a":' * 100_000, "invalid_json"),
        (b'{"name":"\\ud800"}', "invalid_json"),
        (b'{"name":"\xff"}', "invalid_encoding"),
    ],
)
def test_a_body_that_is_no_json_object(body: bytes, code: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        bodies.decode(body, NewKey)
    assert refused(caught.value) == (code, None)


def test_a_tier_is_built_in_or_configured() -> None:
    config = Config(tiers={"gold": LimitSettings()})
    for tier in ("", "free", "pro", "enterprise", "gold"):
        checks.known_tier(tier, config)
    with pytest.raises(InvalidRequest, match="one of free, pro, enterprise, gold"):
        checks.known_tier("silver", config)


def test_an_end_is_a_time_to_come_and_recorded_in_utc() -> None:
    later = datetime.fromisoformat("2030-01-01T02:00:00+02:00")
    given = checks.settings({"expires_at": later}, Config(), NOON)
    assert given["expires_at"].isoformat() == "2030-01-01T00:00:00+00:00"
    latest = datetime.fromisoformat("9999-12-31T23:59:59-23:59")
    earliest = datetime.fromisoformat("0001-01-01T00:00:00+23:59")
    for wrong in (NOON, NOON - HOUR, latest, earliest):
        with pytest.raises(InvalidRequest) as caught:
            checks.settings({"expires_at": wrong}, Config(), NOON)
        assert refused(caught.value) == ("invalid_value", "expires_at")


def test_budgets_of_one_record_differ_in_their_period() -> None:
    checks.one_per_period([BudgetTerms(period="day", limit_usd=1)])
    twice = [BudgetTerms(period=one, limit_usd=1) for one in ("day", "week", "day")]
    with pytest.raises(InvalidRequest) as caught:
        checks.one_per_period(twice)
    assert refused(caught.value) == ("invalid_value", "budgets.2.period")
