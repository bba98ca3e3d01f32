"""What the gateway says of every call's money, and what a request may say against it."""

import pytest

from ingress.call_budget import CallBudget, gateway_budget, require_within, within_gateway
from schemas.config import RouterConfig
from schemas.errors import InvalidRequest

CENT = 10_000_000
NOTHING = CallBudget()
OF_ALL = gateway_budget(RouterConfig(max_cost_per_request=0.01, cost_alert_threshold=0.005))


def test_a_request_that_says_nothing_has_the_gateways_word() -> None:
    found = within_gateway(NOTHING, OF_ALL)
    assert (found.max_cost_nano, found.alert_nano) == (CENT, CENT // 2)


def test_a_request_may_lower_its_max_cost_and_not_raise_it() -> None:
    lower = within_gateway(CallBudget(max_cost_nano=7), OF_ALL)
    higher = within_gateway(CallBudget(max_cost_nano=CENT + 1), OF_ALL)
    assert (lower.max_cost_nano, higher.max_cost_nano) == (7, CENT)


def test_a_request_may_ask_for_any_alert() -> None:
    assert within_gateway(CallBudget(alert_nano=CENT * 9), OF_ALL).alert_nano == CENT * 9


def test_what_else_a_request_says_stays() -> None:
    asked = CallBudget(tracking_id="order 17", user_id="ana", project_id="shop")
    found = within_gateway(asked, OF_ALL)
    assert (found.tracking_id, found.user_id, found.project_id) == ("order 17", "ana", "shop")


@pytest.mark.parametrize("asked", [NOTHING, CallBudget(max_cost_nano=CENT)])
def test_a_gateway_without_such_settings_changes_nothing(asked: CallBudget) -> None:
    assert within_gateway(asked, gateway_budget(RouterConfig())) is asked


def test_a_gateway_whose_calls_may_cost_nothing_says_so() -> None:
    free = gateway_budget(RouterConfig(max_cost_per_request=0))
    require_within(within_gateway(NOTHING, free), 0)
    with pytest.raises(InvalidRequest):
        require_within(within_gateway(NOTHING, free), 1)


def test_the_refusal_says_whose_limit_it_was() -> None:
    capped = within_gateway(CallBudget(max_cost_nano=CENT * 2), OF_ALL)
    with pytest.raises(InvalidRequest, match="any call may cost at this gateway") as refused:
        require_within(capped, CENT + 1)
    assert (refused.value.info.code, refused.value.info.param) == ("max_cost_exceeded", None)
    with pytest.raises(InvalidRequest, match="Raise it, set a lower") as refused:
        require_within(within_gateway(CallBudget(max_cost_nano=7), OF_ALL), 8)
    assert refused.value.info.param == "budget.max_cost"
