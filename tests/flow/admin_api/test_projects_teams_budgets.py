"""Projects, teams and budgets by the admin API, from beginning to end."""

import threading

import httpx
import pytest

from schemas.access_events import AccessEvent, ProjectRemoved, ProjectSet
from tests.flow.admin_api.asking import INVALID, call, events, good, new_key
from tests.flow.gateway import Gateway, refusal

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


def test_what_is_removed_is_an_event_of_its_own(gateway: Gateway, admin: httpx.Client) -> None:
    good(admin.post("/projects", json={"id": "short"}), 201)
    good(admin.delete("/projects/short"))
    (event,) = [one for one in events(gateway, ProjectRemoved) if one.project == "short"]
    assert event.by == "admin" and event.time.endswith("Z")
