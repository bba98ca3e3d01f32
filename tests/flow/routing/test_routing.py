"""Calls that leave the choice to the gateway, through a whole one: what runs, what is told."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.flow.gateway import ADMIN, Gateway, message, refusal, running_gateway, told
from tests.upstream import chat_answer, chat_stream, json_reply

ROOT = Path(__file__).parents[3]
OURS = ("NEXUS_", "GATEWAY_", "UNIFIED_GATEWAY_", "ADMIN_TOKEN", "CONFIG_PATH", "PORT")
MORE = """
  cheap: {provider: up, engine: cheap-1, input_cost: 0.0000001, output_cost: 0.0000002}
  dear: {provider: up, engine: dear-1, input_cost: 0.00001, output_cost: 0.00003}
  unsound: {provider: up, engine: unsound-1, fallbacks: [cheap]}
  "wild-*": {provider: up}
routes:
  weighed: {strategy: weighted, targets: [{name: cheap, weight: 0}, {name: dear, weight: 1}]}
  trial: {strategy: canary, primary: dear, canary: cheap, percent: 100}
defaults: {think: auto}
router: {max_fallback_attempts: 2}
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("routing"), MORE) as gateway:
        yield gateway


def routed(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    routing: dict[str, Any] = response.json()["routing"]
    assert routing.keys() == {
        "selected_provider", "routing_reason", "considered_models", "fallback_used", "cache_hit",
    }  # fmt: skip
    return routing


def answers(gateway: Gateway, text: str = "Hello") -> None:
    gateway.up.script(json_reply(chat_answer(text)))


def test_auto_runs_at_the_cheapest_and_tells_which_and_why(gateway: Gateway) -> None:
    answers(gateway)
    response = gateway.ask("auto", routing={"strategy": "cost", "max_cost_per_1k_tokens": 0.01})
    routing = routed(response)
    assert response.json()["model"] == "cheap"
    assert gateway.up.request.json["model"] == "cheap-1"
    assert "routing" not in gateway.up.request.json
    assert routing["selected_provider"] == response.json()["provider"] == "up"
    assert routing["routing_reason"].startswith("cost: about 0.0001")
    assert routing["considered_models"][0] == "cheap"
    assert "dear" not in routing["considered_models"][:3]
    assert (routing["fallback_used"], routing["cache_hit"]) == (False, False)


def test_a_task_that_stands_for_auto_and_auto_without_a_block_are_told_too(
    gateway: Gateway,
) -> None:
    answers(gateway)
    assert routed(gateway.ask("auto"))["fallback_used"] is False
    answers(gateway)
    assert routed(gateway.ask("think"))["routing_reason"].startswith("auto: ")


def test_a_stream_tells_its_route_on_the_chunk_that_ends_it(gateway: Gateway) -> None:
    gateway.up.script(chat_stream("Hel", "lo"))
    *chunks, last = told(gateway.ask("auto", stream=True, routing={"strategy": "cost"}))
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["routing"]["selected_provider"] == "up"
    assert all("routing" not in chunk for chunk in chunks)
    assert {chunk["model"] for chunk in (*chunks, last)} == {"cheap"}


def test_a_plain_call_tells_of_its_route_only_when_a_fallback_answered(gateway: Gateway) -> None:
    answers(gateway)
    assert "routing" not in gateway.ask("unsound").json()
    gateway.up.script(json_reply({"error": {"message": "no"}}, 401), json_reply(chat_answer()))
    response = gateway.ask("unsound")
    routing = routed(response)
    assert response.json()["model"] == "unsound"
    assert routing["fallback_used"] is True
    assert routing["routing_reason"] == "as configured; up/unsound-1 did not answer"
    assert routing["considered_models"] == ["up/unsound-1", "up/cheap-1"]


def test_fallback_models_of_the_call_are_tried(gateway: Gateway) -> None:
    gateway.up.script(json_reply({"error": {"message": "no"}}, 401), json_reply(chat_answer()))
    response = gateway.ask("dear", routing={"fallback_models": ["cheap"]})
    assert routed(response)["fallback_used"] is True
    asked = [request.json["model"] for request in gateway.up.requests]
    assert asked == ["dear-1", "cheap-1"]


def test_routes_and_patterns_lead_where_they_say(gateway: Gateway) -> None:
    for model, engine in [("weighed", "dear-1"), ("trial", "cheap-1"), ("wild-7", "wild-7")]:
        answers(gateway)
        response = gateway.ask(model)
        assert (response.status_code, response.json()["model"]) == (200, model)
        assert gateway.up.request.json["model"] == engine
    listed = gateway.client.get("/models").json()["models"]
    names = {row["id"] for row in listed}
    assert {"weighed", "trial", "cheap"} <= names
    assert "wild-*" not in names


def test_what_nobody_fulfils_is_refused_before_anybody_is_asked(gateway: Gateway) -> None:
    answers(gateway)
    response = gateway.ask("auto", routing={"region": "eu", "strategy": "speed"})
    error = refusal(response, 400, "invalid_request_error", "no_eligible_model")
    assert error["param"] == "routing.region"
    assert "routing.region excludes up/engine-1 (its region is unknown)" in error["message"]
    assert not gateway.up.requests


@pytest.mark.parametrize(
    ("routing", "param"),
    [
        ({"strategie": "cost"}, "routing.strategie"),
        ({"strategy": "best"}, "routing.strategy"),
        ({"max_cost_per_1k_tokens": -1}, "routing.max_cost_per_1k_tokens"),
        ({"max_latency_ms": 0}, "routing.max_latency_ms"),
        ({"preferred_providers": "up"}, "routing.preferred_providers"),
        ({"fallback_models": [""]}, "routing.fallback_models.0"),
        ({"fallback_models": ["x"] * 17}, "routing.fallback_models"),
        ({"enable_caching": "yes"}, "routing.enable_caching"),
        ({"region": "e u"}, "routing.region"),
        ("cost", "routing"),
    ],
)
def test_a_wrong_block_is_refused_by_the_field(gateway: Gateway, routing: Any, param: str) -> None:
    error = refusal(
        gateway.ask("auto", routing=routing), 400, "invalid_request_error", "invalid_value"
    )
    assert error["param"] == param


def test_embeddings_tell_of_their_route_too(gateway: Gateway) -> None:
    vectors = {"object": "list", "data": [], "model": "m", "usage": {"prompt_tokens": 1}}
    gateway.up.script(json_reply(vectors))
    response = gateway.post("/v1/embeddings", json={"model": "auto", "input": "x"})
    assert routed(response)["considered_models"] == ["text-embedding-3-small"]


def nexus(gateway: Gateway, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith(OURS)}
    return subprocess.run(
        [sys.executable, "-m", "compose.cli", "route", "--explain", *arguments],
        env={**kept, "PYTHONPATH": str(ROOT), "NEXUS_URL": gateway.url, "NEXUS_TOKEN": ADMIN},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_nexus_route_explains_where_a_call_would_run(gateway: Gateway, tmp_path: Path) -> None:
    gateway.up.script()
    body = {"model": "auto", "messages": [message("Hi")], "routing": {"strategy": "cost"}}
    file = tmp_path / "body.json"
    file.write_text(json.dumps(body))
    shown = nexus(gateway, str(file))
    assert shown.returncode == 0, shown.stderr
    assert "because   cost: about 0.0001" in shown.stdout
    assert "plan      up/cheap-1, then " in shown.stdout
    assert "up/dear-1" in shown.stdout
    assert "others come first" in shown.stdout
    found = json.loads(nexus(gateway, "-", "--json", stdin=json.dumps(body)).stdout)
    assert (found["object"], found["model"], found["strategy"]) == ("route", "auto", "cost")
    assert found["targets"][0] == "up/cheap-1"
    assert len(found["targets"]) == 3
    first = found["considered"][0]
    assert (first["place"], first["left"], first["model"]) == (1, None, "cheap")
    assert first["cost_usd"] > 0
    assert not gateway.up.requests, "nobody was called"


def test_nexus_route_says_which_wish_excludes_whom_and_ends_with_1(gateway: Gateway) -> None:
    body = {"model": "dear", "messages": [message("Hi")], "routing": {"region": "eu"}}
    shown = nexus(gateway, "-", stdin=json.dumps(body))
    assert shown.returncode == 1
    assert "none: the call would be refused" in shown.stdout
    assert "routing.region: its region is unknown" in shown.stdout
    assert "is not JSON" in nexus(gateway, "-", stdin="{").stderr
    assert "is not a JSON object" in nexus(gateway, "-", stdin="[]").stderr


def test_a_route_is_explained_to_the_administrator_only(gateway: Gateway) -> None:
    asked = {"model": "dear", "messages": [message("Hi")]}
    refusal(gateway.post("/admin/route", json=asked), 403, "permission_error", "admin_only")
