"""What the admin API shows and decides: pure functions of records, bodies and the registry."""

import asyncio
import json
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import msgspec
import pytest

from ingress.admin import bodies, checks, views
from ingress.admin.budget_events import budget_begun, budget_removed, budget_set
from ingress.admin.desk import Author, unhurried
from ingress.admin.key_events import key_created, key_revoked, key_rotated, key_updated
from ingress.admin.resources.keys import NewKey, Rotation
from ingress.admin.resources.projects import NewProject, project_created, project_removed
from ingress.admin.resources.projects import project_updated as updated_project
from ingress.admin.resources.teams import team_created, team_removed, team_updated
from ingress.openapi import described
from ledger.access.configured import Configured
from ledger.access.registry import Registry
from ledger.reader import Stored
from schemas import subjects
from schemas.access import (
    Budget,
    BudgetSettings,
    BudgetTerms,
    Key,
    KeySettings,
    Limits,
    LimitSettings,
    Project,
    ProjectSettings,
    Secret,
    Team,
    moment,
)
from schemas.access_events import AccessEvent
from schemas.config import Config
from schemas.errors import InvalidRequest, NexusError, NotFound
from schemas.event import type_of
from schemas.events import encode_event
from schemas.ids import Clock

SECOND = 1_000_000_000
NOON_NS = 1_790_000_000 * SECOND
NOON = moment(NOON_NS)
HOUR = timedelta(hours=1)
NOTHING = Configured({}, {}, {}, {}, {})
DECLARED = Configured(
    keys={"key_file": Key(id="key_file")},
    opens={},
    projects={"file": Project(id="file")},
    teams={"file": Team(id="file")},
    budgets={"team:file:day": Budget(scope="team", id="file", period="day", limit_nano=5)},
)
_sequences = count(1)


def author(at_ns: int = NOON_NS) -> Author:
    return Author("admin", Clock(now_ns=lambda: at_ns))


def take(registry: Registry, event: AccessEvent) -> AccessEvent:
    """The event, after the registry has it."""
    subject = subjects.ledger("ingress", "", type_of(event))
    registry.take(Stored(next(_sequences), subject, encode_event(event)))
    return event


def with_key(
    registry: Registry, id: str = "key_a", at_ns: int = NOON_NS, **settings: Any
) -> Registry:
    secret = Secret(b"first", hint="nx-1…")
    take(registry, key_created(registry, id, settings, secret, "pepper", author(at_ns)))
    return registry


def refused(error: NexusError) -> tuple[str | None, str | None]:
    return error.info.code, error.info.param


# What is shown


def test_a_key_is_shown_with_every_field_and_null_where_nothing_is_set() -> None:
    shown = views.key_view(Key(id="key_a"), (), NOTHING, NOON)
    assert json.loads(msgspec.json.encode(shown)) == {
        "object": "key",
        "id": "key_a",
        "name": None,
        "hint": None,
        "status": "active",
        "source": "ledger",
        "project": None,
        "team": None,
        "user": None,
        "allowed_models": None,
        "tier": None,
        "limits": None,
        "metadata": {},
        "on_disconnect": "cancel",
        "queue": False,
        "payloads": None,
        "expires_at": None,
        "budgets": [],
        "secrets": [],
        "created_at": None,
        "updated_at": None,
        "revoked_at": None,
    }


