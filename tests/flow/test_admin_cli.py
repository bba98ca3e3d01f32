"""`nexus keys`, `projects`, `teams` and `budget` against a gateway, as docs/keys.md tells them."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from compose.settings import load
from ledger.access.key_text import is_well_formed
from tests.flow.gateway import ADMIN, KEY, Gateway, Provider, basic, refusal, running_gateway, until
from tests.upstream import chat_answer, json_reply

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "keys.md"
OURS = ("NEXUS_", "GATEWAY_", "UNIFIED_GATEWAY_", "ADMIN_TOKEN", "CONFIG_PATH", "PORT")
SECRETS = {
    "TEST_SERVER_SECRET": "the secret of all roles of this test",
    "TEST_JWT_SECRET": "a secret for tokens of at least 32 characters",
    "TEST_FILE_KEY": "a-key-from-the-file",
}
MORE = """
secret: ["${{TEST_SERVER_SECRET}}"]
jwt: {{secret: "${{TEST_JWT_SECRET}}"}}
keys: {{from-file: {{key: "${{TEST_FILE_KEY}}", project: filed}}}}
target_url: "{url}"
"""
OWN_KEY = "sk-own-key-of-a-client-0123456789"


@dataclass
class Place:
    """A running gateway, and a shell in which `nexus` is the command under test."""

    gateway: Gateway
    target: Provider
    tools: Path

    def sh(self, script: str, **env: str) -> subprocess.CompletedProcess[str]:
        kept = {name: text for name, text in os.environ.items() if not name.startswith(OURS)}
        environ = {
            **kept,
            "PATH": f"{self.tools}:{kept['PATH']}",
            "PYTHONPATH": str(ROOT),
            "NEXUS_URL": self.gateway.url,
            "NEXUS_TOKEN": ADMIN,
            **env,
        }
        return subprocess.run(
            ["sh", "-eu", "-c", script], env=environ, capture_output=True, text=True,
            cwd=self.tools, timeout=100, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def out(self, script: str, **env: str) -> str:
        """What a script that must work prints."""
        result = self.sh(script, **env)
        assert (result.returncode, result.stderr) == (0, ""), result
        return result.stdout

    def json(self, command: str) -> Any:
        return json.loads(self.out(f"{command} --json"))

    def refused(self, command: str, code: int = 1) -> str:
        """The one line that a command says which cannot be done."""
        result = self.sh(command)
        assert (result.returncode, result.stdout) == (code, ""), result
        assert result.stderr.startswith("nexus: ")
        assert result.stderr.count("\n") == 1
        return result.stderr

    def call(self, key: str, model: str = "mock") -> httpx.Response:
        headers = {"authorization": f"Bearer {key}"}
        return self.gateway.client.post(
            "/v1/chat/completions", headers=headers, json=basic(model=model)
        )

    def admin(self, path: str, **query: str) -> Any:
        headers = {"authorization": f"Bearer {ADMIN}"}
        return self.gateway.client.get(f"/admin/{path}", headers=headers, params=query).json()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    target, tools = Provider(), tmp_path_factory.mktemp("tools")
    (tools / "nexus").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m compose.cli "$@"\n')
    (tools / "nexus").chmod(0o755)
    target.start()
    with pytest.MonkeyPatch.context() as patch:
        for name, text in SECRETS.items():
            patch.setenv(name, text)
        folder = tmp_path_factory.mktemp("gateway")
        with running_gateway(folder, MORE.format(url=target.url)) as gateway:
            yield Place(gateway, target, tools)
    target.stop()


def blocks(language: str) -> list[str]:
    """The examples of the page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def token() -> str:
    claims = {"sub": "ana", "project": "shop", "exp": int(time.time()) + 600}
    return jwt.encode(claims, SECRETS["TEST_JWT_SECRET"], "HS256")


