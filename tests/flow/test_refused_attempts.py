"""A further attempt that no budget pays for, told as a call that an ingress refuses: by the real
governor, and by a worker that may write only what is its own."""

import asyncio
import json
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
from schemas.money import usd
from tests.flow.gateway import Gateway, basic, refusal, running_gateway, until
from tests.upstream import CUT, Reply

LIMIT_USD = 0.002
SETTINGS = f"""
budgets:
  - {{scope: project, id: shop, period: total, limit_usd: {LIMIT_USD}}}
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("refused-attempts"), SETTINGS) as gateway:
        yield gateway


def test_the_ledger_and_the_log_hear_of_a_further_attempt_that_no_budget_pays_for(
    gateway: Gateway,
) -> None:
    gateway.up.script(Reply(before=(CUT,)))
    answer = gateway.post(
        json=basic(max_tokens=100, budget={"project_id": "shop", "user_id": "ana"})
    )
    refusal(answer, 429, "rate_limit_error", "budget_exceeded")
    assert answer.headers["x-should-retry"] == "false"
    assert len(gateway.up.requests) == 1
    call_id = answer.headers["x-request-id"].removeprefix("req_")

    found: list[BudgetExceeded] = []
    until(lambda: found.extend(asyncio.run(refusals_by_workers(gateway))) or found)
    (event,) = found
    assert (event.call_id, event.model) == (call_id, "up-model")
    assert (event.project, event.user) == ("shop", "ana")
    assert event.budget == "project:shop:total" and event.account == "project:shop:total@all.0"
    assert (usd(event.limit_nano), event.spent_nano, event.refused) == (LIMIT_USD, 0, 1)
    assert event.held_nano == event.needed_nano
    assert event.held_nano + event.needed_nano > event.limit_nano

    (line,) = [line for line in logged(gateway) if line["message"].startswith("further attempt")]
    assert (line["call_id"], line["scope"]) == (call_id, "project:shop:total")
    assert (line["limit"], line["value"]) == (LIMIT_USD, usd(event.held_nano))


async def refusals_by_workers(gateway: Gateway) -> list[BudgetExceeded]:
    connection = await Connection.connect(BusConfig(url=gateway.bus), name="test")
    subject = subjects.ledger("worker", "shop", type_of(BudgetExceeded))
    try:
        stored = await read_subject(connection, subjects.LEDGER, subject)
    finally:
        await connection.close()
    events = [decode_event(record.data) for record in stored]
    return [event for event in events if isinstance(event, BudgetExceeded)]


def logged(gateway: Gateway) -> list[dict[str, Any]]:
    lines = [line for line in gateway.log.read_text().splitlines() if line.startswith("{")]
    return [json.loads(line) for line in lines]