def test_a_key_is_shown_as_it_was_set() -> None:
    key = Key(
        id="key_a",
        name="shop",
        project="p",
        team="t",
        user="u",
        allowed_models=("gpt-*",),
        tier="pro",
        limits=Limits(burst=5),
        metadata={"a": "b"},
        on_disconnect="drain",
        payloads="full",
        expires_at=NOON + HOUR,
        secrets=(
            Secret(b"x", "nx-gone", NOON),
            Secret(b"y", "nx-older", NOON + HOUR),
            Secret(b"z", "nx-new"),
        ),
        pepper="0011",
        created_at=NOON,
        updated_at=NOON,
    )
    budget = Budget(scope="key", id="key_a", period="day", limit_nano=1_500_000_000)
    shown = json.loads(msgspec.json.encode(views.key_view(key, (budget,), NOTHING, NOON)))
    assert shown["limits"] == {
        "requests_per_second": None,
        "burst": 5,
        "requests_per_minute": None,
        "requests_per_hour": None,
        "tokens_per_minute": None,
        "tokens_per_hour": None,
        "concurrent": None,
    }
    assert shown["hint"] == "nx-new"
    assert shown["secrets"] == [
        {"hint": "nx-older", "until": "2026-09-21T15:13:20Z"},
        {"hint": "nx-new", "until": None},
    ]
    assert [one["name"] for one in shown["budgets"]] == ["key:key_a:day"]
    assert shown["budgets"][0]["limit_usd"] == 1.5
    assert (shown["allowed_models"], shown["tier"], shown["team"]) == (["gpt-*"], "pro", "t")
    assert "pepper" not in shown and "digest" not in str(shown)


@pytest.mark.parametrize(
    ("expires_at", "revoked_at", "status"),
    [
        (None, None, "active"),
        (NOON + HOUR, None, "active"),
        (NOON, None, "expired"),
        (NOON - HOUR, NOON, "revoked"),
        (None, NOON, "revoked"),
    ],
)
def test_the_status_of_a_key(
    expires_at: datetime | None, revoked_at: datetime | None, status: str
) -> None:
    key = Key(id="key_a", expires_at=expires_at, revoked_at=revoked_at)
    assert views.status_of(key, NOON) == status


def test_what_is_declared_says_so() -> None:
    assert views.key_view(Key(id="key_file"), (), DECLARED, NOON).source == "configuration"
    budget = DECLARED.budgets["team:file:day"]
    assert views.project_view(Project(id="file"), (), DECLARED).source == "configuration"
    assert views.project_view(Project(id="other"), (), DECLARED).source == "ledger"
    assert views.team_view(Team(id="file"), (budget,), DECLARED).budgets[0].source == (
        "configuration"
    )


def test_the_budget_of_all_has_no_id() -> None:
    shown = views.budget_view(Budget(scope="global", period="week", limit_nano=1), NOTHING)
    assert (shown.name, shown.id, shown.limit_usd) == ("global:week", None, 1e-9)


# What is read


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