def test_every_example_of_the_page_works_in_its_order(place: Place) -> None:
    place.gateway.up.script(json_reply(chat_answer("Hello")))
    place.target.script(json_reply(chat_answer("Hello")))
    variables = {"TOKEN": token(), "NEXUS_KEY": KEY, "OPENAI_API_KEY": OWN_KEY}
    told = [place.out(block, ID=_id_of(place, "my-app"), **variables) for block in blocks("sh")]
    assert len(told) > 10
    first = re.search(r"nx-\w+", told[0])
    assert first is not None
    assert is_well_formed(first[0].encode())

    keys = {key["name"]: key for key in place.admin("keys", limit="1000")["data"]}
    assert keys["my-app"]["status"] == "revoked"
    assert keys["checkout"]["allowed_models"] == ["gpt-4o*", "mock"]
    assert keys["checkout"]["expires_at"] == "2099-01-01T00:00:00Z"
    assert [budget["name"] for budget in keys["checkout"]["budgets"]] == [
        f"key:{keys['checkout']['id']}:month"
    ]
    assert keys["by hand"]["project"] == "shop"
    assert place.admin("projects/shop")["limits"]["requests_per_minute"] == 600
    assert [one["id"] for one in place.admin("projects")["data"]] == ["shop"]
    assert place.admin("teams/retail")["budgets"][0]["limit_usd"] == 2000
    budgets = {one["name"]: one for one in place.admin("budgets")["data"]}
    assert "project:shop:day" not in budgets
    assert budgets["user:ana@example.com:month"]["hard_stop"] is False
    assert place.gateway.up.request.headers["Authorization"] == f"Bearer {OWN_KEY}"
    assert place.target.request.headers["Authorization"] == f"Bearer {OWN_KEY}"


def _id_of(place: Place, name: str) -> str:
    return next((key["id"] for key in place.admin("keys")["data"] if key["name"] == name), "")


def test_every_piece_of_configuration_on_the_page_can_be_read(tmp_path: Path) -> None:
    file = tmp_path / "nexus.yaml"
    file.write_text("".join(blocks("yaml")))
    env = {"NEXUS_SECRET": "a secret of 16 letters", "CHECKOUT_KEY": "a-key-of-16-characters"}
    config = load(str(file), env, {}).config
    assert config.keys["checkout"].project == "shop"
    assert config.jwt.issuer == "https://login.example.com/"
    assert config.target_url == "https://api.openai.com"


def test_a_key_from_its_making_to_its_end(place: Place) -> None:
    made = place.out("nexus keys create --name life --project p1 --user ana --model 'mock*'")
    (secret,) = set(re.findall(r"nx-\w{49}", made))
    (id,) = set(re.findall(r"key_\w+", made))
    assert "shown only now" in made
    line = next(line for line in made.splitlines() if line.startswith("curl "))
    answer = json.loads(place.out(line.replace("curl ", "curl -s ", 1)))
    assert answer["choices"][0]["message"]["content"]

    assert place.call(secret).status_code == 200
    refusal(place.call(secret, "up-model"), 403, "permission_error", "model_not_allowed")
    assert f"{id}  life" in place.out("nexus keys list --project p1")
    shown = place.out(f"nexus keys show {id}")
    assert secret not in shown
    assert secret[:7] in shown
    assert re.search(r"^models +mock\*$", shown, re.MULTILINE)

    place.gateway.up.script(json_reply(chat_answer("Hello")))
    place.out(f"nexus keys update {id} --clear model --name renamed --limit burst=3")
    assert place.call(secret, "up-model").status_code == 200
    view = place.json(f"nexus keys show {id}")
    assert (view["name"], view["allowed_models"], view["user"]) == ("renamed", None, "ana")
    assert view["limits"]["burst"] == 3

    second = place.out(f"nexus keys rotate {id} --grace 1h --quiet").strip()
    assert [place.call(text).status_code for text in (secret, second)] == [200, 200]
    assert re.search(
        rf"^replaced +{secret[:7]}\S+, opens until ",
        place.out(f"nexus keys show {id}"),
        re.MULTILINE,
    )
    third = place.json(f"nexus keys rotate {id} --grace 0s")["key"]
    codes = [place.call(text).status_code for text in (secret, second, third)]
    assert codes == [401, 401, 200]

    place.out(f"nexus keys revoke {id} --yes")
    refusal(place.call(third), 401, "authentication_error", "key_revoked")
    assert place.out("nexus keys list --project p1 --status active").startswith("No key is like")
    assert "revoked" in place.out("nexus keys list --project p1 --status revoked")
    assert "was revoked" in place.refused(f"nexus keys update {id} --name again")
    place.out(f"nexus keys revoke {id} --yes")


