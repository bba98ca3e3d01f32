"""What `nexus keys`, `projects` and `budget` print for a person: secrets once, tables, pages."""

import json
from typing import Any

import pytest

from tests.unit.admin_cli.scripted_api import (
    GRACE,
    ID,
    OTHER_ID,
    SECRET,
    Asked,
    Server,
    budget,
    key,
    nexus_cli,
    page,
)


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
        ' -d \'{"model": "mock", "messages": [{"role": "user", "content": "Say hello"}]}\''
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
        "(what is spent is not known now: the governor does not answer)",
        "(2 budgets; ledger sequence 7)",
    ]
    assert server.asked[1].query == {"scope": "project", "id": "shop"}
