"""A request may narrow whose call it is, and never leave what its credential is bound to."""

from typing import Any

import pytest

from ingress.auth import Principal
from ingress.call_budget import CallBudget
from ingress.tenancy import narrowed, plain_user
from ledger.access.configured import configured
from ledger.access.registry import Registry
from schemas.call import Tenant
from schemas.config import Config, ProjectConfig, TeamConfig
from schemas.errors import Forbidden

REGISTRY = Registry(
    configured(
        Config(
            projects={
                "shop": ProjectConfig(
                    team="sales",
                    allowed_models=("gpt-4o*",),
                    tier="pro",
                    payloads="redacted",
                ),
                "lab": ProjectConfig(),
            },
            teams={"sales": TeamConfig(allowed_models=("gpt-*",), tier="free")},
        )
    )
)


def key(**ids: str) -> Principal:
    return Principal(Tenant(key_id="key_a", app="app", **ids))


def named(principal: Principal, user: str = "", **ids: Any) -> Principal:
    return narrowed(principal, CallBudget(**ids), user, REGISTRY)


def refused(principal: Principal, **ids: str) -> Forbidden:
    with pytest.raises(Forbidden) as caught:
        named(principal, **ids)
    assert (caught.value.info.status, caught.value.info.type) == (403, "permission_error")
    return caught.value


def test_a_request_that_names_nobody_changes_nothing() -> None:
    principal = key(project="shop", user="ana")
    assert narrowed(principal, None, "", REGISTRY) is principal
    assert narrowed(principal, CallBudget(max_cost_nano=5), "", REGISTRY) is principal


def test_a_key_without_project_may_name_any_also_one_that_nobody_has_set_up() -> None:
    assert named(key(), project_id="new").tenant == Tenant("key_a", project="new", app="app")
    admin = Principal(Tenant(key_id="admin"), admin=True, kind="admin")
    assert named(admin, project_id="new").tenant == Tenant("admin", project="new")


def test_a_key_of_a_project_may_name_only_that() -> None:
    bound = key(project="shop", team="sales")
    assert named(bound, project_id="shop") is bound
    info = refused(bound, project_id="lab").info
    assert (info.code, info.param) == ("foreign_project", "budget.project_id")
    assert "'lab'" in info.message and "'shop'" in info.message


def test_a_key_of_a_user_may_name_only_that_user() -> None:
    bound = key(user="ana")
    assert named(bound, user_id="ana") is bound
    info = refused(bound, user_id="bob").info
    assert (info.code, info.param) == ("foreign_user", "budget.user_id")
    assert named(key(), user_id="bob").tenant.user == "bob"


def test_a_key_of_a_team_may_not_name_another_teams_project() -> None:
    assert refused(key(team="research"), project_id="shop").info.code == "foreign_project"
    assert named(key(team="research"), project_id="lab").tenant.team == "research"
    assert named(key(team="sales"), project_id="shop").tenant.project == "shop"


def test_the_rules_of_a_named_project_and_its_team_hold() -> None:
    free = Principal(Tenant("key_a"), models=(("*",),))
    narrow = named(free, project_id="shop")
    assert narrow.tenant == Tenant("key_a", project="shop", team="sales")
    assert narrow.models == (("*",), ("gpt-4o*",), ("gpt-*",))
    assert (narrow.tier, narrow.payloads) == ("pro", "redacted")
    with pytest.raises(Forbidden):
        narrow.require_model("claude-3-opus")


def test_what_the_key_says_of_itself_goes_before_the_named_project() -> None:
    own = Principal(Tenant("key_a"), tier="enterprise", payloads="none")
    narrow = named(own, project_id="shop")
    assert (narrow.tier, narrow.payloads) == ("enterprise", "none")


def test_the_team_of_a_key_is_not_counted_twice() -> None:
    of_team = Principal(Tenant("key_a", team="sales"), models=(("gpt-*",),))
    assert named(of_team, project_id="shop").models == (("gpt-*",), ("gpt-4o*",))


def test_who_comes_without_a_credential_of_ours_may_name_nobody() -> None:
    stranger = Principal(Tenant("client_1"), kind="client")
    assert refused(stranger, project_id="lab").info.code == "foreign_project"
    assert refused(stranger, user_id="ana").info.code == "foreign_user"
    assert named(stranger, user="ana") is stranger


def test_openais_user_stands_for_the_user_where_nothing_else_does() -> None:
    assert named(key(), user="end-user").tenant.user == "end-user"
    assert named(key(user="ana"), user="end-user").tenant.user == "ana"
    assert named(key(), user="end-user", user_id="bob").tenant.user == "bob"
    assert named(key(user="ana"), user="end-user", user_id="ana").tenant.user == "ana"
    both = named(key(), user="end-user", project_id="lab").tenant
    assert (both.project, both.user) == ("lab", "end-user")


@pytest.mark.parametrize("text", ["ana", "auth0|17", "Ana B\u00e9", "x" * 128, "\u4e2d" * 128])
def test_a_user_within_the_bounds_of_ids_is_itself(text: str) -> None:
    assert plain_user(text) == text


@pytest.mark.parametrize("text", ["x" * 129, " ana", "ana\n", "a\nb", "a\x7f", "x" * 1_000_000])
def test_any_other_user_is_a_digest_of_bounded_length(text: str) -> None:
    digest = plain_user(text)
    assert digest.startswith("sha256-") and len(digest) == 71
    assert digest == plain_user(text) != plain_user(text + "x")


def test_ids_reach_the_events_of_a_call() -> None:
    fields: dict[str, Any] = {"project_id": "lab", "user_id": "bob"}
    assert named(key(), **fields).tenant == Tenant("key_a", "lab", "", "bob", "app")