def test_an_expiring_key_ends_by_itself(place: Place) -> None:
    key = place.json("nexus keys create --name brief --expires 3s")
    assert place.call(key["key"]).status_code == 200
    until(lambda: place.json(f"nexus keys show {key['id']}")["status"] == "expired")
    refusal(place.call(key["key"]), 401, "authentication_error", "key_expired")


def test_many_keys_are_listed_page_by_page(place: Place) -> None:
    for number in range(3):
        place.out(f"nexus keys create --quiet --project many --name n{number}")
    first = place.out("nexus keys list --project many --limit 2")
    assert "(2 keys, and there are more: --all shows them;" in first
    everything = place.out("nexus keys list --project many --limit 2 --all")
    assert [f"n{number}" in everything for number in range(3)] == [True] * 3
    assert "(3 keys;" in everything
    pages = place.out("nexus keys list --project many --limit 2 --all --json").splitlines()
    assert [len(json.loads(page)["data"]) for page in pages] == [2, 1]


def test_a_project_and_its_team_from_their_making_to_their_end(place: Place) -> None:
    place.out("nexus teams create t/1 --model 'mock*' --metadata floor=2")
    place.out("nexus projects create 'p 2: ü' --team t/1 --budget day=1.5")
    assert "There is a project" in place.refused("nexus projects create 'p 2: ü'")
    shown = place.out("nexus projects show 'p 2: ü'")
    assert re.search(r"^budgets +\$1\.5 a day \(hard\)$", shown, re.MULTILINE)
    assert "metadata  floor=2" in place.out("nexus teams show t/1")
    assert "p 2: ü" in place.out("nexus projects list")

    key = place.json("nexus keys create --project 'p 2: ü'")
    refusal(place.call(key["key"], "up-model"), 403, "permission_error", "model_not_allowed")
    place.gateway.up.script(json_reply(chat_answer("Hello")))
    place.out("nexus teams update t/1 --clear model")
    assert place.call(key["key"], "up-model").status_code == 200

    assert key["id"] in place.refused("nexus projects remove 'p 2: ü'")
    place.out(f"nexus keys revoke {key['id']} --yes")
    place.out("nexus projects remove 'p 2: ü'")
    place.out("nexus teams remove t/1")
    assert "There is no team 't/1'" in place.refused("nexus teams show t/1")
    place.out("nexus budget remove 'project:p 2: ü:day'")


def test_a_budget_from_its_making_to_its_end(place: Place) -> None:
    name = "user:auth0|17/x:total"
    shown = place.out("nexus budget set 'user:auth0|17/x' total 12.345678901 --soft --warn 0.5")
    assert shown.splitlines()[:4] == [
        f"name      {name}",
        "limit     $12.345678901 in all",
        "stop      soft",
        "warns at  50 %",
    ]
    place.out("nexus budget set 'user:auth0|17/x' total 7")
    view = place.json(f"nexus budget show '{name}'")
    assert (view["limit_usd"], view["hard_stop"], view["warning_threshold"]) == (7, True, 0.8)
    assert name in place.out("nexus budget list --scope user --id 'auth0|17/x'")
    place.out(f"nexus budget remove '{name}'")
    assert name in place.refused(f"nexus budget show '{name}'")
    assert "No budget" in place.out("nexus budget list --id 'auth0|17/x'")


def test_what_the_configuration_declares_is_listed_and_stays_as_it_is(place: Place) -> None:
    assert "from-file" in place.out("nexus keys list --project filed")
    assert "configuration" in place.out("nexus keys show from-file")
    assert "declared in the configuration" in place.refused("nexus keys revoke from-file --yes")


def test_refusals_say_what_to_do(place: Place) -> None:
    assert "There is no key 'key_0'" in place.refused("nexus keys show key_0")
    assert "one of free, pro, enterprise" in place.refused("nexus keys create --tier gold")
    assert "admin_token of its data" in place.refused("NEXUS_TOKEN=nx-wrong nexus keys list")
    other = place.refused(f"NEXUS_TOKEN={KEY} nexus budget list")
    assert "administrator" in other
    assert "admin_token of its data" in other
    assert "nexus up" in place.refused("NEXUS_URL=http://127.0.0.1:1 nexus keys list")