MISTAKES: dict[str, tuple[type[msgspec.Struct], Any, str, str]] = {
    "a wrong type": (NewKey, {"name": 5}, "name", "name: expected text."),
    "an unknown field": (
        NewKey, {"nmae": "x"}, "nmae", "nmae: unknown field; did you mean name?",
    ),
    "an unknown null": (NewKey, {"foo": None}, "foo", "foo: unknown field; known here: allowed_"),
    "an unknown inner field": (
        NewKey, {"limits": {"brust": 5}}, "limits.brust",
        "limits.brust: unknown field; did you mean limits.burst?",
    ),
    "an unprintable field": (NewKey, {"a\n": 5}, "a\\n", "a\\n: unknown field; known here:"),
    "a field that ends like a place": (
        NewKey, {"a` - at `$.x": 1}, "x.a", "x.a: unknown field; known here:",
    ),
    "no list": (
        NewKey, {"allowed_models": "gpt"}, "allowed_models", "allowed_models: expected a list.",
    ),
    "an empty list": (
        NewKey, {"allowed_models": []}, "allowed_models",
        "allowed_models: expected a list of at least 1 entry.",
    ),
    "an empty entry": (
        NewKey, {"allowed_models": ["a", ""]}, "allowed_models.1",
        "allowed_models.1: expected text of at least 1 character.",
    ),
    "a fraction": (
        NewKey, {"limits": {"burst": 1.5}}, "limits.burst",
        "limits.burst: expected a whole number.",
    ),
    "too small": (
        NewKey, {"limits": {"burst": 0}}, "limits.burst",
        "limits.burst: expected a whole number >= 1.",
    ),
    "a space before an id": (
        NewKey, {"project": " a"}, "project",
        "project: expected text without line breaks, that neither begins nor ends with a space.",
    ),
    "a line break in a name": (
        NewKey, {"name": "a\nb"}, "name",
        "name: expected text without line breaks or other control characters.",
    ),
    "a long id": (
        NewKey, {"user": "x" * 129}, "user", "user: expected text of at most 128 characters.",
    ),
    "an unknown word": (
        NewKey, {"payloads": "some"}, "payloads",
        "payloads: expected one of none, redacted, full.",
    ),
    "metadata of numbers": (
        NewKey, {"metadata": {"a": 5}}, "metadata", "metadata: an entry: expected text.",
    ),
    "metadata without a name": (
        NewKey, {"metadata": {"": "a"}}, "metadata",
        "metadata: the name of an entry: expected text of at least 1 character.",
    ),
    "a time without zone": (
        NewKey, {"expires_at": "2030-01-01T00:00:00"}, "expires_at",
        "expires_at: expected a time with its zone, like 2027-01-31T12:00:00Z.",
    ),
    "a budget without limit": (
        NewKey, {"budgets": [{"period": "day"}]}, "budgets.0.limit_usd",
        "budgets.0.limit_usd: missing, it has no default.",
    ),
    "five budgets": (
        NewKey, {"budgets": [{"period": "day", "limit_usd": 1}] * 5}, "budgets",
        "budgets: expected a list of at most 4 entries.",
    ),
    "no id": (NewProject, {"name": "x"}, "id", "id: missing, it has no default."),
    "a null id": (NewProject, {"id": None}, "id", "id: expected text."),
    "a long grace": (
        Rotation, {"grace_seconds": 2_592_001}, "grace_seconds",
        "grace_seconds: expected a whole number <= 2592000.",
    ),
    "an unknown scope": (
        BudgetSettings, {"scope": "all", "period": "day", "limit_usd": 1}, "scope",
        "scope: expected one of global, team, project, user, key.",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "body", "param", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_told_by_its_field(
    kind: type[msgspec.Struct], body: Any, param: str, message: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        bodies.decode(json.dumps(body).encode(), kind)
    assert caught.value.info.message.startswith(message)
    assert refused(caught.value) == ("invalid_value", param)


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


# What is decided


def test_a_new_key_is_an_event_of_its_own_tenant() -> None:
    chosen = {"project": "p", "team": "t", "user": "u", "name": "shop"}
    secret = Secret(b"digest", hint="nx-1…")
    event = key_created(Registry(), "key_a", chosen, secret, "pepper", author())
    assert (event.key_id, event.project, event.team, event.user) == ("key_a", "p", "t", "u")
    assert (event.by, event.time, event.call_id) == ("admin", "2026-09-21T14:13:20.000000Z", "")
    assert event.record == Key(
        id="key_a",
        name="shop",
        project="p",
        team="t",
        user="u",
        secrets=(secret,),
        pepper="pepper",
        created_at=NOON,
        updated_at=NOON,
    )


def test_an_update_replaces_what_is_given() -> None:
    registry = with_key(Registry(), name="shop", project="p", tier="pro")
    event = key_updated(registry, "key_a", {"tier": "", "project": "q"}, author(NOON_NS + SECOND))
    assert event.project == "q"
    changed = event.record
    assert (changed.name, changed.project, changed.tier) == ("shop", "q", "")
    assert (changed.created_at, changed.updated_at) == (NOON, NOON + timedelta(seconds=1))
    assert changed.secrets == (Secret(b"first", hint="nx-1…"),)


def test_a_rotation_ends_the_older_secrets_after_their_grace() -> None:
    registry = with_key(Registry())

    def rotate(name: bytes, grace: int, at: int) -> dict[bytes, datetime | None]:
        by = author(NOON_NS + at * SECOND)
        event = key_rotated(registry, "key_a", Secret(name), "new pepper", grace, by)
        assert take(registry, event) is event and event.record.pepper == "new pepper"
        return {one.digest: one.until for one in event.record.secrets}

    def at(seconds: int) -> datetime:
        return NOON + timedelta(seconds=seconds)

    assert rotate(b"second", 100, at=0) == {b"first": at(100), b"second": None}
    # The first one keeps its earlier end.
    assert rotate(b"third", 100, at=50) == {b"first": at(100), b"second": at(150), b"third": None}
    # The grace of the first one is over.
    assert rotate(b"4", 10, at=100) == {b"second": at(110), b"third": at(110), b"4": None}
    assert rotate(b"fifth", 0, at=101) == {b"fifth": None}


def test_a_key_has_ten_secrets_at_most() -> None:
    registry = with_key(Registry())
    for number in range(9):
        secret = Secret(f"secret {number}".encode())
        take(registry, key_rotated(registry, "key_a", secret, "", 3600, author()))
    with pytest.raises(InvalidRequest) as caught:
        key_rotated(registry, "key_a", Secret(b"x"), "", 3600, author())
    assert refused(caught.value) == ("too_many_secrets", "grace_seconds")
    event = key_rotated(registry, "key_a", Secret(b"x"), "", 0, author())
    assert event.record.secrets == (Secret(b"x"),)


def test_what_has_ended_is_not_changed() -> None:
    registry = with_key(Registry(), "key_old", expires_at=NOON + HOUR)
    later = author(NOON_NS + 3600 * SECOND)
    with pytest.raises(InvalidRequest) as caught:
        key_rotated(registry, "key_old", Secret(b"x"), "", 0, later)
    assert refused(caught.value) == ("key_expired", None)
    # But it may get another end.
    longer = key_updated(registry, "key_old", {"expires_at": NOON + 3 * HOUR}, later)
    assert take(registry, longer)
    event = key_revoked(registry, "key_old", later)
    assert event.record.revoked_at == later.now()
    take(registry, event)
    for change in (
        lambda: key_updated(registry, "key_old", {"name": "x"}, later),
        lambda: key_rotated(registry, "key_old", Secret(b"x"), "", 0, later),
        lambda: key_revoked(registry, "key_old", later),
    ):
        with pytest.raises(InvalidRequest) as caught:
            change()
        assert refused(caught.value) == ("key_revoked", None)


def test_what_is_declared_is_not_changed_here() -> None:
    registry, by, terms = Registry(DECLARED), author(), BudgetTerms(period="day", limit_usd=1)
    for change in (
        lambda: key_updated(registry, "key_file", {}, by),
        lambda: key_rotated(registry, "key_file", Secret(b"x"), "", 0, by),
        lambda: key_revoked(registry, "key_file", by),
        lambda: project_created(registry, "file", {}, by),
        lambda: updated_project(registry, "file", {}, by),
        lambda: project_removed(registry, "file", by),
        lambda: team_created(registry, "file", {}, by),
        lambda: team_updated(registry, "file", {}, by),
        lambda: team_removed(registry, "file", by),
        lambda: budget_set(registry, "team", "file", terms, by),
        lambda: budget_removed(registry, "team:file:day", by),
    ):
        with pytest.raises(InvalidRequest, match="declared in the configuration") as caught:
            change()
        assert refused(caught.value) == ("configured", None)


def test_what_is_not_there_is_not_found() -> None:
    registry, by = Registry(), author()
    for change in (
        lambda: key_updated(registry, "no\nkey", {}, by),
        lambda: updated_project(registry, "no\nkey", {}, by),
        lambda: project_removed(registry, "no\nkey", by),
        lambda: team_updated(registry, "no\nkey", {}, by),
        lambda: team_removed(registry, "no\nkey", by),
        lambda: budget_removed(registry, "no\nkey", by),
    ):
        with pytest.raises(NotFound, match=r"'no\\nkey'"):
            change()


def test_a_project_begins_once_and_may_begin_again_after_its_end() -> None:
    registry, by = Registry(), author()
    event = project_created(registry, "shop", {"team": "t"}, by)
    assert (event.project, event.team, event.record.team) == ("shop", "", "t")
    take(registry, event)
    with pytest.raises(InvalidRequest) as caught:
        project_created(registry, "shop", {}, by)
    assert refused(caught.value) == ("already_exists", "id")
    later = author(NOON_NS + SECOND)
    changed = updated_project(registry, "shop", {"name": "Shop"}, later).record
    assert (changed.team, changed.name, changed.created_at) == ("t", "Shop", NOON)
    assert changed.updated_at == later.now()
    take(registry, project_removed(registry, "shop", by))
    assert project_created(registry, "shop", {}, by).record.team == ""


def test_a_team_begins_once() -> None:
    registry, by = Registry(), author()
    event = team_created(registry, "red", {"tier": "pro"}, by)
    assert (event.team, event.record.tier) == ("red", "pro")
    take(registry, event)
    with pytest.raises(InvalidRequest) as caught:
        team_created(registry, "red", {}, by)
    assert refused(caught.value) == ("already_exists", "id")
    assert team_updated(registry, "red", {"tier": ""}, by).record.tier == ""
    assert team_removed(registry, "red", by).team == "red"


def test_a_budget_is_of_the_tenant_of_its_scope_and_keeps_its_beginning() -> None:
    registry, terms = Registry(), BudgetTerms(period="day", limit_usd=0.1)
    for scope, field in (("key", "key_id"), ("project", "project"), ("team", "team")):
        event = budget_set(registry, scope, "a", terms, author())  # type: ignore[arg-type]
        assert getattr(event, field) == "a" and event.record.limit_nano == 100_000_000
    event = budget_set(registry, "user", "u", terms, author())
    assert (event.user, event.key_id, event.project, event.team) == ("u", "", "", "")
    assert budget_set(registry, "global", "", terms, author()).user == ""
    take(registry, event)
    again = budget_set(registry, "user", "u", terms, author(NOON_NS + SECOND)).record
    assert (again.created_at, again.updated_at) == (NOON, NOON + timedelta(seconds=1))
    removed = budget_removed(registry, "user:u:day", author())
    assert (removed.user, removed.name) == ("u", "user:u:day")


def test_the_budget_of_something_new_takes_no_other_ones_place() -> None:
    registry, terms = Registry(), BudgetTerms(period="day", limit_usd=1)
    take(registry, budget_begun(registry, "project", "p", terms, author()))
    assert budget_begun(registry, "project", "p", terms, author()).record.limit_nano == 10**9
    other = BudgetTerms(period="day", limit_usd=2)
    with pytest.raises(InvalidRequest) as caught:
        budget_begun(registry, "project", "p", other, author())
    assert refused(caught.value) == ("already_exists", "budgets")


async def test_a_long_list_lets_others_have_their_turn() -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    assert [number async for number in unhurried(range(2_000))] == list(range(2_000))
    assert turns >= 7
    task.cancel()


# What is described


def test_what_is_described_can_be_read_by_any_json_schema() -> None:
    told = described("update_project", views.ProjectView, body=ProjectSettings, errors=(404,))
    extra = told["openapi_extra"]
    schemas = extra["x-components"]
    assert "\\Z" not in json.dumps(schemas)
    name = schemas["ProjectSettings"]["properties"]["name"]
    assert name["anyOf"][1] == {"type": "null"} and name["default"] == ""
    assert set(schemas["ProjectView"]["required"]) >= {"object", "id", "limits", "budgets"}
    assert extra["requestBody"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/ProjectSettings"
    }
    assert set(told["responses"]) == {200, 400, 401, 403, 404, 408, 413, 503}
