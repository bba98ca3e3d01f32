"""What Nexus adds to an answer: which extensions, usage, cost and what a cache saved."""

from typing import Any

import pytest

from tests.flow.chat.playing import both, play
from tests.flow.gateway import Gateway, basic, message, told
from tests.upstream import DONE, chat_answer, chat_chunk, event, event_stream, json_reply, usage


@both
@pytest.mark.parametrize(
    ("switches", "shown"),
    [
        (None, {"usage", "cost", "latency"}),
        ({}, {"usage", "cost", "latency"}),
        ({"include_usage": False}, {"cost", "latency"}),
        ({"include_cost": False}, {"usage", "latency"}),
        ({"include_latency": False}, {"usage", "cost"}),
        ({"include_model_info": True}, {"usage", "cost", "latency", "model_info"}),
        ({"include_usage": False, "include_cost": False, "include_latency": False}, set()),
    ],
)
def test_the_client_chooses_the_extensions(
    gateway: Gateway, switches: Any, shown: set[str], stream: bool
) -> None:
    play(gateway, stream, "Hello")
    response = gateway.post(json=basic(stream=stream, response=switches))
    answer = told(response)[-1] if stream else response.json()
    extensions = {"usage", "cost", "latency", "model_info", "routing"}
    assert answer.keys() & extensions == shown
    if "model_info" in shown:
        assert answer["model_info"] == {"provider": "up", "engine": "engine-1"}


def test_a_plain_client_finds_what_openai_would_send(gateway: Gateway) -> None:
    play(gateway, True, "Hel", "lo")
    chunks = told(gateway.post(json=basic(stream=True)))
    plain = {"id", "object", "created", "model", "choices", "provider"}
    assert [chunk.keys() for chunk in chunks[:-1]] == [plain, plain]
    assert chunks[-1].keys() == plain | {"usage", "cost", "latency"}
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_usage_comes_in_a_chunk_of_its_own_only_when_asked_for(gateway: Gateway) -> None:
    play(gateway, True, "Hel", "lo")
    chunks = told(gateway.post(json=basic(stream=True, stream_options={"include_usage": True})))
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == usage(7, 2)
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["id"] == chunks[-2]["id"]


@both
def test_the_cost_is_exactly_usage_times_price(gateway: Gateway, stream: bool) -> None:
    reported = usage(1234, 567)
    sent = [chat_chunk("Hi"), chat_chunk({}, finish_reason="stop")]
    sent += [chat_chunk({}, choices=[], usage=reported)]
    whole = json_reply(chat_answer(usage=reported))
    gateway.up.script(event_stream(*map(event, sent), DONE) if stream else whole)
    response = gateway.post(json=basic(stream=stream))
    answer = told(response)[-1] if stream else response.json()
    assert answer["usage"] == reported
    # 1234 x 0.0000025 USD, 567 x 0.00001 USD; 0.008755 USD for 1801 tokens.
    assert answer["cost"] == {
        "input_cost": 0.003085,
        "output_cost": 0.00567,
        "total_cost": 0.008755,
        "cost_per_1k_tokens": 0.004861188,
        "currency": "USD",
    }


@both
def test_tokens_from_the_providers_cache_are_told_and_saved(gateway: Gateway, stream: bool) -> None:
    details = {"prompt_tokens_details": {"cached_tokens": 800, "audio_tokens": 0}}
    reported = usage(1000, 100, **details)
    sent = [chat_chunk("Hi"), chat_chunk({}, finish_reason="stop")]
    sent += [chat_chunk({}, choices=[], usage=reported)]
    whole = json_reply(chat_answer(usage=reported))
    gateway.up.script(event_stream(*map(event, sent), DONE) if stream else whole)
    # At the built-in price of gpt-4o: 2.50 USD per million in, 1.25 cached, 10 out.
    response = gateway.post(json={**basic(stream=stream), "model": "gpt-4o"})
    answer = told(response)[-1] if stream else response.json()
    assert answer["usage"] == {**reported, "cache_hit_tokens": 800}
    assert answer["cost"]["input_cost"] == 0.0015
    assert answer["cost"]["total_cost"] == 0.0025
    assert answer["cost"]["cache_savings"] == 0.001


def test_details_of_usage_survive_in_a_stream(gateway: Gateway) -> None:
    details = {"completion_tokens_details": {"reasoning_tokens": 20, "audio_tokens": 0}}
    sent = [chat_chunk("Hi"), chat_chunk({}, finish_reason="stop")]
    sent += [chat_chunk({}, choices=[], usage=usage(10, 30, **details))]
    gateway.up.script(event_stream(*map(event, sent), DONE))
    chunks = told(gateway.post(json=basic(stream=True, stream_options={"include_usage": True})))
    assert chunks[-1]["usage"] == chunks[-2]["usage"] == usage(10, 30, **details)


def test_an_unknown_price_is_null_and_not_zero(gateway: Gateway) -> None:
    play(gateway, False, "Hello")
    answer = gateway.post(json={**basic(), "model": "up/other"}).json()
    costs = {"input_cost": None, "output_cost": None, "total_cost": None, "currency": "USD"}
    assert answer["cost"] == costs


@both
def test_usage_is_estimated_where_the_provider_reports_none(gateway: Gateway, stream: bool) -> None:
    sent = [chat_chunk("Hello "), chat_chunk("there!"), chat_chunk({}, finish_reason="stop")]
    whole = json_reply(chat_answer("Hello there!", usage=None))
    gateway.up.script(event_stream(*map(event, sent), DONE) if stream else whole)
    response = gateway.post(json=basic(stream=stream, messages=[message("Hi, you there")]))
    answer = told(response)[-1] if stream else response.json()
    # Four bytes a token: 13 bytes went in, 12 came out.
    assert answer["usage"] == usage(4, 3)
    assert answer["cost"]["total_cost"] == 0.00004
