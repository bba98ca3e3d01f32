"""The whole life of a key by the admin API: made, listed, changed, rotated, expired, revoked."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from ledger.access.key_text import is_well_formed
from schemas.access_events import (
    AccessEvent,
    BudgetSet,
    KeyCreated,
    KeyRevoked,
    KeyRotated,
    KeyUpdated,
)
from tests.flow.admin_api.asking import INVALID, call, events, good, ids, new_key, records
from tests.flow.gateway import Gateway, refusal, until


def test_the_whole_life_of_a_key(gateway: Gateway, admin: httpx.Client) -> None:
    created = admin.post(
        "/keys",
        json={
            "name": "shop",
            "project": "life",
            "user": "auth0|17",
            "allowed_models": ["mock"],
            "tier": "gold",
            "limits": {"requests_per_minute": 600},
            "metadata": {"cost centre": "7"},
            "on_disconnect": "drain",
            "budgets": [{"period": "month", "limit_usd": 12.5}],
        },
    )
    view = good(created, 201)
    first = view.pop("key")
    assert is_well_formed(first.encode()) and re.fullmatch(r"key_[0-9a-f]{16}", view["id"])
    path = f"/keys/{view['id']}"
    budget = view["budgets"][0]
    assert budget.pop("created_at") == budget.pop("updated_at")
    assert budget == {
        "object": "budget",
        "name": f"key:{view['id']}:month",
        "scope": "key",
        "id": view["id"],
        "period": "month",
        "limit_usd": 12.5,
        "hard_stop": True,
        "warning_threshold": 0.8,
        "source": "ledger",
    }
    assert view == {
        "object": "key",
        "id": view["id"],
        "name": "shop",
        "hint": f"{first[:7]}…{first[-4:]}",
        "status": "active",
        "source": "ledger",
        "project": "life",
        "team": None,
        "user": "auth0|17",
        "allowed_models": ["mock"],
        "tier": "gold",
        "limits": {
            "requests_per_second": None,
            "burst": None,
            "requests_per_minute": 600,
            "requests_per_hour": None,
            "tokens_per_minute": None,
            "tokens_per_hour": None,
            "concurrent": None,
        },
        "metadata": {"cost centre": "7"},
        "on_disconnect": "drain",
        "payloads": None,
        "expires_at": None,
        "queue": False,
        "budgets": view["budgets"],
        "secrets": [{"hint": view["hint"], "until": None}],
        "created_at": view["created_at"],
        "updated_at": view["created_at"],
        "revoked_at": None,
    }
    assert call(gateway, first).status_code == 200
    shown = good(admin.get(path))
    assert {**shown, "budgets": []} == {**view, "budgets": []}
    assert [one["name"] for one in shown["budgets"]] == [budget["name"]]
    assert good(admin.get("/keys", params={"project": "life"}))["data"] == [shown]

    changed = good(admin.patch(path, json={"allowed_models": ["up-*"], "name": None, "tier": ""}))
    assert (changed["allowed_models"], changed["name"], changed["tier"]) == (["up-*"], None, None)
    assert changed["updated_at"] > changed["created_at"] == view["created_at"]
    refusal(call(gateway, first), 403, "permission_error", "model_not_allowed")
    good(admin.patch(path, json={"allowed_models": None}))
    assert call(gateway, first).status_code == 200

    rotated = good(admin.post(f"{path}/rotate", json={"grace_seconds": 2}))
    second = rotated["key"]
    assert second != first and rotated["hint"] == f"{second[:7]}…{second[-4:]}"
    assert [one["hint"][-4:] for one in rotated["secrets"]] == [first[-4:], second[-4:]]
    assert rotated["secrets"][0]["until"] and rotated["secrets"][1]["until"] is None
    assert call(gateway, first).status_code == call(gateway, second).status_code == 200
    until(lambda: call(gateway, first).status_code == 401, 10)
    assert call(gateway, second).status_code == 200
    assert len(good(admin.get(path))["secrets"]) == 1

    revoked = good(admin.post(f"{path}/revoke"))
    assert revoked["status"] == "revoked" and revoked["revoked_at"] is not None
    refusal(call(gateway, second), 401, "authentication_error", "key_revoked")
    for change in (
        admin.patch(path, json={"name": "x"}),
        admin.patch(path, json={}),
        admin.post(f"{path}/rotate"),
    ):
        refusal(change, 400, INVALID, "key_revoked")
    assert good(admin.post(f"{path}/revoke")) == revoked == good(admin.get(path))

    mine = [one for one in events(gateway, AccessEvent) if one.key_id == view["id"]]
    kinds = [BudgetSet, KeyCreated, KeyUpdated, KeyUpdated, KeyRotated, KeyRevoked]
    assert [type(one) for one in mine] == kinds
    assert {one.by for one in mine} == {"admin"}
    assert {(one.project, one.user, one.call_id, one.model) for one in mine[1:]} == {
        ("life", "auth0|17", "", "")
    }


def test_a_key_without_any_setting(gateway: Gateway, admin: httpx.Client) -> None:
    key = good(admin.post("/keys"), 201)
    assert (key["name"], key["allowed_models"], key["budgets"]) == (None, None, [])
    assert call(gateway, key["key"]).status_code == 200


def test_a_rotation_without_grace_ends_the_old_key_at_once(
    gateway: Gateway, admin: httpx.Client
) -> None:
    key = new_key(admin)
    rotated = good(admin.post(f"/keys/{key['id']}/rotate", json={"grace_seconds": 0}))
    refusal(call(gateway, key["key"]), 401, "authentication_error", "invalid_api_key")
    assert call(gateway, rotated["key"]).status_code == 200
    again = good(admin.post(f"/keys/{key['id']}/rotate"))
    grace = datetime.fromisoformat(again["secrets"][0]["until"]) - datetime.now(UTC)
    assert timedelta(hours=23) < grace <= timedelta(days=1)


def test_a_key_expires_and_may_be_given_another_end(gateway: Gateway, admin: httpx.Client) -> None:
    end = datetime.now(UTC) + timedelta(seconds=2)
    key = new_key(admin, expires_at=end.astimezone().isoformat())
    path = f"/keys/{key['id']}"
    assert datetime.fromisoformat(key["expires_at"]) == end and key["expires_at"][-1] == "Z"
    assert (key["status"], call(gateway, key["key"]).status_code) == ("active", 200)
    until(lambda: good(admin.get(path))["status"] == "expired", 10)
    refusal(call(gateway, key["key"]), 401, "authentication_error", "key_expired")
    refusal(admin.post(f"{path}/rotate"), 400, INVALID, "key_expired")
    found = good(admin.get("/keys", params={"status": "expired"}))
    assert key["id"] in ids(found)
    good(admin.patch(path, json={"expires_at": None}))
    assert call(gateway, key["key"]).status_code == 200


def test_keys_are_listed_page_by_page(admin: httpx.Client) -> None:
    made = [new_key(admin, project="pages", user=f"u{number % 2}")["id"] for number in range(5)]
    good(admin.post(f"/keys/{made[1]}/revoke"))

    def page(**query: Any) -> dict[str, Any]:
        return good(admin.get("/keys", params={"project": "pages", **query}))

    first = page(limit=2)
    assert (ids(first), first["has_more"], first["next"]) == (made[:2], True, made[1])
    second = page(limit=2, after=first["next"])
    assert (ids(second), second["has_more"]) == (made[2:4], True)
    third = page(limit=2, after=second["next"])
    assert (ids(third), third["has_more"], third["next"]) == (made[4:], False, None)
    assert ids(page(limit=5)) == made and page(limit=5)["has_more"] is False
    assert ids(page(status="revoked")) == [made[1]]
    assert ids(page(user="u1", status="active")) == [made[3]]
    assert page(team="none")["data"] == []
    everything = good(admin.get("/keys", params={"limit": 1000}))
    assert "file-key" in ids(everything)[:3] and not set(made) & set(ids(everything)[:3])


def test_a_patch_of_nothing_writes_nothing(gateway: Gateway, admin: httpx.Client) -> None:
    key = new_key(admin, name="still")
    before = len(records(gateway))
    shown = good(admin.patch(f"/keys/{key['id']}", json={}))
    assert (shown["name"], shown["updated_at"]) == ("still", key["updated_at"])
    assert len(records(gateway)) == before
