"""What the OpenAPI document says of chat: the budget of a request, limits and refusals."""

from typing import Any

import jsonschema_rs
import msgspec
import pytest
from fastapi import FastAPI

from ingress import openapi
from ingress.call_budget import BudgetBlock
from ingress.dialects.openai import parse
from schemas.errors import InvalidRequest

PATH = "/v1/chat/completions"


@pytest.fixture(scope="module")
def operation() -> dict[str, Any]:
    app = FastAPI()
    openapi.describe(app, [PATH], [])
    found: dict[str, Any] = app.openapi()["paths"][PATH]["post"]
    return found


@pytest.fixture(scope="module")
def body(operation: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = operation["requestBody"]["content"]["application/json"]["schema"]
    return schema


def test_each_field_of_a_requests_budget_has_a_type_and_a_meaning(body: dict[str, Any]) -> None:
    budget, null = body["properties"]["budget"]["anyOf"]
    assert null == {"type": "null"}
    assert budget["properties"].keys() == set(BudgetBlock.__struct_fields__)
    for field in budget["properties"].values():
        assert {one["type"] for one in field["anyOf"]} in ({"number", "null"}, {"string", "null"})
        assert len(field["description"]) > 20


@pytest.mark.parametrize(
    ("budget", "is_good"),
    [
        (None, True),
        ({}, True),
        ({"max_cost": 0.5, "cost_alert_threshold": 0, "tracking_id": "order 17"}, True),
        ({"user_id": "auth0|17", "project_id": None}, True),
        ({"max_cost": -1}, False),
        ({"max_cost": "1"}, False),
        ({"max_price": 1}, False),
        ({"project_id": " shop"}, False),
        ({"user_id": "u" * 129}, False),
        ([], False),
    ],
)
def test_the_description_of_a_budget_is_what_is_accepted(
    body: dict[str, Any], budget: Any, is_good: bool
) -> None:
    asked = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "budget": budget}
    assert jsonschema_rs.is_valid(body, asked) is is_good
    assert read(asked) is is_good


def read(asked: dict[str, Any]) -> bool:
    try:
        parse(msgspec.json.encode(asked))
    except InvalidRequest:
        return False
    return True


def test_refusals_by_money_and_limits_are_described_with_their_codes_and_headers(
    operation: dict[str, Any],
) -> None:
    answers = operation["responses"]
    assert "`max_cost_exceeded`" in answers["400"]["description"]
    for code in ("foreign_project", "foreign_user", "model_not_allowed"):
        assert f"`{code}`" in answers["403"]["description"]
    for code in ("budget_exceeded", "rate_limit_exceeded", "queue_full"):
        assert f"`{code}`" in answers["429"]["description"]
    rates = {
        f"X-RateLimit-{what}-{of}"
        for what in ("Limit", "Remaining", "Reset")
        for of in ("Requests", "Tokens")
    }
    assert answers["200"]["headers"].keys() == rates
    assert answers["429"]["headers"].keys() == rates | {"Retry-After", "x-should-retry"}
    assert all(answers[code]["content"] for code in answers)
