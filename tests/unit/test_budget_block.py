"""What a call says it may cost: its budget block is read, kept to and shown to nobody."""

import json
from typing import Any

import pytest

from ingress.call_budget import CallBudget, priced, require_within
from ingress.capacities import Capacities
from ingress.dialects import openai
from ingress.estimates import bound_of_plan, output_limit
from ingress.measure import measure
from schemas.call import Target
from schemas.config import PricingConfig
from schemas.errors import InvalidRequest
from tests.measured_calls import TARGET, body, router


def test_max_cost_shortens_the_answer_as_far_as_it_is_worth_something() -> None:
    routes = router()
    capacities, plan = Capacities(routes), routes.plan("gpt-4o")
    one = measure(body("Hello!"))

    def limit(max_cost_nano: int) -> int:
        return output_limit(one, "gpt-4o", plan, capacities, max_cost_nano)

    ten_cents = limit(100_000_000)
    assert 5000 < ten_cents < 16_384
    assert (bound_of_plan(one, plan, ten_cents, capacities) or 0) <= 100_000_000
    assert (bound_of_plan(one, plan, ten_cents + 1, capacities) or 0) > 100_000_000
    assert limit(1_000_000_000) == 16_384
    too_little = bound_of_plan(one, plan, limit(10_000), capacities)
    with pytest.raises(InvalidRequest) as caught:
        require_within(CallBudget(max_cost_nano=10_000), too_little)
    info = caught.value.info
    assert (info.status, info.code, info.param) == (400, "max_cost_exceeded", "budget.max_cost")
    assert "0.00001 USD" in info.message


def test_an_own_output_limit_is_never_shortened() -> None:
    routes = router()
    found = measure(body("Hi", max_tokens=5))
    plan = routes.plan("gpt-4o")
    assert output_limit(found, "gpt-4o", plan, Capacities(routes), 1) == 5


def test_a_cost_within_max_cost_and_one_without_pass() -> None:
    require_within(CallBudget(max_cost_nano=None), 10**12)
    require_within(CallBudget(max_cost_nano=10), 10)
    require_within(CallBudget(max_cost_nano=10), None)
    with pytest.raises(InvalidRequest):
        require_within(CallBudget(max_cost_nano=0), 1)


def test_unknown_prices_are_refused_only_where_money_is_limited_and_the_operator_says_so() -> None:
    unpriced = Target("local", "x", "local")
    refuse, allow = PricingConfig(unknown="refuse"), PricingConfig()
    assert priced((unpriced,), "m", allow, strict=True) == (unpriced,)
    assert priced((unpriced,), "m", refuse, strict=False) == (unpriced,)
    assert priced((unpriced, TARGET), "m", refuse, strict=True) == (TARGET,)
    with pytest.raises(InvalidRequest) as caught:
        priced((unpriced,), "m", refuse, strict=True)
    assert (caught.value.info.status, caught.value.info.code) == (400, "price_unknown")


def test_the_budget_block_is_read_in_nano_dollars_and_goes_nowhere() -> None:
    block = {
        "max_cost": 0.5,
        "cost_alert_threshold": 0.4,
        "tracking_id": "order 17",
        "user_id": "auth0|17",
        "project_id": "shop",
    }
    request = openai.parse(body("Hi", budget=block, user="end"))
    budget = request.budget
    assert budget is not None
    assert (budget.max_cost_nano, budget.alert_nano) == (500_000_000, 400_000_000)
    assert (budget.tracking_id, budget.user_id, budget.project_id) == (
        "order 17",
        "auth0|17",
        "shop",
    )
    assert "budget" not in json.loads(request.body)
    assert request.end_user == "end" and json.loads(request.body)["user"] == "end"


def test_an_empty_budget_block_limits_nothing() -> None:
    assert openai.parse(body("Hi")).budget is None
    assert openai.parse(body("Hi", budget=None)).budget is None
    empty = openai.parse(body("Hi", budget={"max_cost": None, "user_id": None})).budget
    assert empty is not None and empty.max_cost_nano is None and empty.user_id == ""


@pytest.mark.parametrize(
    ("block", "param"),
    [
        ({"max_cost": -1}, "budget.max_cost"),
        ({"max_cost": "0.5"}, "budget.max_cost"),
        ({"max_cost": 1e10}, "budget.max_cost"),
        ({"cost_alert_threshold": True}, "budget.cost_alert_threshold"),
        ({"max_costs": 1}, "budget.max_costs"),
        ({"user_id": 17}, "budget.user_id"),
        ({"user_id": "u" * 129}, "budget.user_id"),
        ({"project_id": " shop"}, "budget.project_id"),
        ({"project_id": "a\nb"}, "budget.project_id"),
        ({"tracking_id": "t" * 129}, "budget.tracking_id"),
        ({"tracking_id": "a\tb"}, "budget.tracking_id"),
        ([], "budget"),
        ("much", "budget"),
    ],
)
def test_a_budget_block_that_says_nothing_clear_is_refused(block: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        openai.parse(body("Hi", budget=block))
    info = caught.value.info
    assert (info.status, info.code, info.param) == (400, "invalid_value", param)


@pytest.mark.parametrize("user", [17, {"id": "a"}, None, ["a"]])
def test_a_user_that_is_no_text_is_passed_on_and_names_nobody(user: Any) -> None:
    request = openai.parse(body("Hi", user=user))
    assert request.end_user == "" and json.loads(request.body)["user"] == user
