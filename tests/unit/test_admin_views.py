"""What the admin API shows: pure functions of records, and how it describes itself."""

import asyncio
import json
from datetime import datetime

import msgspec
import pytest

from ingress.admin import views
from ingress.admin.desk import unhurried
from ingress.openapi import described
from schemas.access import Budget, Key, Limits, Project, ProjectSettings, Secret, Team
from tests.admin_records import DECLARED, HOUR, NOON, NOTHING


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
