"""What the admin API lets nobody do: change what is declared, ask as no admin, see a secret."""

import json
import re

import httpx
import pytest
from fastapi import Request

from ingress.admin.desk import Desk
from ingress.auth import Authenticator
from ingress.governor_client import GovernorClient
from ledger.access.changes import Changes
from ledger.access.feed import Feed
from ledger.access.registry import Registry
from ledger.connection import Connection
from ledger.log import Ledger
from ledger.publisher import Publisher
from ledger.secret import ServerSecret
from schemas import subjects
from schemas.config import BusConfig, Config
from schemas.errors import Unavailable
from schemas.ids import Clock
from tests.flow.admin_api.asking import FILE_KEY, INVALID, SECRET, call, good, new_key, records
from tests.flow.gateway import ADMIN, KEY, Gateway, refusal, running_gateway


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
    ("GET", "/budgets/x"), ("DELETE", "/budgets/x"), ("GET", "/calls/x/budget"), ("POST", "/route"),
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
