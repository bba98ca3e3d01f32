"""`nexus keys`, `projects`, `teams`, `budget`: what they ask; bad usage asks nothing."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.admin_cli.scripted_api import (
    GRACE,
    ID,
    SECRET,
    Asked,
    Server,
    budget,
    key,
    nexus_cli,
    page,
)

ROOT = Path(__file__).parents[3]
CREATE_ALL = (
    "keys", "create", "--name", "my app", "--project", "shop", "--team", "retail", "--user", "ana",
    "--model", "gpt-4o*", "--model", "claude-*", "--tier", "pro", "--limit", "burst=3",
    "--limit", "requests_per_second=1.5", "--metadata", "owner=ana", "--on-disconnect", "drain",
    "--payloads", "full", "--expires", "2099-01-01", "--budget", "month=100",
)  # fmt: skip
ALL_OF_IT = {
    "name": "my app", "project": "shop", "team": "retail", "user": "ana", "tier": "pro",
    "allowed_models": ["gpt-4o*", "claude-*"], "limits": {"burst": 3, "requests_per_second": 1.5},
    "metadata": {"owner": "ana"}, "on_disconnect": "drain", "payloads": "full",
    "expires_at": "2099-01-01T00:00:00Z", "budgets": [{"period": "month", "limit_usd": 100.0}],
}  # fmt: skip
SENT: list[tuple[tuple[str, ...], str, str, Any, Any]] = [
    (CREATE_ALL, "POST", "/admin/keys", ALL_OF_IT, {**key(), "key": SECRET}),
    (("keys", "create"), "POST", "/admin/keys", {}, {**key(), "key": SECRET}),
    (("keys", "show", ID), "GET", f"/admin/keys/{ID}", None, key()),
    (("keys", "show", "a/../b ?#%"), "GET", "/admin/keys/a%2F%2E%2E%2Fb%20%3F%23%25", None, key()),
    (("keys", "show", ".."), "GET", "/admin/keys/%2E%2E", None, key()),
    (("keys", "update", ID, "--name", "", "--model", "*"), "PATCH", f"/admin/keys/{ID}",
     {"name": "", "allowed_models": ["*"]}, key()),
    (("keys", "update", ID, "--clear", "model", "--clear", "limit", "--clear", "expires",
      "--clear", "on-disconnect", "--tier", "pro"), "PATCH", f"/admin/keys/{ID}",
     {"allowed_models": None, "limits": None, "expires_at": None, "on_disconnect": None,
      "tier": "pro"}, key()),
    (("keys", "rotate", ID), "POST", f"/admin/keys/{ID}/rotate", {}, {**key(), "key": SECRET}),
    (("keys", "rotate", ID, "--grace", "2h"), "POST", f"/admin/keys/{ID}/rotate",
     {"grace_seconds": 7200}, {**key(secrets=GRACE), "key": SECRET}),
    (("keys", "rotate", ID, "--grace", "0s"), "POST", f"/admin/keys/{ID}/rotate",
     {"grace_seconds": 0}, {**key(), "key": SECRET}),
    (("keys", "revoke", ID, "--yes"), "POST", f"/admin/keys/{ID}/revoke", None, key()),
    (("projects", "create", "shop", "--team", "retail", "--budget", "day=1"), "POST",
     "/admin/projects", {"id": "shop", "team": "retail",
                         "budgets": [{"period": "day", "limit_usd": 1.0}]}, {"id": "shop"}),
    (("projects", "update", "a/b", "--payloads", "none"), "PATCH", "/admin/projects/a%2Fb",
     {"payloads": "none"}, {"id": "a/b"}),
    (("projects", "show", "shop"), "GET", "/admin/projects/shop", None, {"id": "shop"}),
    (("projects", "remove", "shop"), "DELETE", "/admin/projects/shop", None, {"deleted": True}),
    (("teams", "create", "retail", "--limit", "concurrent=9"), "POST", "/admin/teams",
     {"id": "retail", "limits": {"concurrent": 9}}, {"id": "retail"}),
    (("teams", "update", "retail", "--clear", "metadata"), "PATCH", "/admin/teams/retail",
     {"metadata": None}, {"id": "retail"}),
    (("teams", "show", "retail"), "GET", "/admin/teams/retail", None, {"id": "retail"}),
    (("teams", "remove", "retail"), "DELETE", "/admin/teams/retail", None, {"deleted": True}),
    (("budget", "set", "project:shop", "month", "100"), "POST", "/admin/budgets",
     {"scope": "project", "id": "shop", "period": "month", "limit_usd": 100.0, "hard_stop": True},
     budget()),
    (("budget", "set", "global", "day", "0.5", "--soft", "--warn", "0.9"), "POST",
     "/admin/budgets", {"scope": "global", "id": "", "period": "day", "limit_usd": 0.5,
                        "hard_stop": False, "warning_threshold": 0.9}, budget()),
    (("budget", "show", "user:a@b.c:day"), "GET", "/admin/budgets/user%3Aa%40b%2Ec%3Aday", None,
     budget()),
    (("budget", "remove", "global:day"), "DELETE", "/admin/budgets/global%3Aday", None,
     {"deleted": True}),
]  # fmt: skip


@pytest.mark.parametrize(("words", "method", "path", "body", "answer"), SENT)
def test_what_is_asked_of_the_api_and_its_json_as_it_came(
    server: Server, words: tuple[str, ...], method: str, path: str, body: Any, answer: Any
) -> None:
    text = json.dumps(answer, indent=3)
    server.will(text)
    result = nexus_cli(server, *words, "--json")
    assert (result.exit_code, result.stdout, result.stderr) == (0, text + "\n", "")
    assert server.asked == [Asked(method, path, {}, body, "Bearer nx-admin")]


@pytest.mark.parametrize(("words", "method", "path", "body", "answer"), SENT)
def test_without_json_a_person_reads_what_came_of_it(
    server: Server, words: tuple[str, ...], method: str, path: str, body: Any, answer: Any
) -> None:
    server.will(answer)
    server.will(page({"id": "gpt-4o"}))
    result = nexus_cli(server, *words)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "{" not in result.stdout.replace('{"model"', "").replace('{"role"', "")
    assert "None" not in result.stdout
    assert result.stdout.endswith("\n")


BAD_USAGE = [
    (("keys", "create", "--limit", "rpm=1"), "there is no limit 'rpm'"),
    (("keys", "create", "--budget", "year=1"), "there is no period 'year'"),
    (("keys", "create", "--expires", "soon"), "expected 30d, 12h"),
    (("keys", "create", "--expires", "2020-01-01"), "nexus keys revoke"),
    (("keys", "create", "--metadata", "x"), "expected owner=ana"),
    (("keys", "create", "--on-disconnect", "hide"), "'cancel', 'drain', 'detach'"),
    (("keys", "create", "--quiet", "--json"), "either --quiet or --json"),
    (("keys", "rotate", ID, "--grace", "1 day"), "expected a duration"),
    (("keys", "rotate", ID, "--quiet", "--json"), "either --quiet or --json"),
    (("keys", "update", ID), "nothing is to be changed"),
    (("keys", "update", ID, "--tier", "pro", "--clear", "tier"), "--tier is both set and cleared"),
    (("keys", "update", ID, "--model", "x", "--clear", "model"), "--model is both set and cleared"),
    (("keys", "update", ID, "--clear", "hint"), "'hint' is not one of"),
    (("keys", "update", ID, "--budget", "day=1"), "No such option"),
    (("keys", "list", "--limit", "0"), "1<=x<=1000"),
    (("keys", "revoke", ID), "say --yes"),
    (("keys", "show", ""), "an id is not empty"),
    (("keys", "show"), "Missing argument 'ID'"),
    (("teams", "update", "retail", "--payloads", "none"), "No such option"),
    (("budget", "set", "shop", "day", "1"), "expected global, team:ID"),
    (("budget", "set", "global", "year", "1"), "'day', 'week', 'month', 'total'"),
    (("budget", "set", "global", "day", "lots"), "expected dollars"),
    (("budget", "set", "global", "day", "1", "--warn", "80"), "0<=x<=1"),
]


@pytest.mark.parametrize(("words", "told"), BAD_USAGE)
def test_bad_usage_ends_with_code_2_and_asks_nothing(
    server: Server, words: tuple[str, ...], told: str
) -> None:
    result = nexus_cli(server, *words)
    assert result.exit_code == 2
    assert told in result.stderr
    assert result.stdout == ""
    assert server.asked == []


@pytest.mark.parametrize(("said", "revoked"), [("y", True), ("n", False)])
def test_revoking_asks_the_person_at_a_terminal(server: Server, said: str, revoked: bool) -> None:
    server.will(key(name="my app"))
    server.will(key(status="revoked"))
    ours, theirs = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NEXUS_")}
    command = [sys.executable, "-m", "compose.cli", "keys", "revoke", ID]
    environ = {**kept, "PYTHONPATH": str(ROOT), "NEXUS_URL": server.url, "NEXUS_TOKEN": "nx-1"}
    try:
        os.write(ours, f"{said}\n".encode())
        result = subprocess.run(
            command, env=environ, stdin=theirs, capture_output=True, text=True, timeout=60
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert f"Revoke {ID} (my app) for ever? [y/N]" in result.stderr
    assert result.returncode == (0 if revoked else 1)
    assert ("opens nothing any more" in result.stdout) is revoked
    assert [asked.method for asked in server.asked] == (["GET", "POST"] if revoked else ["GET"])
