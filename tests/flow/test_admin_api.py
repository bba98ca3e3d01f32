"""The admin API of a running gateway: keys, projects, teams and budgets from beginning to end."""

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import httpx
import pytest
from fastapi import Request

from ingress.admin.desk import Desk
from ingress.auth import Authenticator
from ingress.governor_client import GovernorClient
from ledger.access.changes import Changes
from ledger.access.feed import Feed
from ledger.access.key_text import is_well_formed
from ledger.access.registry import Registry
from ledger.connection import Connection
from ledger.log import Ledger
from ledger.publisher import Publisher
from ledger.reader import Stored, read_subject
from ledger.secret import ServerSecret
from schemas import subjects
from schemas.access_events import (
    AccessEvent,
    BudgetSet,
    KeyCreated,
    KeyRevoked,
    KeyRotated,
    KeyUpdated,
    ProjectRemoved,
    ProjectSet,
)
from schemas.config import BusConfig, Config
from schemas.errors import Unavailable
from schemas.events import decode_event
from schemas.ids import Clock
from tests.flow.gateway import ADMIN, KEY, Gateway, message, refusal, running_gateway, until

SECRET = "a-server-secret-of-the-tests"
FILE_KEY = "the-key-in-the-file-of-the-tests"
CONFIG = """
secret: "${TEST_SECRET}"
tiers: {gold: {requests_per_minute: 1000}}
keys:
  file-key: {key: "${TEST_KEY}", name: From the file, project: declared}
projects:
  declared: {name: Declared, team: declared}
teams:
  declared: {tier: gold, budgets: [{period: month, limit_usd: 0.25}]}
"""
T = TypeVar("T")
INVALID = "invalid_request_error"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_SECRET", SECRET)
        patch.setenv("TEST_KEY", FILE_KEY)
        with running_gateway(tmp_path_factory.mktemp("admin"), CONFIG) as gateway:
            yield gateway


@pytest.fixture
def admin(gateway: Gateway) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=f"{gateway.url}/admin", headers={"authorization": f"Bearer {ADMIN}"}, timeout=30
    ) as client:
        yield client


