"""Who is served: with which credential, at which door, and what the log says of it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.flow.chat.playing import CHAT, play
from tests.flow.gateway import ADMIN, KEY, OTHER_KEY, ROOT, UP_KEY, Gateway, basic, refusal, until


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "missing_api_key"),
        ({"Authorization": "Bearer wrong"}, "invalid_api_key"),
        ({"Authorization": f"Bearer {KEY}x"}, "invalid_api_key"),
        ({"Authorization": f"Basic {KEY}"}, "invalid_api_key"),
        ({"Authorization": KEY}, "invalid_api_key"),
        ({"Authorization": "Bearer"}, "missing_api_key"),
        ({"Authorization": "Bearer dev-key"}, "invalid_api_key"),
        ({"X-API-Key": "wrong"}, "invalid_api_key"),
        ({"X-API-Key": ""}, "missing_api_key"),
        ({"X-Nexus-Token": "wrong"}, "invalid_api_key"),
        ({"Cookie": f"key={KEY}"}, "missing_api_key"),
    ],
)
def test_without_a_good_key_nothing_is_served(
    gateway: Gateway, headers: dict[str, str], code: str
) -> None:
    closed = closed_routes(gateway)
    assert len(closed) > 8
    for method, path in closed:
        response = gateway.client.request(method, path, headers=headers, json=basic())
        error = refusal(response, 401, "authentication_error", code)
        understood = "Bearer" in headers.get("Authorization", "Bearer")
        says = "Check the key" if code == "invalid_api_key" and understood else "'Authorization: "
        assert says in error["message"]


def closed_routes(gateway: Gateway) -> list[tuple[str, str]]:
    """Method and path of every documented route that needs a key."""
    documented = gateway.client.get("/openapi.json").json()["paths"]
    opened = {"/health", "/api/v1/health", "/models", "/metrics"}
    return [
        (method.upper(), path.replace("{model}", "mock").replace("{model_id}", "mock"))
        for path, operations in documented.items()
        for method in operations
        if path not in opened
    ]


@pytest.mark.parametrize(
    "path", ["/health", "/api/v1/health", "/models", "/metrics", "/docs", "/openapi.json"]
)
def test_what_is_open_needs_no_key_and_ignores_a_wrong_one(gateway: Gateway, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        assert gateway.client.get(path, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"bearer  {KEY}"},
        {"X-API-Key": KEY},
        {"X-Nexus-Token": KEY},
        {"X-Nexus-Token": KEY, "Authorization": "Bearer unused"},
        {"X-Nexus-Token": "unused", "X-API-Key": KEY, "Authorization": "Bearer unused"},
        {"X-API-Key": "unused", "Authorization": f"Bearer {KEY}"},
        {"Authorization": f"Bearer {ADMIN}"},
    ],
)
def test_the_first_valid_credential_counts(gateway: Gateway, headers: dict[str, str]) -> None:
    play(gateway, False, "Hello")
    assert gateway.client.post(CHAT, headers=headers, json=basic()).status_code == 200


def test_of_two_valid_credentials_the_token_wins(gateway: Gateway) -> None:
    def key_in_log(**headers: str) -> str:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        response = gateway.client.post(CHAT, headers=sent, json=basic())
        return str(log_line(gateway, response.headers["x-request-id"])["key_id"])

    play(gateway, False, "Hello")
    first, second = key_in_log(X_API_Key=KEY), key_in_log(X_API_Key=OTHER_KEY)
    assert first != second and KEY not in first
    assert key_in_log(X_Nexus_Token=KEY, X_API_Key=OTHER_KEY) == first
    assert key_in_log(X_API_Key=OTHER_KEY, Authorization=f"Bearer {KEY}") == second
    assert key_in_log(X_Nexus_Token=ADMIN, X_API_Key=OTHER_KEY) == "admin"


def log_line(gateway: Gateway, request_id: str) -> dict[str, Any]:
    """The one line of the log that names the request; it is written when the answer is out."""
    until(lambda: request_id in gateway.log.read_text())
    (line,) = [line for line in gateway.log.read_text().splitlines() if request_id in line]
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_call_is_one_line_of_the_log_without_prompt_and_secret(gateway: Gateway) -> None:
    play(gateway, False, "the answer in question")
    response = gateway.ask("up-model", "the prompt in question")
    line = log_line(gateway, response.headers["x-request-id"])
    shown = {"model": "up-model", "provider": "up", "status": 200, "code": None, "usd": 0.0000475}
    assert {name: line[name] for name in shown} == shown
    assert line["ms"] > 0
    everything = gateway.log.read_text()
    for secret in ("in question", KEY, OTHER_KEY, ADMIN, UP_KEY):
        assert secret not in everything


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "gateway.example"])
def test_listening_beyond_loopback_without_keys_is_refused(tmp_path: Path, host: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "compose.cli", "ingress", "--host", host],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 2
    assert host in result.stderr and "set GATEWAY_API_KEYS or ADMIN_TOKEN" in result.stderr
