"""The lists of models over HTTP, as documents 001 and 003 show them."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.flow.gateway import KEY, Gateway, basic, message, refusal, running_gateway, told
from tests.upstream import chat_answer, chat_stream, json_reply

AUTH = {"Authorization": f"Bearer {KEY}"}
CONFIG = """
  dear: {provider: up, engine: big, input_cost: 0.0001, output_cost: 0.0002,
         max_tokens: 1000, timeout: 7, fallbacks: [up-model, gpt-4o]}
  no-key: {provider: anthropic, engine: claude-3-opus-20240229}
defaults: {summary: up-model}
"""
CAPABILITIES = {
    "max_tokens",
    "context_window",
    "supports_vision",
    "supports_function_calling",
    "supports_streaming",
    "cost_per_1k_input_tokens",
    "cost_per_1k_output_tokens",
    "avg_latency_ms",
}
ALIASES = (
    "gpt-4o",
    "gpt-4-turbo",
    "gpt-3.5-turbo",
    "claude-3-opus",
    "claude-3-sonnet",
    "claude-3-haiku",
    "mistral-large",
)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("models"), CONFIG) as gateway:
        yield gateway


def get(gateway: Gateway, path: str) -> httpx.Response:
    return gateway.client.get(path, headers=AUTH)


def listed(gateway: Gateway, query: str = "") -> dict[str, dict[str, Any]]:
    """The rows of the list, by name."""
    return {row["id"]: row for row in get(gateway, f"/v1/models{query}").json()["data"]}


@pytest.mark.parametrize("prefix", ["/v1", "/ai/v1", "/api/v1"])
def test_the_list_has_the_same_rows_under_every_prefix(gateway: Gateway, prefix: str) -> None:
    answer = get(gateway, f"{prefix}/models")
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body.keys() == {"object", "data"} and body["object"] == "list"
    for row in body["data"]:
        assert row["object"] == "model"
        assert isinstance(row["created"], int)
        assert row["owned_by"] and row["provider"]
        assert {"display_name", "category", "tier", "available"} <= row.keys()
        assert row["capabilities"].keys() == CAPABILITIES
    assert body == get(gateway, "/v1/models").json()


def test_the_list_has_what_is_configured_and_what_is_built_in(gateway: Gateway) -> None:
    rows = listed(gateway)
    assert {"mock", "up-model", "up/other", "spaced name, 100%", "dear", *ALIASES} <= rows.keys()
    available = {name for name, row in rows.items() if row["available"]}
    assert {"mock", "up-model", "dear", "gpt-4o"} <= available
    assert available.isdisjoint({"no-key", "claude-3-opus", "mistral-large"})


def test_only_available_models_on_request(gateway: Gateway) -> None:
    rows = listed(gateway)
    usable = {name: row for name, row in rows.items() if row["available"]}
    assert listed(gateway, "?available=true") == usable
    assert listed(gateway, "?available=false") == rows
    assert len(usable) < len(rows)


def test_what_is_listed_as_available_can_be_called(gateway: Gateway) -> None:
    gateway.up.script(json_reply(chat_answer("Hello")))
    for name in listed(gateway, "?available=true"):
        answer = gateway.post(json={"model": name, "messages": [message("Hi")]})
        assert answer.status_code == 200 and answer.json()["model"] == name


def test_what_is_not_available_says_what_to_set(gateway: Gateway) -> None:
    response = gateway.post(json={**basic(), "model": "claude-3-opus"})
    error = refusal(response, 404, "invalid_request_error", "model_not_found")
    assert "ANTHROPIC_API_KEY" in error["message"]


def test_a_row_of_the_catalog(gateway: Gateway) -> None:
    row = listed(gateway)["gpt-4o"]
    assert row == get(gateway, "/v1/models/gpt-4o").json()
    assert (row["provider"], row["owned_by"]) == ("openai", "openai")
    assert (row["display_name"], row["category"], row["tier"]) == ("GPT-4o", "general", "premium")
    assert row["capabilities"] == {
        "max_tokens": 16384,
        "context_window": 128000,
        "supports_vision": True,
        "supports_function_calling": True,
        "supports_streaming": True,
        "cost_per_1k_input_tokens": 0.0025,
        "cost_per_1k_output_tokens": 0.01,
        "avg_latency_ms": None,
    }


def test_a_row_of_the_configuration(gateway: Gateway) -> None:
    row = listed(gateway)["dear"]
    assert (row["provider"], row["available"], row["display_name"]) == ("up", True, None)
    capabilities = row["capabilities"]
    assert capabilities["max_tokens"] == 1000
    assert capabilities["cost_per_1k_input_tokens"] == 0.1
    assert capabilities["cost_per_1k_output_tokens"] == 0.2
    unknown = {name for name, value in capabilities.items() if value is None}
    assert unknown == CAPABILITIES - {
        "max_tokens",
        "cost_per_1k_input_tokens",
        "cost_per_1k_output_tokens",
    }


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("up%2Fother", "up/other"),
        ("up/other", "up/other"),
        ("up/any-engine", "up/any-engine"),
        ("spaced%20name%2C%20100%25", "spaced name, 100%"),
        ("summary", "summary"),
        ("mock", "mock"),
    ],
)
def test_one_model_by_any_name_that_a_call_could_use(
    gateway: Gateway, path: str, name: str
) -> None:
    for prefix in ("/v1", "/ai/v1", "/api/v1"):
        row = get(gateway, f"{prefix}/models/{path}").json()
        assert (row["id"], row["available"]) == (name, True)


@pytest.mark.parametrize(
    "name", ["no-such-model", "..%2F..%2Fx", "a%00b", "%F0%9F%98%80", "a" * 999]
)
def test_a_model_that_nobody_knows(gateway: Gateway, name: str) -> None:
    response = get(gateway, f"/v1/models/{name}")
    error = refusal(response, 404, "invalid_request_error", "model_not_found")
    assert error["param"] == "model"


def test_a_query_that_is_no_truth_value_is_refused(gateway: Gateway) -> None:
    response = get(gateway, "/v1/models?available=perhaps")
    error = refusal(response, 400, "invalid_request_error", "invalid_value")
    assert error["param"] == "available"


def test_the_configured_models_are_open_and_as_document_001_writes_them(gateway: Gateway) -> None:
    body = httpx.get(f"{gateway.url}/models").json()
    rows = {row["id"]: row for row in body["models"]}
    assert rows.keys() == {
        "up-model", "up/other", "spaced name, 100%", "dear", "no-key", "mock",
    }  # fmt: skip
    assert rows["dear"] == {
        "id": "dear",
        "provider": "up",
        "engine": "big",
        "input_cost": 0.0001,
        "output_cost": 0.0002,
        "max_tokens": 1000,
        "timeout": 7.0,
        "fallbacks": ["up-model", "gpt-4o"],
        "available": True,
    }
    assert rows["no-key"]["available"] is False
    assert rows["mock"]["available"] is True
    assert body["defaults"] == {"summary": "up-model"}


def test_the_lists_show_no_secret_and_no_address(gateway: Gateway) -> None:
    for path in ("/models", "/v1/models", "/openapi.json", "/health"):
        shown = get(gateway, path).text
        assert gateway.up.url not in shown and "sk-key" not in shown and KEY not in shown


def test_a_task_named_as_model_is_answered_by_the_chosen_one_and_says_so(gateway: Gateway) -> None:
    gateway.up.script(json_reply(chat_answer("Hello")), chat_stream("Hello"))
    body = {**basic(), "model": "summary"}
    assert gateway.post(json=body).json()["model"] == "up-model"
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = told(gateway.post(json={**body, **options}))
    assert [chunk["model"] for chunk in chunks] == ["up-model"] * 3
    assert [request.json["model"] for request in gateway.up.requests] == ["engine-1"] * 2


def test_an_operation_of_every_route_is_documented(gateway: Gateway) -> None:
    document = get(gateway, "/openapi.json").json()
    for prefix in ("/v1", "/ai/v1", "/api/v1"):
        assert "post" in document["paths"][f"{prefix}/chat/completions"]
        assert "get" in document["paths"][f"{prefix}/models"]
        assert "get" in document["paths"][f"{prefix}/models/{{model_id}}"]
    assert {"/proxy/{model}", "/models", "/health", "/metrics"} <= document["paths"].keys()
    operations = [one for path in document["paths"].values() for one in path.values()]
    assert len({one["operationId"] for one in operations}) == len(operations)
    assert all(line.startswith("{") for line in gateway.log.read_text().splitlines())