def good(response: httpx.Response, status: int = 200) -> dict[str, Any]:
    """The body of an answer, after a look at what comes with each."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    body: dict[str, Any] = response.json()
    as_of = int(response.headers["x-nexus-ledger-seq"])
    if body["object"] == "list":
        assert body["as_of_seq"] == as_of
    return body


def new_key(admin: httpx.Client, **settings: Any) -> dict[str, Any]:
    return good(admin.post("/keys", json=settings), 201)


def call(gateway: Gateway, key: str, model: str = "mock") -> httpx.Response:
    return gateway.client.post(
        "/v1/chat/completions",
        headers={"authorization": f"Bearer {key}"},
        json={"model": model, "messages": [message("Hi")]},
    )


def ids(listed: dict[str, Any]) -> list[str]:
    return [one["id"] for one in listed["data"]]


def records(gateway: Gateway, subject: str = subjects.LEDGER_ACCESS) -> list[Stored]:
    """What the ledger holds, by default of who may call."""

    async def read() -> list[Stored]:
        connection = await Connection.connect(BusConfig(url=gateway.bus), name="test")
        try:
            return await read_subject(connection, subjects.LEDGER, subject)
        finally:
            await connection.close()

    return asyncio.run(read())


def events(gateway: Gateway, kind: type[T]) -> list[T]:
    """The events of one kind."""
    decoded = [decode_event(record.data) for record in records(gateway)]
    return [event for event in decoded if isinstance(event, kind)]


# Keys


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


# Projects and teams


SCOPES = ("projects", "teams")


@pytest.mark.parametrize("scope", SCOPES)
def test_the_life_of_a_project_and_of_a_team(
    gateway: Gateway, admin: httpx.Client, scope: str
) -> None:
    kind = scope[:-1]
    id = "größe/a b?%#"
    path = f"/{scope}/gr%C3%B6%C3%9Fe%2Fa%20b%3F%25%23"
    body = {
        "id": id,
        "name": "Size",
        "allowed_models": ["up-*"],
        "limits": {"concurrent": 3},
        "metadata": {"a": "b"},
        "budgets": [{"period": "day", "limit_usd": 1, "hard_stop": False}],
    }
    view = good(admin.post(f"/{scope}", json=body), 201)
    assert (view["object"], view["id"], view["source"]) == (kind, id, "ledger")
    assert [one["name"] for one in view["budgets"]] == [f"{kind}:{id}:day"]
    assert view["limits"]["concurrent"] == 3 and view["tier"] is None
    assert (view.keys() >= {"team", "payloads"}) == (kind == "project")
    refusal(admin.post(f"/{scope}", json={"id": id}), 400, INVALID, "already_exists")
    assert good(admin.get(path)) == view
    assert view in good(admin.get(f"/{scope}"))["data"]

    key = new_key(admin, **{kind: id})
    refusal(call(gateway, key["key"]), 403, "permission_error", "model_not_allowed")
    changed = good(admin.patch(path, json={"allowed_models": None, "tier": "pro"}))
    assert (changed["allowed_models"], changed["tier"], changed["name"]) == (None, "pro", "Size")
    assert call(gateway, key["key"]).status_code == 200

    error = refusal(admin.delete(path), 400, INVALID, "in_use")
    assert key["id"] in error["message"]
    good(admin.post(f"/keys/{key['id']}/revoke"))
    assert good(admin.delete(path)) == {"object": kind, "id": id, "deleted": True}
    refusal(admin.get(path), 404, "not_found_error", f"{kind}_not_found")
    refusal(admin.delete(path), 404, "not_found_error", f"{kind}_not_found")
    # It may begin again, and its budget was waiting.
    again = good(admin.post(f"/{scope}", json={"id": id}), 201)
    assert (again["name"], len(again["budgets"])) == (None, 1)


def test_a_team_is_in_use_through_its_projects(admin: httpx.Client) -> None:
    good(admin.post("/teams", json={"id": "blue"}), 201)
    good(admin.post("/projects", json={"id": "of-blue", "team": "blue"}), 201)
    key = new_key(admin, project="of-blue")
    refusal(admin.delete("/teams/blue"), 400, INVALID, "in_use")
    good(admin.patch(f"/keys/{key['id']}", json={"team": "red"}))
    assert good(admin.delete("/teams/blue"))["deleted"] is True


def test_two_make_the_same_project_at_once_and_one_is_told(
    gateway: Gateway, admin: httpx.Client
) -> None:
    rounds = 10
    answers: list[list[httpx.Response]] = [[] for _ in range(rounds)]
    together = threading.Barrier(2)

    def make(limit: int) -> None:
        with httpx.Client(base_url=gateway.url, headers=admin.headers, timeout=30) as client:
            for number in range(rounds):
                budgets = [{"period": "day", "limit_usd": limit}]
                body = {"id": f"race-{number}", "name": str(limit), "budgets": budgets}
                together.wait()
                answers[number].append(client.post("/admin/projects", json=body))

    makers = [threading.Thread(target=make, args=(limit,)) for limit in (1, 2)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    for number, pair in enumerate(answers):
        won, lost = sorted(pair, key=lambda answer: answer.status_code)
        view = good(won, 201)
        refusal(lost, 400, INVALID, "already_exists")
        assert view["name"] == str(round(view["budgets"][0]["limit_usd"]))
        assert good(admin.get(f"/projects/race-{number}")) == view
    made = [event.project for event in events(gateway, ProjectSet)]
    assert [made.count(f"race-{number}") for number in range(rounds)] == [1] * rounds


# Budgets


def test_the_life_of_a_budget(gateway: Gateway, admin: httpx.Client) -> None:
    body = {"scope": "user", "id": "anna@x/y", "period": "week", "limit_usd": 0.000000001}
    view = good(admin.post("/budgets", json=body))
    assert view["name"] == "user:anna@x/y:week" and view["limit_usd"] == 1e-9
    path = "/budgets/user:anna@x%2Fy:week"
    assert view.items() <= good(admin.get(path)).items()
    again = good(admin.post("/budgets", json={**body, "limit_usd": 3, "hard_stop": False}))
    assert (again["limit_usd"], again["hard_stop"]) == (3, False)
    assert again["created_at"] == view["created_at"] < again["updated_at"]
    good(admin.post("/budgets", json={"scope": "global", "period": "total", "limit_usd": 9}))

    def names(**query: str) -> list[str]:
        listed = good(admin.get("/budgets", params=query))
        return [one["name"] for one in listed["data"]]

    assert names(scope="user") == names(id="anna@x/y") == ["user:anna@x/y:week"]
    assert names(scope="global") == ["global:total"]
    assert names(scope="user", id="other") == []
    assert {"global:total", "user:anna@x/y:week", "team:declared:month"} <= set(names())
    assert good(admin.delete(path)) == {
        "object": "budget",
        "id": "user:anna@x/y:week",
        "deleted": True,
    }
    refusal(admin.get(path), 404, "not_found_error", "budget_not_found")
    refusal(admin.delete(path), 404, "not_found_error", "budget_not_found")
    of_anna = [one for one in events(gateway, AccessEvent) if one.user == "anna@x/y"]
    assert [one.by for one in of_anna] == ["admin"] * 3


# What is declared, who may ask, what nobody may see


def test_what_is_declared_is_shown_and_not_changed(gateway: Gateway, admin: httpx.Client) -> None:
    assert call(gateway, FILE_KEY).status_code == 200
    key = good(admin.get("/keys/file-key"))
    assert (key["source"], key["name"], key["project"]) == (
        "configuration",
        "From the file",
        "declared",
    )
    assert (key["hint"], key["secrets"], key["created_at"]) == (None, [], None)
    assert key in good(admin.get("/keys", params={"project": "declared"}))["data"]
    project, team = good(admin.get("/projects/declared")), good(admin.get("/teams/declared"))
    assert project["source"] == team["source"] == "configuration"
    budget = good(admin.get("/budgets/team:declared:month"))
    assert (budget["source"], budget["limit_usd"]) == ("configuration", 0.25)
    (of_team,) = team["budgets"]
    assert of_team.items() <= budget.items()
    new_budget = {"scope": "team", "id": "declared", "period": "month", "limit_usd": 1}
    for change in (
        admin.patch("/keys/file-key", json={"name": "x"}),
        admin.post("/keys/file-key/rotate"),
        admin.post("/keys/file-key/revoke"),
        admin.post("/projects", json={"id": "declared"}),
        admin.patch("/projects/declared", json={"name": "x"}),
        admin.delete("/projects/declared"),
        admin.post("/teams", json={"id": "declared"}),
        admin.patch("/teams/declared", json={"name": "x"}),
        admin.delete("/teams/declared"),
        admin.post("/budgets", json=new_budget),
        admin.delete("/budgets/team:declared:month"),
    ):
        refusal(change, 400, INVALID, "configured")


OPERATIONS = [
    ("POST", "/keys"), ("GET", "/keys"), ("GET", "/keys/x"), ("PATCH", "/keys/x"),
    ("POST", "/keys/x/rotate"), ("POST", "/keys/x/revoke"), ("POST", "/projects"),
    ("GET", "/projects"), ("GET", "/projects/x"), ("PATCH", "/projects/x"),
    ("DELETE", "/projects/x"), ("POST", "/teams"), ("GET", "/teams"), ("GET", "/teams/x"),
    ("PATCH", "/teams/x"), ("DELETE", "/teams/x"), ("POST", "/budgets"), ("GET", "/budgets"),
    ("GET", "/budgets/x"), ("DELETE", "/budgets/x"), ("GET", "/calls/x/budget"),
]  # fmt: skip


def test_all_of_it_is_for_the_admin_only(gateway: Gateway, admin: httpx.Client) -> None:
    virtual = new_key(admin)["key"]
    for method, path in OPERATIONS:
        url = f"/admin{path}?limit=nonsense"
        ask = gateway.client.request
        refusal(ask(method, url), 401, "authentication_error", "missing_api_key")
        for key in (KEY, FILE_KEY, virtual):
            forbidden = ask(method, url, headers={"authorization": f"Bearer {key}"})
            refusal(forbidden, 403, "permission_error", "admin_only")
    described = gateway.client.get("/openapi.json").json()["paths"]
    known = {
        (method.upper(), re.sub(r"\{\w+\}", "x", path.removeprefix("/admin")))
        for path, methods in described.items()
        if path.startswith("/admin/")
        for method in methods
    }
    assert known == set(OPERATIONS)


def test_no_secret_leaves_but_in_the_one_answer(gateway: Gateway, admin: httpx.Client) -> None:
    key = new_key(admin, name="quiet", budgets=[{"period": "day", "limit_usd": 1}])
    rotated = good(admin.post(f"/keys/{key['id']}/rotate"))
    assert call(gateway, key["key"]).status_code == call(gateway, rotated["key"]).status_code == 200
    path = f"/keys/{key['id']}"
    later = [admin.get(path), admin.get("/keys"), admin.patch(path, json={"name": "x"})]
    later += [admin.post(f"{path}/revoke")]
    places = [response.text for response in later]
    ledger = records(gateway, subjects.LEDGER_SUBJECTS)
    places += [record.data.decode() for record in ledger]
    places.append(gateway.log.read_text())
    assert len(places) > 20 and any(key["id"] in place for place in places[4:])
    for secret in (key["key"], rotated["key"], SECRET, FILE_KEY, ADMIN):
        assert not any(secret in place or secret[4:40] in place for place in places)
    lines = [json.loads(line) for line in gateway.log.read_text().splitlines()]
    mine = [line for line in lines if line.get("id") == key["id"]]
    assert [(line["what"], line["by"]) for line in mine] == [
        ("access.key.created", "admin"),
        ("access.key.rotated", "admin"),
        ("access.key.updated", "admin"),
        ("access.key.revoked", "admin"),
    ]


def test_what_is_removed_is_an_event_of_its_own(gateway: Gateway, admin: httpx.Client) -> None:
    good(admin.post("/projects", json={"id": "short"}), 201)
    good(admin.delete("/projects/short"))
    (event,) = [one for one in events(gateway, ProjectRemoved) if one.project == "short"]
    assert event.by == "admin" and event.time.endswith("Z")


# Bad requests

KEYS, PROJECTS, BUDGETS = "POST /keys", "POST /projects", "POST /budgets"
LONG = "x" * 300_000
BAD_BODIES: dict[str, tuple[str, Any, str | None, str | None, str]] = {
    "no JSON": (KEYS, b"hello", "invalid_json", None, "The body is not valid JSON: "),
    "half a body": (KEYS, b'{"name":', "invalid_json", None, "The body is not valid JSON: "),
    "two bodies": (KEYS, b"{}{}", "invalid_json", None, "The body is not valid JSON: "),
    "a list": (KEYS, [], "invalid_json", None, "The body is not a JSON object."),
    "a number": (KEYS, 5, "invalid_json", None, "The body is not a JSON object."),
    "null": (KEYS, None, "invalid_json", None, "The body is not a JSON object."),
    "NaN": (KEYS, b'{"name":NaN}', "invalid_json", None, "The body is not valid JSON: "),
    "no UTF-8": (KEYS, b'{"name":"\xff"}', "invalid_encoding", None, "The body is not valid UTF"),
    "a surrogate": (KEYS, b'{"name":"\\ud800"}', "invalid_json", None, "The body is not valid J"),
    "nested": (KEYS, b'{"x":' + b"[" * 90_000, "invalid_json", None, "The body is not valid JSON"),
    "unknown": (KEYS, {"nmae": "x"}, "invalid_value", "nmae", "nmae: unknown field; did you mean"),
    "unknown inside": (
        KEYS, {"limits": {"brust": 1}}, "invalid_value", "limits.brust", "limits.brust: unknown f",
    ),
    "an id of our own": (KEYS, {"id": "key_1"}, "invalid_value", "id", "id: unknown field; known"),
    "a name that is none": (KEYS, {"name": 5}, "invalid_value", "name", "name: expected text."),
    "a long name": (
        KEYS, {"name": "x" * 129}, "invalid_value", "name", "name: expected text of at most 128",
    ),
    "a name of two lines": (
        KEYS, {"name": "a\nb"}, "invalid_value", "name", "name: expected text without line break",
    ),
    "an id with a space": (
        KEYS, {"project": " a"}, "invalid_value", "project",
        "project: expected text without line breaks, that neither begins nor ends with a space.",
    ),
    "an id with a line break": (
        KEYS, {"team": "a\nb"}, "invalid_value", "team", "team: expected text without line breaks",
    ),
    "no models": (
        KEYS, {"allowed_models": []}, "invalid_value", "allowed_models",
        "allowed_models: expected a list of at least 1 entry.",
    ),
    "models as text": (
        KEYS, {"allowed_models": "gpt"}, "invalid_value", "allowed_models",
        "allowed_models: expected a list.",
    ),
    "a model that is none": (
        KEYS, {"allowed_models": ["a", None]}, "invalid_value", "allowed_models.1",
        "allowed_models.1: expected text.",
    ),
    "an unknown tier": (
        KEYS, {"tier": "silver"}, "invalid_value", "tier",
        "tier: expected one of free, pro, enterprise, gold.",
    ),
    "no limit at all": (
        KEYS, {"limits": {"burst": 0}}, "invalid_value", "limits.burst",
        "limits.burst: expected a whole number >= 1.",
    ),
    "half a request": (
        KEYS, {"limits": {"requests_per_minute": 0.5}}, "invalid_value",
        "limits.requests_per_minute", "limits.requests_per_minute: expected a whole number.",
    ),
    "a huge limit": (
        KEYS, {"limits": {"burst": 10**13}}, "invalid_value", "limits.burst",
        "limits.burst: expected a whole number <= 1000000000000.",
    ),
    "no rate": (
        KEYS, {"limits": {"requests_per_second": 0}}, "invalid_value",
        "limits.requests_per_second", "limits.requests_per_second: expected a number > 0",
    ),
    "metadata of numbers": (
        KEYS, {"metadata": {"a": 1}}, "invalid_value", "metadata", "metadata: an entry: expected",
    ),
    "much metadata": (
        KEYS, {"metadata": {str(number): "" for number in range(33)}}, "invalid_value", "metadata",
        "metadata: expected an object of at most 32 entries.",
    ),
    "an unknown word": (
        KEYS, {"on_disconnect": "wait"}, "invalid_value", "on_disconnect",
        "on_disconnect: expected one of cancel, drain, detach.",
    ),
    "unknown payloads": (
        KEYS, {"payloads": "all"}, "invalid_value", "payloads",
        "payloads: expected one of none, redacted, full.",
    ),
    "a day as end": (
        KEYS, {"expires_at": "tomorrow"}, "invalid_value", "expires_at",
        "expires_at: expected a time with its zone, like 2027-01-31T12:00:00Z.",
    ),
    "an end without zone": (
        KEYS, {"expires_at": "2099-01-01T00:00:00"}, "invalid_value", "expires_at",
        "expires_at: expected a time with its zone, like 2027-01-31T12:00:00Z.",
    ),
    "an end that is over": (
        KEYS, {"expires_at": "2020-01-01T00:00:00Z"}, "invalid_value", "expires_at",
        "expires_at: expected a time to come, it is 20",
    ),
    "an end beyond all": (
        KEYS, {"expires_at": "9999-12-31T23:59:59-23:59"}, "invalid_value", "expires_at",
        "expires_at: expected a time before the year 9999.",
    ),
    "a budget without period": (
        KEYS, {"budgets": [{"limit_usd": 1}]}, "invalid_value", "budgets.0.period",
        "budgets.0.period: missing, it has no default.",
    ),
    "two budgets a day": (
        KEYS, {"budgets": [{"period": "day", "limit_usd": 1}] * 2}, "invalid_value",
        "budgets.1.period", "budgets.1.period: there is a budget per day before.",
    ),
    "a budget below nothing": (
        KEYS, {"budgets": [{"period": "day", "limit_usd": -1}]}, "invalid_value",
        "budgets.0.limit_usd", "budgets.0.limit_usd: expected a number >= 0",
    ),
    "a budget of somebody else": (
        KEYS, {"budgets": [{"period": "day", "limit_usd": 1, "scope": "team"}]}, "invalid_value",
        "budgets.0.scope", "budgets.0.scope: unknown field; known here: hard_stop, limit_usd,",
    ),
    "a project without id": (
        PROJECTS, {"name": "x"}, "invalid_value", "id", "id: missing, it has no default.",
    ),
    "a project with an empty id": (
        PROJECTS, {"id": ""}, "invalid_value", "id", "id: expected text of at least 1 character.",
    ),
    "a project that expires": (
        PROJECTS, {"id": "x", "expires_at": "2099-01-01T00:00:00Z"}, "invalid_value", "expires_at",
        "expires_at: unknown field; known here: allowed_models,",
    ),
    "a team in a team": (
        "POST /teams", {"id": "x", "team": "y"}, "invalid_value", "team",
        "team: unknown field; known here: allowed_models, budgets, id, limits,",
    ),
    "a budget of nobody": (
        BUDGETS, {"scope": "team", "period": "day", "limit_usd": 1}, "invalid_value", "id",
        "id: missing, it names the team.",
    ),
    "a budget of all with an id": (
        BUDGETS, {"scope": "global", "id": "x", "period": "day", "limit_usd": 1}, "invalid_value",
        "id", "id: the scope global is everything, it has no id.",
    ),
    "a budget of an unknown scope": (
        BUDGETS, {"scope": "all", "period": "day", "limit_usd": 1}, "invalid_value", "scope",
        "scope: expected one of global, team, project, user, key.",
    ),
    "a budget of an unknown period": (
        BUDGETS, {"scope": "global", "period": "year", "limit_usd": 1}, "invalid_value", "period",
        "period: expected one of day, week, month, total.",
    ),
    "a budget that is text": (
        BUDGETS, {"scope": "global", "period": "day", "limit_usd": "1"}, "invalid_value",
        "limit_usd", "limit_usd: expected a number.",
    ),
    "a budget that warns late": (
        BUDGETS, {"scope": "global", "period": "day", "limit_usd": 1, "warning_threshold": 80},
        "invalid_value", "warning_threshold", "warning_threshold: expected a number <= 1",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("where", "body", "code", "param", "says"), BAD_BODIES.values(), ids=BAD_BODIES
)
def test_a_bad_body_is_told_what_is_wrong(
    admin: httpx.Client, where: str, body: Any, code: str, param: str | None, says: str
) -> None:
    method, path = where.split()
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    error = refusal(admin.request(method, path, content=data), 400, INVALID, code)
    assert error["param"] == param and error["message"].startswith(says), error


BAD_REQUESTS: dict[str, tuple[str, Any, int, str, str, str | None]] = {
    "no such key": ("GET /keys/key_0", None, 404, "not_found_error", "key_not_found", None),
    "no key to change": ("PATCH /keys/x", {}, 404, "not_found_error", "key_not_found", None),
    "no key to rotate": ("POST /keys/x/rotate", {}, 404, "not_found_error", "key_not_found", None),
    "no key to revoke": ("POST /keys/x/revoke", {}, 404, "not_found_error", "key_not_found", None),
    "no project": ("PATCH /projects/x", {}, 404, "not_found_error", "project_not_found", None),
    "an empty id": ("GET /projects/", None, 404, "not_found_error", "project_not_found", None),
    "a NUL": ("GET /teams/%00%0A", None, 404, "not_found_error", "team_not_found", None),
    "no UTF-8 in an id": ("GET /teams/%FF", None, 404, "not_found_error", "team_not_found", None),
    "no budget": ("GET /budgets/a:b", None, 404, "not_found_error", "budget_not_found", None),
    "limit 0": ("GET /keys?limit=0", None, 400, INVALID, "invalid_value", "limit"),
    "limit many": ("GET /keys?limit=many", None, 400, INVALID, "invalid_value", "limit"),
    "limit 1001": ("GET /keys?limit=1001", None, 400, INVALID, "invalid_value", "limit"),
    "status": ("GET /keys?status=dead", None, 400, INVALID, "invalid_value", "status"),
    "after nothing": ("GET /keys?after=key_0", None, 400, INVALID, "invalid_value", "after"),
    "scope": ("GET /budgets?scope=all", None, 400, INVALID, "invalid_value", "scope"),
    "a deleted key": ("DELETE /keys/x", None, 405, INVALID, "method_not_allowed", None),
    "a large body": ("POST /keys", {"name": LONG}, 413, INVALID, "request_too_large", None),
    "a large patch": ("PATCH /keys/x", {"name": LONG}, 413, INVALID, "request_too_large", None),
}


@pytest.mark.parametrize(
    ("where", "body", "status", "kind", "code", "param"), BAD_REQUESTS.values(), ids=BAD_REQUESTS
)
def test_a_bad_request_is_refused(
    admin: httpx.Client, where: str, body: Any, status: int, kind: str, code: str, param: str | None
) -> None:
    method, path = where.split()
    error = refusal(admin.request(method, path, json=body), status, kind, code)
    assert error["param"] == param and error["message"].isprintable()


@pytest.mark.parametrize("grace", [-1, 2_592_001, 1.5, "1", True])
def test_a_grace_is_whole_seconds_of_a_month_at_most(admin: httpx.Client, grace: Any) -> None:
    key = new_key(admin)
    wrong = admin.post(f"/keys/{key['id']}/rotate", json={"grace_seconds": grace})
    error = refusal(wrong, 400, INVALID, "invalid_value")
    assert error["param"] == "grace_seconds"
    assert len(good(admin.get(f"/keys/{key['id']}"))["secrets"]) == 1


def test_without_a_server_secret_keys_cannot_be_made(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with running_gateway(tmp_path_factory.mktemp("no-secret")) as gateway:
        headers = {"authorization": f"Bearer {ADMIN}"}
        error = refusal(
            gateway.client.post("/admin/keys", headers=headers), 503, "server_error", "no_secret"
        )
        assert "NEXUS_SECRET" in error["message"]
        project = gateway.client.post("/admin/projects", headers=headers, json={"id": "x"})
        assert project.status_code == 201


async def test_before_the_keys_are_known_nothing_is_said_of_them(nats_url: str) -> None:
    config, clock, registry = Config(admin_token=ADMIN), Clock(), Registry()
    connection = await Connection.connect(BusConfig(url=nats_url), name="test")
    try:
        feed = Feed(connection, registry, clock)
        secret = ServerSecret(())
        keys = Authenticator(config, registry, feed, secret, None, clock)
        changes = Changes(Ledger(Publisher(connection), "ingress"), registry, feed, clock)
        governor = GovernorClient(connection, clock)
        desk = Desk(keys, changes, registry, feed, secret, config, clock, governor)
        headers = [(b"authorization", f"Bearer {ADMIN}".encode())]
        with pytest.raises(Unavailable) as caught:
            await desk.admit(Request({"type": "http", "headers": headers}))
        assert caught.value.info.code == "key_store_away"
        assert caught.value.info.headers() == {"Retry-After": "1"}
    finally:
        await connection.close()
