"""What the admin API decides: the event that a change is, or why it is none."""

from datetime import datetime, timedelta
from itertools import count
from typing import Any

import pytest

from ingress.admin.budget_events import budget_begun, budget_removed, budget_set
from ingress.admin.desk import Author
from ingress.admin.key_events import key_created, key_revoked, key_rotated, key_updated
from ingress.admin.resources.projects import project_created, project_removed
from ingress.admin.resources.projects import project_updated as updated_project
from ingress.admin.resources.teams import team_created, team_removed, team_updated
from ledger.access.registry import Registry
from ledger.reader import Stored
from schemas import subjects
from schemas.access import BudgetTerms, Key, Secret
from schemas.access_events import AccessEvent
from schemas.errors import InvalidRequest, NotFound
from schemas.event import type_of
from schemas.events import encode_event
from schemas.ids import Clock
from tests.admin_records import DECLARED, HOUR, NOON, NOON_NS, SECOND, refused

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
