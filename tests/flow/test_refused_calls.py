"""Calls that a budget refuses at the ingress, through a whole gateway: what their client is told,
what is counted, and what can be asked about each of them."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from ledger.connection import Connection
from ledger.reader import read_subject
from schemas import subjects
from schemas.budget_events import BudgetExceeded
from schemas.config import BusConfig
from schemas.event import type_of
from schemas.events import decode_event
from tests.flow.gateway import KEY, Gateway, basic, refusal, running_gateway, until

RATED_KEY = "key-with-rates-0123456789"
SETTINGS = """
keys:
  rated: {key: "${TEST_RATED_KEY}", project: shop, limits: {requests_per_hour: 50}}
budgets:
  - {scope: project, id: shop, period: day, limit_usd: 0.001}
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_RATED_KEY", RATED_KEY)
        with running_gateway(tmp_path_factory.mktemp("refused-calls"), SETTINGS) as gateway:
            yield gateway


def metric(gateway: Gateway, name: str) -> float:
    lines = gateway.client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.split(" ")[0] == name)


async def refusals(gateway: Gateway) -> list[BudgetExceeded]:
    connection = await Connection.connect(BusConfig(url=gateway.bus), name="test")
    subject = subjects.ledger("ingress", "shop", type_of(BudgetExceeded))
    try:
        stored = await read_subject(connection, subjects.LEDGER, subject)
    finally:
        await connection.close()
    events = [decode_event(record.data) for record in stored]
    return [event for event in events if isinstance(event, BudgetExceeded)]


def test_each_refused_call_is_counted_shows_its_rates_and_is_explained(gateway: Gateway) -> None:
    rated = {"authorization": f"Bearer {RATED_KEY}"}
    answers = [gateway.post(json=basic(max_tokens=500), headers=rated) for _ in range(3)]
    for left, answer in zip((49, 48, 47), answers, strict=True):
        error = refusal(answer, 429, "rate_limit_error", "budget_exceeded")
        assert error["message"].endswith("send less, or set a lower 'max_tokens'.")
        assert answer.headers["x-ratelimit-limit-requests"] == "50"
        assert answer.headers["x-ratelimit-remaining-requests"] == str(left)
        assert int(answer.headers["x-ratelimit-reset-requests"]) > 0
        assert answer.headers["x-should-retry"] == "false"
    until(lambda: metric(gateway, "titan_budget_exceeded_total") == 3)
    told = asyncio.run(refusals(gateway))
    ids = [answer.headers["x-request-id"].removeprefix("req_") for answer in answers]
    named = [name for event in told for name in (*event.earlier, event.call_id)]
    assert named == ids
    assert sum(event.refused for event in told) == 3


def test_a_key_without_rates_gets_no_headers_of_any_with_its_refusal(gateway: Gateway) -> None:
    budget: dict[str, Any] = {"project_id": "shop"}
    own = {"authorization": f"Bearer {KEY}"}
    answer = gateway.post(json=basic(max_tokens=500, budget=budget), headers=own)
    refusal(answer, 429, "rate_limit_error", "budget_exceeded")
    assert not [name for name in answer.headers if name.startswith("x-ratelimit")]
