"""`nexus keys`, `projects`, `teams`, `budget`: what they send, print and refuse."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import pytest
from click.testing import CliRunner, Result

from compose.cli import nexus

ROOT = Path(__file__).parents[2]
ID, OTHER_ID = "key_00112233445566aa", "key_ffeeddccbbaa9988"
SECRET = "nx-" + "4" * 49


class Asked(NamedTuple):
    """A request as the server saw it; `path` is not unquoted."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    token: str | None


class Server:
    """An HTTP server that gives scripted answers in order and records what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self._answers: list[tuple[int, bytes, dict[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                url = urlsplit(self.path)
                sent = self.rfile.read(int(self.headers.get("content-length", 0)))
                outer.asked.append(
                    Asked(
                        self.command,
                        url.path,
                        dict(parse_qsl(url.query)),
                        json.loads(sent) if sent else None,
                        self.headers.get("authorization"),
                    )
                )
                status, body, headers = outer._answers.pop(0)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PATCH = do_DELETE = answer

            def log_message(self, format: str, *args: Any) -> None: ...

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()

    def will(self, body: Any, status: int = 200, **headers: str) -> None:
        """The next answer; text goes as it is, all else as JSON."""
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self._answers.append((status, data, {k.replace("_", "-"): v for k, v in headers.items()}))

    def will_refuse(self, status: int, message: str, **headers: str) -> None:
        self.will({"error": {"message": message, "type": "t", "code": None}}, status, **headers)

    def stop(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.stop()


def environment(server: Server) -> dict[str, str | None]:
    return {"NEXUS_URL": server.url, "NEXUS_TOKEN": "nx-admin"}


def nexus_cli(server: Server, *words: str) -> Result:
    """The command in this process; stdout is no terminal."""
    return CliRunner().invoke(nexus, words, env=environment(server), catch_exceptions=False)


def key(id: str = ID, **more: Any) -> dict[str, Any]:
    """A key as the API shows it."""
    blank = dict.fromkeys(
        ("name", "hint", "project", "team", "user", "allowed_models", "tier", "limits", "payloads",
         "expires_at", "revoked_at"),
    )  # fmt: skip
    return {
        "object": "key", "id": id, **blank, "status": "active", "source": "ledger", "metadata": {},
        "on_disconnect": "cancel", "budgets": [], "secrets": [{"hint": "nx-4444…4444",
        "until": None}], "created_at": "2026-11-20T10:00:00Z",
        "updated_at": "2026-11-20T10:00:00Z", **more,
    }  # fmt: skip


def budget(**more: Any) -> dict[str, Any]:
    return {
        "object": "budget", "name": "project:shop:month", "scope": "project", "id": "shop",
        "period": "month", "limit_usd": 100.0, "hard_stop": True, "warning_threshold": 0.8,
        "source": "ledger", "created_at": None, "updated_at": None, **more,
    }  # fmt: skip


def page(*data: dict[str, Any], next: str | None = None) -> dict[str, Any]:
    more = {"has_more": next is not None, "next": next}
    return {"object": "list", "data": data, **more, "as_of_seq": 7}


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
GRACE = [{"hint": "nx-3333…3333", "until": "2026-11-21T10:00:00Z"},
         {"hint": "nx-4444…4444", "until": None}]  # fmt: skip

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


def test_a_new_key_is_printed_once_with_a_line_that_works(server: Server) -> None:
    server.will({**key(name="my app"), "key": SECRET}, status=201)
    server.will(page({"id": "gpt-4o"}, {"id": "mock"}))
    told = nexus_cli(server, "keys", "create", "--name", "my app").stdout
    assert f"Key {ID} (my app) is made" in told
    assert f"\n  {SECRET}\n" in told
    assert "shown only now" in told
    (line,) = [line for line in told.splitlines() if line.startswith("curl")]
    assert line == (
        f"curl {server.url}/v1/chat/completions -H 'Authorization: Bearer {SECRET}'"
        " -H 'Content-Type: application/json'"
        ' -d \'{"model":"mock","messages":[{"role":"user","content":"Say hello"}]}\''
    )
    assert server.asked[1] == Asked(
        "GET", "/v1/models", {"available": "true"}, None, f"Bearer {SECRET}"
    )


@pytest.mark.parametrize("models", [page(), {"unexpected": 1}])
def test_where_no_model_is_known_the_line_asks_which_there_are(server: Server, models: Any) -> None:
    server.will({**key(), "key": SECRET}, status=201)
    server.will(models)
    told = nexus_cli(server, "keys", "create").stdout
    assert f"\ncurl {server.url}/v1/models -H 'Authorization: Bearer {SECRET}'\n" in told


def test_a_quiet_command_prints_the_secret_alone(server: Server) -> None:
    for words in (("keys", "create"), ("keys", "rotate", ID)):
        server.will({**key(), "key": SECRET})
        assert nexus_cli(server, *words, "--quiet").output == f"{SECRET}\n"


def test_a_rotated_key_says_until_when_the_old_secret_opens(server: Server) -> None:
    server.will({**key(secrets=GRACE), "key": SECRET})
    server.will(page({"id": "mock"}))
    told = nexus_cli(server, "keys", "rotate", ID).stdout
    assert f"\n  {SECRET}\n" in told
    assert "The one before opens until 2026-11-21 10:00Z." in told


def test_keys_are_a_table(server: Server) -> None:
    first = key(
        name="shop\x1b[31m", project="shop", allowed_models=["gpt-4o*", "o3"],
        expires_at="2027-01-01T01:00:00+01:00",
    )  # fmt: skip
    server.will(page(first, key(OTHER_ID, status="revoked", user="ana")))
    result = nexus_cli(server, "keys", "list", "--status", "active", "--project", "shop")
    assert result.stdout.splitlines() == [
        "id                    name       status   project  user  models       expires",
        "--------------------  ---------  -------  -------  ----  -----------  -----------------",
        f"{ID}  shop�[31m  active   shop           gpt-4o*, o3  2027-01-01 00:00Z",
        f"{OTHER_ID}             revoked           ana",
        "(2 keys; ledger sequence 7)",
    ]
    assert server.asked[0].query == {"status": "active", "project": "shop"}


def test_a_page_says_that_there_are_more_and_all_follows_the_pages(server: Server) -> None:
    server.will(page(key(), next=ID))
    told = nexus_cli(server, "keys", "list", "--limit", "1").stdout
    assert "(1 key, and there are more: --all shows them; ledger sequence 7)" in told
    server.will(page(key(), next=ID))
    server.will(page(key(OTHER_ID)))
    told = nexus_cli(server, "keys", "list", "--all", "--team", "t").stdout
    assert ID in told
    assert OTHER_ID in told
    assert "(2 keys; ledger sequence 7)" in told
    assert [asked.query for asked in server.asked] == [
        {"limit": "1"},
        {"limit": "1000", "team": "t"},
        {"limit": "1000", "team": "t", "after": ID},
    ]


def test_all_pages_as_json_are_documents_one_after_the_other(server: Server) -> None:
    server.will(page(key(), next=ID))
    server.will(page(key(OTHER_ID)))
    lines = nexus_cli(server, "keys", "list", "--all", "--json").stdout.splitlines()
    assert [json.loads(line)["data"][0]["id"] for line in lines] == [ID, OTHER_ID]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("keys", "list"), "nexus keys create --name my-app"),
        (("keys", "list", "--limit", "5"), "nexus keys create --name my-app"),
        (("keys", "list", "--user", "ana"), "`nexus keys list` shows all"),
        (("projects", "list"), "nexus projects create shop"),
        (("teams", "list"), "nexus teams create retail"),
        (("budget", "list"), "nexus budget set global month 1000"),
        (("budget", "list", "--scope", "key"), "`nexus budget list` shows all"),
    ],
)
def test_an_empty_list_says_what_to_do_next(
    server: Server, words: tuple[str, ...], told: str
) -> None:
    server.will(page())
    result = nexus_cli(server, *words)
    assert result.exit_code == 0
    assert told in result.stdout


def test_projects_and_budgets_are_tables(server: Server) -> None:
    limits = {"requests_per_minute": 60, "burst": None, "requests_per_second": 0.5}
    server.will(page({"id": "shop", "team": "retail", "limits": limits, "budgets": [budget()]}))
    assert nexus_cli(server, "projects", "list").stdout.splitlines() == [
        "id    team    limits                                           budgets",
        "----  ------  -----------------------------------------------  -------------------",
        "shop  retail  requests_per_minute=60, requests_per_second=0.5  $100 a month (hard)",
        "(1 project; ledger sequence 7)",
    ]
    small = budget(
        name="global:day", limit_usd=0.1, period="day", hard_stop=False, source="configuration"
    )
    server.will(page(budget(), small))
    result = nexus_cli(server, "budget", "list", "--scope", "project", "--id", "shop")
    assert result.stdout.splitlines() == [
        "name                limit         stop  warns at  source",
        "------------------  ------------  ----  --------  -------------",
        "project:shop:month  $100 a month  hard  80 %",
        "global:day          $0.1 a day    soft  80 %      configuration",
        "(2 budgets; ledger sequence 7)",
    ]
    assert server.asked[1].query == {"scope": "project", "id": "shop"}


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


@pytest.mark.parametrize(
    ("status", "headers", "told"),
    [
        (400, {}, "nexus: It says why.\n"),
        (401, {}, "nexus: It says why. (Sent was NEXUS_TOKEN; the admin token is the gateway's"
         " ADMIN_TOKEN, else the one in the file admin_token of its data directory; give it as"
         " NEXUS_TOKEN.)\n"),
        (403, {}, "the file admin_token of its data directory"),
        (404, {}, "nexus: It says why.\n"),
        (503, {"Retry_After": "3"}, "nexus: It says why. (Try again in 3 s.)\n"),
    ],
)  # fmt: skip
def test_a_refusal_is_one_line_on_stderr_with_code_1(
    server: Server, status: int, headers: dict[str, str], told: str
) -> None:
    server.will_refuse(status, "It says why.", **headers)
    result = nexus_cli(server, "keys", "show", ID, "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert told in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_refusal_cannot_steer_the_terminal(server: Server) -> None:
    server.will_refuse(400, "No \x1b[2J\nkey.")
    assert nexus_cli(server, "keys", "list").stderr == "nexus: No �[2J�key.\n"


@pytest.mark.parametrize(
    ("status", "body"),
    [(502, "<html>"), (301, ""), (200, "<html>"), (200, "{}"), (200, "[1"), (201, '{"id": 7}')],
)
def test_what_is_no_nexus_gateway_is_told_so(server: Server, status: int, body: str) -> None:
    server.will(body, status)
    result = nexus_cli(server, "keys", "show", ID)
    assert result.exit_code == 1
    assert "answered with status" in result.stderr or "not answer like a Nexus" in result.stderr


def test_a_token_that_no_header_carries_and_an_argument_that_is_no_text_are_told() -> None:
    env: dict[str, str | None] = {"NEXUS_TOKEN": "clé\n", "NEXUS_URL": "http://127.0.0.1:1"}
    result = CliRunner().invoke(nexus, ["keys", "list"], env=env)
    assert (result.exit_code, "NEXUS_TOKEN holds" in result.stderr) == (1, True)
    env = {**env, "NEXUS_TOKEN": "nx-1"}
    for words in (["keys", "show", "\udcff"], ["keys", "create", "--name", "\udcff"]):
        result = CliRunner().invoke(nexus, words, env=env)
        assert (result.exit_code, "not UTF-8" in result.stderr) == (1, True), result.stderr


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
