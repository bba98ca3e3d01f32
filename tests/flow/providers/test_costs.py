"""What calls cost: the price book times llmock's own meter, in the answer and in the ledger."""

import asyncio
from typing import Any

import pytest
from openai import OpenAI

from ledger.connection import Connection
from ledger.reader import read_subject
from schemas import subjects
from schemas.catalog import Catalog
from schemas.config import BusConfig
from schemas.events import LedgerEvent, Terminal, decode_event
from schemas.usage import Price, Rates, Usage, cost_of
from tests.flow.gateway import Gateway, until
from tests.flow.providers.dialects import (
    CITIES,
    DIALECTS,
    WEATHER,
    WITH_TOOLS,
    Counted,
    Dialect,
    ask,
    counted,
    everywhere,
)
from tests.ledger_facts import ends
from tests.llmock_server import LLMock

QUESTION = "How much is it to ask for the weather of " + ", ".join(["Reykjavik"] * 40) + "?"
# As conftest.py has it: USD 1 and 2 per million tokens. Nobody's price list has Jamba.
CONFIGURED = Rates(input=1_000_000_000, output=2_000_000_000)
UNKNOWN = "ai21"


def price_of(dialect: Dialect) -> Price | None:
    if dialect.provider == "llmock":
        return Price(id="", rates=CONFIGURED)
    return Catalog.load().price(dialect.provider, dialect.engine)


def metered(llmock: LLMock) -> dict[str, Counted]:
    """What each provider says of the requests that arrived, asked once more without a gateway."""
    by_name = {dialect.known_as: dialect for dialect in DIALECTS}
    counts: dict[str, Counted] = {}
    for request in llmock.requests:
        dialect = by_name[request["provider"]]
        path = request["path"].replace(":streamGenerateContent", ":generateContent")
        body = {name: value for name, value in request["body"].items() if name != "stream"}
        answer = llmock.client.post(llmock.url + path, json=body).raise_for_status()
        counts[dialect.provider] = counted(dialect, answer.json())
    return counts


def ledger_of(gateway: Gateway, calls: set[str]) -> dict[str, Terminal]:
    """The ends of these calls, once all of them are there."""
    found: dict[str, Terminal] = {}

    def complete() -> bool:
        found.update({end.call_id: end for end in ends(asyncio.run(_events(gateway)))})
        return calls <= found.keys()

    until(complete)
    return found


async def _events(gateway: Gateway) -> list[LedgerEvent]:
    connection = await Connection.connect(BusConfig(url=gateway.bus), name="test")
    try:
        stored = await read_subject(connection, subjects.LEDGER, subjects.LEDGER_SUBJECTS)
    finally:
        await connection.close()
    decoded = [decode_event(record.data) for record in stored]
    return [event for event in decoded if event is not None]


@pytest.mark.parametrize("tools", [False, True], ids=["text", "tools"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_call_costs_what_the_price_book_asks_for_what_the_provider_counted(
    llmock: LLMock, gateway: Gateway, client: OpenAI, stream: bool, tools: bool
) -> None:
    among = WITH_TOOLS if tools else DIALECTS
    called = [{"name": "get_weather", "arguments": city} for city in CITIES]
    reply = {"tool_calls": called} if tools else {"text": "Nothing at all, " * 20}
    llmock.script({"type": "reply", **reply, "times": None})

    def paid(dialect: Dialect) -> Any:
        more: dict[str, Any] = {"tools": [WEATHER]} if tools else {}
        if not stream:
            return ask(client, dialect, QUESTION, **more)
        options = {"include_usage": True}
        chunks = list(ask(client, dialect, QUESTION, stream=True, stream_options=options, **more))
        assert chunks[-1].choices == []
        return next(chunk for chunk in reversed(chunks) if chunk.choices)

    answers = everywhere(paid, among)
    meter = metered(llmock)
    assert meter.keys() == answers.keys()
    ledger = ledger_of(gateway, {call_of(answer) for answer in answers.values()})
    for dialect in among:
        answer, end = answers[dialect.provider], ledger[call_of(answers[dialect.provider])]
        price, reported = price_of(dialect), dialect.counts_streams or not stream
        assert end.usage is not None
        assert end.usage_status == ("reported" if reported else "estimated"), dialect
        usage = end.usage
        if reported:
            count = meter[dialect.provider]
            assert (usage.prompt, usage.completion) == count, dialect
            assert usage == Usage(input=count.prompt, output=count.completion, status=usage.status)
        shown = answer.usage
        assert (shown.prompt_tokens, shown.completion_tokens) == (usage.prompt, usage.completion)
        if price is None:
            assert dialect.provider == UNKNOWN
            assert end.cost_nano is None and answer.cost["total_cost"] is None
            continue
        cost = cost_of(usage, price)
        assert cost.total > 0 and end.cost_nano == cost.total, dialect
        assert (end.input_cost_nano, end.output_cost_nano) == (cost.input, cost.output)
        assert end.price_id == price.id or dialect.provider == "llmock"
        assert round(answer.cost["total_cost"] * 1e9) == cost.total
        assert round(answer.cost["input_cost"] * 1e9) == cost.input


def call_of(answer: Any) -> str:
    call_id: str = answer.id.removeprefix("chatcmpl-")
    return call_id


def test_a_call_that_fails_is_in_the_ledger_and_costs_nothing(
    llmock: LLMock, gateway: Gateway, client: OpenAI
) -> None:
    llmock.script({"type": "fail", "status": 400, "times": None})

    def refused(dialect: Dialect) -> str:
        own = {"model": dialect.model, "messages": [{"role": "user", "content": "Hi"}]}
        response = gateway.post(json=own)
        assert response.status_code == 400
        return response.headers["x-request-id"].removeprefix("req_")

    calls = everywhere(refused)
    ledger = ledger_of(gateway, set(calls.values()))
    assert {name: ledger[call].cost_nano for name, call in calls.items()} == dict.fromkeys(calls, 0)
