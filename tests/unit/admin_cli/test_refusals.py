"""What the commands of the administrator say when they are refused or nobody is there."""

import pytest
from click.testing import CliRunner

from compose.cli import nexus
from tests.unit.admin_cli.scripted_api import ID, Server, nexus_cli


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
