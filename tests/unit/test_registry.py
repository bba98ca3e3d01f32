"""The key registry as a fold: what is known of a key after each change, and what wins."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from ledger.access.configured import configured, id_of
from ledger.access.registry import Registry
from ledger.reader import Stored
from schemas import subjects
from schemas.access import (
    Budget,
    BudgetSettings,
    BudgetTerms,
    Key,
    Limits,
    Project,
    Secret,
    Team,
    moment,
)
from schemas.config import Config, KeyConfig, KeyPolicy, ProjectConfig, TeamConfig
from schemas.event import Event
from schemas.events import encode_event
from tests import sample_events as sample
from tests.sample_events import NOON, SECOND, a_key, digest_of_text


def registry_of(*events: Event) -> Registry:
    registry = Registry()
    for seq, event in enumerate(events, 1):
        registry.take(sample.stored(seq, event))
    return registry


def ids_of(registry: Registry) -> list[str]:
    keys = registry.keys()
    return [key.id for key in keys]


def budget(
    scope: Any = "project", id: str = "shop", period: Any = "month", nano: int = 5
) -> Budget:
    return Budget(scope=scope, id=id, period=period, limit_nano=nano)


def test_a_key_is_found_by_the_digest_of_its_secret() -> None:
    key = a_key(allowed_models=("gpt-4o*",), metadata={"a": "b"}, user="auth0|17")
    registry = registry_of(sample.key_created(key))
    assert registry.owner(digest_of_text(key.id)) == (key, key.secrets[0])
    assert registry.owner(digest_of_text("another")) is None
    assert registry.key("key_a") == key
    assert registry.key("key_b") is None


def test_after_a_rotation_both_secrets_open_the_key_and_the_old_one_says_until_when() -> None:
    old = Secret(digest_of_text("old"), "old")
    ending = Secret(digest_of_text("old"), "old", until=moment(NOON) + timedelta(days=1))
    new = Secret(digest_of_text("new"), "new")
    registry = registry_of(
        sample.key_created(a_key(secrets=(old,))),
        sample.key_rotated(a_key(secrets=(new, ending))),
    )
    assert registry.owner(new.digest) == (a_key(secrets=(new, ending)), new)
    assert registry.owner(old.digest) == (a_key(secrets=(new, ending)), ending)


def test_a_secret_that_a_change_leaves_out_opens_nothing_any_more() -> None:
    new = Secret(digest_of_text("new"), "new")
    registry = registry_of(sample.key_created(a_key()), sample.key_rotated(a_key(secrets=(new,))))
    assert registry.owner(digest_of_text("key_a")) is None


def test_a_revoked_key_is_still_known_and_stays_revoked_whatever_follows() -> None:
    key = a_key()
    other = Secret(digest_of_text("smuggled"), "x")
    registry = registry_of(
        sample.key_created(key),
        sample.key_revoked(key, NOON + SECOND),
        sample.key_updated(a_key(name="back again")),
        sample.key_rotated(a_key(secrets=(other,))),
        sample.key_created(key),
    )
    found = registry.owner(digest_of_text("key_a"))
    assert found is not None
    assert (found[0].revoked_at, found[0].name) == (moment(NOON + SECOND), "checkout")
    assert registry.owner(other.digest) is None
    assert registry.seq == 5


def test_keys_are_listed_in_the_order_of_their_making() -> None:
    registry = registry_of(
        sample.key_created(a_key("key_z")),
        sample.key_created(a_key("key_a")),
        sample.key_updated(a_key("key_z", name="changed")),
    )
    assert ids_of(registry) == ["key_z", "key_a"]
    assert registry.key_count == 2


def test_a_list_may_begin_behind_any_key() -> None:
    config = Config(keys={"web": KeyConfig(key="web-secret-16-chars")})
    registry = Registry(configured(config))
    for seq, name in enumerate(("key_a", "key_b"), 1):
        registry.take(sample.stored(seq, sample.key_created(a_key(name))))
    assert [key.id for key in registry.keys("web")] == ["key_a", "key_b"]
    assert [key.id for key in registry.keys("key_a")] == ["key_b"]
    assert list(registry.keys("key_b")) == []


def test_what_a_newer_version_says_beside_hinders_no_revocation() -> None:
    key = a_key(limits=Limits(burst=5), revoked_at=moment(NOON))
    written = msgspec.json.decode(encode_event(sample.key_revoked(key)))
    written["record"]["limits"]["images_per_minute"] = 7
    written["record"]["colour"] = "blue"
    record = sample.stored(2, sample.key_revoked(key))
    registry = registry_of(sample.key_created(a_key()))
    registry.take(msgspec.structs.replace(record, data=msgspec.json.encode(written)))
    assert registry.key(key.id) == key


def test_a_list_that_is_read_slowly_bears_changes() -> None:
    registry = registry_of(*(sample.key_created(a_key(f"key_{n}")) for n in range(3)))
    keys = registry.keys()
    first = next(keys)
    registry.take(sample.stored(4, sample.key_created(a_key("key_new"))))
    registry.take(sample.stored(5, sample.key_updated(a_key("key_2", name="newer"))))
    assert [first.id, *(key.id for key in keys)] == ["key_0", "key_1", "key_2"]


def test_projects_teams_and_budgets_come_and_go() -> None:
    registry = registry_of(
        sample.project_set(Project(id="shop", name="The shop")),
        sample.team_set(Team(id="retail")),
        sample.budget_set(budget()),
        sample.budget_set(budget(nano=7)),
        sample.budget_set(budget(period="day")),
        sample.budget_set(budget("global", "")),
    )
    assert registry.project("shop") == Project(id="shop", name="The shop")
    assert registry.team("retail") == Team(id="retail")
    assert registry.budgets_of("project", "shop") == [budget(period="day"), budget(nano=7)]
    assert registry.budgets_of("global", "") == [budget("global", "")]
    assert registry.budgets_of("team", "shop") == []
    for seq, event in enumerate(
        (
            sample.project_removed("shop"),
            sample.team_removed("retail"),
            sample.budget_removed("project:shop:month"),
            sample.budget_removed("never:was:there"),
        ),
        7,
    ):
        registry.take(sample.stored(seq, event))
    assert registry.project("shop") is None
    assert registry.team("retail") is None
    assert set(registry.budgets) == {"project:shop:day", "global:month"}


def test_what_is_configured_wins() -> None:
    config = Config(
        keys={"key_a": KeyConfig(key="nx-configured-secret", name="mine")},
        projects={"shop": ProjectConfig(name="configured")},
        teams={"retail": TeamConfig(name="configured")},
        budgets=(BudgetSettings(scope="project", id="shop", period="month", limit_usd=1.0),),
    )
    registry = Registry(configured(config))
    for seq, event in enumerate(
        (
            sample.key_created(a_key()),
            sample.key_created(a_key("key_b")),
            sample.project_set(Project(id="shop", name="from the ledger")),
            sample.team_set(Team(id="retail", name="from the ledger")),
            sample.budget_set(budget(nano=7)),
            sample.budget_set(budget(period="day")),
        ),
        1,
    ):
        registry.take(sample.stored(seq, event))
    found = registry.key("key_a"), registry.project("shop"), registry.team("retail")
    assert [one.name for one in found if one] == ["mine", "configured", "configured"]
    assert ids_of(registry) == ["key_a", "key_b"]
    assert registry.key_count == 2
    assert {name: one.limit_nano for name, one in registry.budgets.items()} == {
        "project:shop:month": 1_000_000_000,
        "project:shop:day": 5,
    }
    assert [one.limit_nano for one in registry.budgets_of("project", "shop")] == [5, 1_000_000_000]


def test_the_configuration_opens_keys_by_their_text() -> None:
    config = Config(
        api_keys=("sk-first", "sk-second"),
        key_policies={
            id_of("sk-first"): KeyPolicy(allowed_models=("gpt-*",), rate_limit_per_minute=5)
        },
        keys={
            "ci": KeyConfig(
                key="nx-secret", team="build", budgets=(BudgetTerms(period="day", limit_usd=2.5),)
            )
        },
    )
    known = configured(config)
    assert set(known.opens) == {"sk-first", "sk-second", "nx-secret"}
    first = known.keys[known.opens["sk-first"]]
    assert first.allowed_models == ("gpt-*",)
    assert first.limits is not None and first.limits.requests_per_minute == 5
    assert known.keys[known.opens["sk-second"]] == Key(id=id_of("sk-second"))
    assert known.keys["ci"].team == "build"
    assert known.budgets["key:ci:day"].limit_nano == 2_500_000_000


def parked(change: str) -> Stored:
    good = sample.stored(2, sample.key_revoked(a_key()))
    match change:
        case "no JSON":
            return msgspec.structs.replace(good, data=b"\xff{")
        case "a record that is none":
            return msgspec.structs.replace(good, data=good.data.replace(b'"key_a"', b"5"))
        case "a type of the future":
            data = good.data.replace(b"access.key.revoked", b"access.key.frozen")
            subject = subjects.ledger("ingress", "", "access.key.frozen")
            return Stored(seq=2, subject=subject, data=data)
        case "another type than its subject says":
            subject = subjects.ledger("ingress", "", "access.key.updated")
            return msgspec.structs.replace(good, subject=subject)
        case "a role that may not write it":
            subject = subjects.ledger("worker", "", "access.key.revoked")
            return msgspec.structs.replace(good, subject=subject)
        case _:
            call = sample.rejected("call")
            subject = subjects.ledger("ingress", "", "model.request.rejected")
            return Stored(seq=2, subject=subject, data=encode_event(call))


@pytest.mark.parametrize(
    "change",
    [
        "no JSON",
        "a record that is none",
        "a type of the future",
        "another type than its subject says",
        "a role that may not write it",
        "no access event",
    ],
)
def test_what_is_no_access_event_of_ours_is_passed_over(
    change: str, caplog: pytest.LogCaptureFixture
) -> None:
    registry = registry_of(sample.key_created(a_key()))
    registry.take(parked(change))
    assert registry.key("key_a") == a_key()
    assert registry.seq == 2
    assert caplog.messages == ["access event parked"]


def test_another_event_at_the_same_sequence_is_told_apart() -> None:
    last = sample.stored(2, sample.key_created(a_key("key_b")))
    registry = registry_of(sample.key_created(a_key()))
    assert not registry.ends_with(last)
    registry.take(last)
    assert registry.ends_with(last)
    assert not registry.ends_with(sample.stored(2, sample.key_created(a_key("key_c"))))
    assert not registry.ends_with(msgspec.structs.replace(last, seq=3))


def test_a_registry_that_is_made_anew_is_the_same_object_and_says_that_it_changed() -> None:
    registry = registry_of(sample.key_created(a_key("key_a")), sample.key_created(a_key("key_b")))
    version = registry.version
    registry.become(registry_of(sample.key_created(a_key("key_c"))))
    assert ids_of(registry) == ["key_c"]
    assert registry.owner(digest_of_text("key_a")) is None
    assert registry.owner(digest_of_text("key_c")) is not None
    assert registry.seq == 1
    assert registry.version > version


def test_an_empty_registry_in_the_place_of_another_is_a_change_too() -> None:
    registry = registry_of(sample.key_created(a_key("key_a")))
    version = registry.version
    registry.become(Registry())
    assert registry.version > version
    assert (registry.seq, registry.key_count) == (0, 0)
