"""`router.max_cost_per_request` and `router.cost_alert_threshold`: what holds for every call that
the gateway pays for, whatever its request says."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from ledger.connection import Connection
from ledger.reader import read_subject
from schemas import subjects
from schemas.budget_events import CostAlert
from schemas.config import BusConfig
from schemas.event import Event
from schemas.events import RequestStart, decode_event
from tests.flow.gateway import Gateway, basic, refusal, running_gateway, until
from tests.upstream import chat_answer, json_reply

# `up-model` is bounded by some 0.0004 USD for its prompt and 0.00001 USD for each output token.
SETTINGS = """
router: {max_cost_per_request: 0.005, cost_alert_threshold: 0.00002}
secret: ["${TEST_SERVER_SECRET}"]
"""
OWN_KEY = "sk-own-key-of-a-client-0123456789"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_SERVER_SECRET", "the secret of all roles of this test")
        with running_gateway(tmp_path_factory.mktemp("max-cost"), SETTINGS) as gateway:
            yield gateway


def ask(gateway: Gateway, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
    gateway.up.script(json_reply(chat_answer("Hello")))
    return gateway.post(json=basic(**fields), headers=headers)


@pytest.mark.parametrize("budget", [None, {"max_cost": 1}, {"max_cost": 0.005}])
def test_a_call_that_may_cost_more_than_any_may_is_refused_whatever_it_says(
    gateway: Gateway, budget: Any
) -> None:
    answer = ask(gateway, max_tokens=1000, budget=budget)
    error = refusal(answer, 400, "invalid_request_error", "max_cost_exceeded")
    assert "0.005 USD" in error["message"] and "max_tokens" in error["message"]
    assert gateway.up.requests == []


def test_a_request_may_lower_what_it_may_cost(gateway: Gateway) -> None:
    assert ask(gateway, max_tokens=200).status_code == 200
    answer = ask(gateway, max_tokens=200, budget={"max_cost": 0.001})
    error = refusal(answer, 400, "invalid_request_error", "max_cost_exceeded")
    assert error["param"] == "budget.max_cost"


def test_an_answer_without_a_limit_gets_as_many_tokens_as_any_call_may_cost(
    gateway: Gateway,
) -> None:
    assert ask(gateway).status_code == 200
    assert 64 <= gateway.up.request.json["max_tokens"] <= 500


def test_a_cost_above_the_gateways_threshold_is_told_and_a_request_may_have_its_own(
    gateway: Gateway,
) -> None:
    costly = ask(gateway, max_tokens=50)
    own = ask(gateway, max_tokens=50, budget={"cost_alert_threshold": 1})
    until(lambda: [one for one in alerts(gateway) if one.call_id == call_id_of(costly)])
    (alert,) = [one for one in alerts(gateway) if one.call_id == call_id_of(costly)]
    assert (alert.threshold, alert.period) == (0.00002, "request")
    assert alert.current_cost > alert.threshold
    assert start_of(gateway, own).alert_nano == 10**9
    assert call_id_of(own) not in [one.call_id for one in alerts(gateway)]


def test_what_the_clients_own_key_pays_is_not_the_gateways_to_limit(gateway: Gateway) -> None:
    headers = {"X-Nexus-Provider-Key": f"up={OWN_KEY}"}
    answer = ask(gateway, headers, max_tokens=1000)
    assert answer.status_code == 200, answer.text
    assert gateway.up.request.headers["Authorization"] == f"Bearer {OWN_KEY}"
    assert start_of(gateway, answer).alert_nano is None
    answer = ask(gateway, headers, max_tokens=1000, budget={"max_cost": 0.001})
    refusal(answer, 400, "invalid_request_error", "max_cost_exceeded")


def call_id_of(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return answer.headers["x-request-id"].removeprefix("req_")


def start_of(gateway: Gateway, answer: httpx.Response) -> RequestStart:
    starts = [one for one in ledger(gateway) if isinstance(one, RequestStart)]
    return next(one for one in starts if one.call_id == call_id_of(answer))


def alerts(gateway: Gateway) -> list[CostAlert]:
    return [event for event in ledger(gateway) if isinstance(event, CostAlert)]


def ledger(gateway: Gateway) -> list[Event]:
    async def read() -> list[Event]:
        connection = await Connection.connect(BusConfig(url=gateway.bus), name="test")
        try:
            stored = await read_subject(connection, subjects.LEDGER, subjects.LEDGER_SUBJECTS)
        finally:
            await connection.close()
        return [event for record in stored if (event := decode_event(record.data)) is not None]

    return asyncio.run(read())
