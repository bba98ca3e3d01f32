"""Many calls with faults of their providers at random: nearly all are answered, and the ledger
agrees with the providers' books attempt by attempt.

No target is ever left alone here (`breaker`): what is proved is what retries and one fallback do.
Which calls fail is then a matter of the dice alone; with an open circuit it would be one of the
order in which calls end. NEXUS_TEST_CALLS says how many (200), NEXUS_TEST_SEED which dice.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import NamedTuple

import pytest

from ledger.budgets import messages
from ledger.budgets.messages import StateAsk
from ledger.connection import Connection
from schemas import subjects
from schemas.config import BusConfig
from schemas.events import LedgerEvent, Outcome, RequestComplete, Terminal
from tests.faults.random_faults import FREE, RandomFaults, What
from tests.faults.stage import ledger_of
from tests.flow.gateway import Gateway, running_gateway, told, until
from tests.leasing import plain
from tests.ledger_facts import cost, one_end
from tests.meter import words

CALLS = int(os.environ.get("NEXUS_TEST_CALLS", "200"))
SEED = int(os.environ.get("NEXUS_TEST_SEED", "7"))
RATE = 0.3
AT_ONCE = 24
ANSWERED = 0.999
TARGET = "input_cost: 0.000001, output_cost: 0.000002, timeout: 2"
CONFIG = f"""
  chat: {{provider: up, engine: first, {TARGET}, fallbacks: [chat-2]}}
  chat-2: {{provider: openai, engine: second, {TARGET}}}
budgets:
  - {{scope: project, id: shop, period: total, limit_usd: 100}}
breaker: {{max_failures: 0}}
"""


class Said(NamedTuple):
    """What a call got: its id, and its text unless it failed."""

    call_id: str
    text: str | None


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("many"), CONFIG) as gateway:
        yield gateway


@pytest.mark.timeout(600)
def test_nearly_all_are_answered_and_the_ledger_agrees_with_the_providers_books(
    gateway: Gateway,
) -> None:
    providers = RandomFaults(SEED, RATE)
    gateway.up.script(providers)
    prompts = [f"question {number}" for number in range(CALLS)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        said = dict(zip(prompts, pool.map(lambda one: _ask(gateway, one), prompts), strict=True))
    events = ledger_of(gateway, {one.call_id for one in said.values()})

    answered = [prompt for prompt in prompts if said[prompt].text is not None]
    assert all(said[prompt].text == "".join(words(prompt, 3)) for prompt in answered)
    assert len(answered) >= ANSWERED * CALLS
    assert len([event for event in events if isinstance(event, Terminal)]) == CALLS
    lost = sum(_check(providers, prompt, said[prompt], events) for prompt in prompts)

    books = list(chain.from_iterable(providers.books.values()))
    billed = sum(entry.nano for entry in books)
    assert cost(events) == billed - lost
    faults = Counter(entry.what for entry in books)
    assert set(faults) == set(What)
    print(f"\n{CALLS} calls, {len(answered)} answered, {len(books)} attempts: {dict(faults)}")
    print(f"billed {billed:,}, in the ledger {cost(events):,}, unknown there {lost:,} nano-dollars")
    _check_money(gateway, events)


def _ask(gateway: Gateway, prompt: str) -> Said:
    """Every other call is a stream."""
    stream = int(prompt.split()[1]) % 2 == 1
    response = gateway.ask(
        "chat", prompt, stream=stream, max_tokens=50, budget={"project_id": "shop"}
    )
    call_id = response.headers["x-request-id"].removeprefix("req_")
    if response.status_code != 200:
        assert response.json()["error"]["provider"] in ("up", "openai")
        return Said(call_id, None)
    if not stream:
        return Said(call_id, response.json()["choices"][0]["message"]["content"])
    chunks = told(response)
    if "error" in chunks[-1]:
        return Said(call_id, None)
    return Said(call_id, "".join(one["choices"][0]["delta"].get("content", "") for one in chunks))


def _check(providers: RandomFaults, prompt: str, said: Said, events: list[LedgerEvent]) -> int:
    """One call, attempt by attempt: what was answered cost what was billed, what was refused
    nothing, and what was lost is unknown. The result is what was billed for the last."""
    own = [event for event in events if event.call_id == said.call_id]
    end = one_end(own, said.call_id)
    assert isinstance(end, RequestComplete) is (said.text is not None)
    attempts = sorted((e for e in own if isinstance(e, Outcome)), key=lambda one: one.fence)
    lost = 0
    for attempt, entry in zip(attempts, providers.books[prompt], strict=True):
        if isinstance(attempt, RequestComplete):
            assert (entry.what, attempt.usage_status) == (What.GOOD, "reported")
            assert attempt.cost_nano == entry.nano
        elif entry.what in FREE:
            assert attempt.cost_nano == entry.nano == 0
        else:
            assert attempt.cost_nano is None, "what nobody knows is not zero"
            lost += entry.nano
    return lost


def _check_money(gateway: Gateway, events: list[LedgerEvent]) -> None:
    """Nothing is held for calls that ended, and once the ingress is gone nothing is leased; the
    governor has charged what the ledger adds up to."""
    (name,) = {one for event in events if isinstance(event, Outcome) for one in event.accounts}
    sums = plain(events)
    assert (sums.settled[name], sums.held(name)) == (cost(events), 0)
    gateway.children["ingress"].terminate()
    until(lambda: asyncio.run(_standing(gateway, name)) == (cost(events), 0))


async def _standing(gateway: Gateway, account: str) -> tuple[int, int]:
    """What the governor says is spent and held in an account."""
    connection = await Connection.connect(BusConfig(url=gateway.bus), name="test")
    try:
        question = messages.encode(StateAsk())
        answer = await connection.request(subjects.GOVERNOR_BUDGETS, question, timeout=5.0)
    finally:
        await connection.close()
    states = messages.decode_states(answer.data).budgets
    (state,) = (one for one in states if one.account == account)
    return state.spent_nano, state.held_nano
