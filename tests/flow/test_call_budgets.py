"""The `budget` of a request: refused before it costs, limited upstream, narrowed, marked up."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from ledger.connection import Connection
from ledger.reader import read_subject
from schemas import subjects
from schemas.config import BusConfig
from schemas.events import LedgerEvent, Outcome, RequestStart, decode_event
from schemas.money import usd
from tests.flow.gateway import ADMIN, KEY, Gateway, basic, refusal, running_gateway, told, until
from tests.ledger_facts import ends
from tests.upstream import chat_answer, chat_stream, json_reply

BOUND_KEY = "key-of-the-shop-0123456789"
SETTINGS = """
  limited: {provider: up, engine: engine-1, input_cost: 0.0000025, output_cost: 0.00001,
            max_tokens: 700}
  thinking: {provider: up, engine: o3-pro, input_cost: 0.0000025, output_cost: 0.00001,
             max_tokens: 700}
  unpriced: {provider: up, engine: nobody-knows-this}
pricing: {markup_percent: 10, unknown: refuse}
keys:
  bound: {key: "${TEST_SHOP_KEY}", project: shop, user: ana}
projects:
  shop: {team: sales}
  small: {allowed_models: [up-model]}
"""
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_SHOP_KEY", BOUND_KEY)
        with running_gateway(tmp_path_factory.mktemp("call-budgets"), SETTINGS) as gateway:
            yield gateway


def play(gateway: Gateway, stream: bool = False) -> None:
    """The provider answers the next call: 7 tokens in, 2 out where it streams."""
    gateway.up.script(chat_stream("Hel", "lo") if stream else json_reply(chat_answer("Hello")))


def ask(gateway: Gateway, key: str = KEY, **fields: Any) -> httpx.Response:
    """One call to the scripted provider."""
    return gateway.post(json=basic(**fields), headers={"authorization": f"Bearer {key}"})


def call_id_of(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    return response.headers["x-request-id"].removeprefix("req_")


def facts(gateway: Gateway, call_id: str) -> list[LedgerEvent]:
    """The ledger of one call, once it has its end."""
    found: list[LedgerEvent] = []

    def ended() -> bool:
        found[:] = [one for one in asyncio.run(ledger(gateway)) if one.call_id == call_id]
        return bool(ends(found))

    until(ended)
    return found


async def ledger(gateway: Gateway) -> list[LedgerEvent]:
    connection = await Connection.connect(BusConfig(url=gateway.bus), name="test")
    try:
        stored = await read_subject(connection, subjects.LEDGER, subjects.LEDGER_SUBJECTS)
    finally:
        await connection.close()
    return [event for record in stored if (event := decode_event(record.data)) is not None]


@both
def test_a_call_that_may_cost_more_than_max_cost_is_refused_before_anybody_is_asked(
    gateway: Gateway, stream: bool
) -> None:
    play(gateway, stream)
    answer = ask(gateway, stream=stream, max_tokens=1000, budget={"max_cost": 0.001})
    error = refusal(answer, 400, "invalid_request_error", "max_cost_exceeded")
    assert error["param"] == "budget.max_cost"
    assert "0.001 USD" in error["message"] and "0.0114" in error["message"]
    assert gateway.up.requests == []


def test_a_call_within_its_max_cost_runs_and_the_provider_sees_no_budget(
    gateway: Gateway,
) -> None:
    play(gateway)
    answer = ask(gateway, max_tokens=50, budget={"max_cost": 0.01})
    assert answer.status_code == 200, answer.text
    assert gateway.up.request.json == {**basic(max_tokens=50), "model": "engine-1"}
    assert answer.json()["cost"]["total_cost"] <= 0.01
    (end,) = ends(facts(gateway, call_id_of(answer)))
    # What ingresses learn from: one message with two bytes of text.
    assert end.prompt_estimate == 5


@both
def test_an_answer_without_a_limit_gets_the_models_own_where_its_cost_is_limited(
    gateway: Gateway, stream: bool
) -> None:
    play(gateway, stream)
    answer = ask(gateway, model="limited", stream=stream, budget={"max_cost": 1})
    assert answer.status_code == 200, answer.text
    arrived = gateway.up.request.json
    assert arrived["max_tokens"] == 700 and "max_completion_tokens" not in arrived


def test_a_model_that_thinks_gets_its_limit_under_the_name_it_knows(gateway: Gateway) -> None:
    play(gateway)
    answer = ask(gateway, model="thinking", budget={"max_cost": 1}, max_tokens=None)
    assert answer.status_code == 200, answer.text
    arrived = gateway.up.request.json
    assert arrived["max_completion_tokens"] == 700 and "max_tokens" not in arrived


def test_a_small_max_cost_shortens_the_answer_instead_of_refusing_the_call(
    gateway: Gateway,
) -> None:
    play(gateway)
    assert ask(gateway, budget={"max_cost": 0.005}).status_code == 200
    assert 64 <= gateway.up.request.json["max_tokens"] <= 500
    play(gateway)
    refusal(
        ask(gateway, budget={"max_cost": 0.000001}),
        400,
        "invalid_request_error",
        "max_cost_exceeded",
    )
    assert gateway.up.requests == []


@pytest.mark.parametrize("budget", [None, {}, {"tracking_id": "t"}, {"cost_alert_threshold": 1}])
def test_nothing_is_added_to_a_call_whose_cost_is_not_limited(
    gateway: Gateway, budget: Any
) -> None:
    play(gateway)
    assert ask(gateway, model="limited", budget=budget).status_code == 200
    assert gateway.up.request.json == {**basic(), "model": "engine-1"}


@pytest.mark.parametrize(
    ("budget", "param"),
    [
        ({"max_cost": -0.1}, "budget.max_cost"),
        ({"max_cost": "1"}, "budget.max_cost"),
        ({"max_price": 1}, "budget.max_price"),
        ({"project_id": "a\nb"}, "budget.project_id"),
        ({"user_id": "u" * 200}, "budget.user_id"),
        ([1], "budget"),
    ],
)
def test_a_budget_that_says_nothing_clear_is_refused(
    gateway: Gateway, budget: Any, param: str
) -> None:
    play(gateway)
    error = refusal(ask(gateway, budget=budget), 400, "invalid_request_error", "invalid_value")
    assert error["param"] == param
    assert gateway.up.requests == []


def test_a_limited_call_to_a_model_of_unknown_price_is_refused(gateway: Gateway) -> None:
    play(gateway)
    answer = ask(gateway, model="unpriced", budget={"max_cost": 1})
    error = refusal(answer, 400, "invalid_request_error", "price_unknown")
    assert error["param"] == "model" and gateway.up.requests == []
    assert ask(gateway, model="unpriced").status_code == 200


@both
def test_the_markup_is_in_the_answers_cost_and_in_the_ledger(
    gateway: Gateway, stream: bool
) -> None:
    play(gateway, stream)
    answer = ask(gateway, stream=stream)
    shown = told(answer)[-1] if stream else answer.json()
    (end,) = ends(facts(gateway, call_id_of(answer)))
    assert isinstance(end, Outcome) and end.usage is not None
    # Nano-dollars per token of `up-model`, and a tenth more.
    assert end.input_cost_nano == end.usage.prompt * 2750
    assert end.output_cost_nano == end.usage.completion * 11_000
    assert end.price_id.startswith("config/up-model/") and end.price_id.endswith("+10%")
    assert shown["cost"]["total_cost"] == usd(end.cost_nano or 0)


def test_the_list_of_models_shows_marked_up_prices(gateway: Gateway) -> None:
    row = gateway.client.get(
        "/v1/models/up-model", headers={"authorization": f"Bearer {KEY}"}
    ).json()
    assert row["capabilities"]["cost_per_1k_input_tokens"] == pytest.approx(0.00275)


def test_a_bound_key_may_name_only_its_own_project_and_user(gateway: Gateway) -> None:
    for budget, code in (
        ({"project_id": "small"}, "foreign_project"),
        ({"user_id": "bob"}, "foreign_user"),
    ):
        play(gateway)
        answer = ask(gateway, BOUND_KEY, budget=budget)
        error = refusal(answer, 403, "permission_error", code)
        assert error["param"] == f"budget.{next(iter(budget))}"
        assert gateway.up.requests == []
    play(gateway)
    answer = ask(gateway, BOUND_KEY, budget={"project_id": "shop", "user_id": "ana"}, user="eve")
    for event in facts(gateway, call_id_of(answer)):
        assert (event.project, event.user) == ("shop", "ana")


def test_an_unbound_key_names_project_user_and_tracking_id_in_every_event(
    gateway: Gateway,
) -> None:
    play(gateway)
    budget = {
        "project_id": "shop",
        "user_id": "bob",
        "tracking_id": "order 17",
        "cost_alert_threshold": 0.25,
    }
    events = facts(gateway, call_id_of(ask(gateway, budget=budget)))
    assert len(events) >= 2
    for event in events:
        assert (event.project, event.team, event.user) == ("shop", "sales", "bob")
    (start,) = [event for event in events if isinstance(event, RequestStart)]
    assert (start.tracking_id, start.alert_nano) == ("order 17", 250_000_000)


def test_openais_user_names_the_user_where_nothing_else_does(gateway: Gateway) -> None:
    play(gateway)
    answer = ask(gateway, user="end-user-1")
    assert {event.user for event in facts(gateway, call_id_of(answer))} == {"end-user-1"}
    assert gateway.up.request.json["user"] == "end-user-1"
    play(gateway)
    answer = ask(gateway, user="x" * 5000)
    (user,) = {event.user for event in facts(gateway, call_id_of(answer))}
    assert user.startswith("sha256-") and len(user) == 71


def test_the_rules_of_a_named_project_hold(gateway: Gateway) -> None:
    play(gateway)
    answer = ask(gateway, model="limited", budget={"project_id": "small"})
    refusal(answer, 403, "permission_error", "model_not_allowed")
    assert ask(gateway, budget={"project_id": "small"}).status_code == 200


def test_the_administrator_may_name_any_project(gateway: Gateway) -> None:
    play(gateway)
    answer = ask(gateway, ADMIN, budget={"project_id": "anything at all"})
    assert {one.project for one in facts(gateway, call_id_of(answer))} == {"anything at all"}
