"""What Cohere answers to a chat: text, thoughts, tools, citations, what it charges, and errors."""

import json
from pathlib import Path
from typing import Any

import pytest

from schemas.config import ProviderConfig
from schemas.ids import Clock
from schemas.usage import Cost, Price, Rates, Usage, cost_of
from tests.contract.cohere_stage import KEY, START, CohereStage, chat_answer, end, piece, text
from tests.contract.provider_contract import (
    Scene,
    ask_of,
    both,
    outcome,
    read,
)
from tests.upstream import Reply, Upstream, event_stream, json_reply
from workers.http import Http
from workers.providers import make
from workers.providers.base import Provider

FIXTURES = Path(__file__).parents[1] / "fixtures" / "cohere"
# cohere.com/pricing: Command R, 0.15 dollars per million tokens in, 0.60 out.
COMMAND_R = Price("command-r-08-2024", Rates(input=150_000_000, output=600_000_000))
# The one model with a price for what comes from the cache, as openrouter.ai lists it: Command A+,
# 0.30 dollars per million tokens in, 0.15 from the cache, 1.50 out.
COMMAND_A_PLUS = Price(
    "command-a-plus", Rates(input=300_000_000, cached_input=150_000_000, output=1_500_000_000)
)


@pytest.fixture
def provider(upstream: Upstream, http: Http) -> Provider:
    """The cohere adapter, at the scripted server."""
    config = ProviderConfig(
        dialect="cohere", base_url=upstream.url, api_key=KEY, headers={"X-Org": "ours"}
    )
    return make("cohere", config, http, Clock())


def replayed(name: str) -> Reply:
    """A recorded answer."""
    recorded = (FIXTURES / name).read_bytes()
    return event_stream(recorded) if name.endswith(".sse") else json_reply(recorded)


async def message_of(provider: Provider, upstream: Upstream, name: str) -> dict[str, Any]:
    upstream.script(replayed(name))
    choice: dict[str, Any] = json.loads((await provider.complete(ask_of())).body)["choices"][0]
    return choice


async def test_a_documented_answer(provider: Provider, upstream: Upstream) -> None:
    upstream.script(replayed("chat.json"))
    answer = await provider.complete(ask_of())
    assert json.loads(answer.body)["choices"] == [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "LLMs stand for Large Language Models, which are a type of neural "
                "network model specialized in processing and generating human language.",
            },
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert answer.usage == Usage(input=5, output=418, status="reported")


async def test_thoughts_are_reasoning(provider: Provider, upstream: Upstream) -> None:
    choice = await message_of(provider, upstream, "thinking.json")
    assert choice["message"]["content"] == "Alice's brother has **3** sisters."
    assert choice["message"]["reasoning_content"].startswith("Okay, let's see.")


async def test_a_documented_call_of_two_tools(provider: Provider, upstream: Upstream) -> None:
    choice = await message_of(provider, upstream, "tools.json")
    message = choice["message"]
    assert choice["finish_reason"] == "tool_calls" and message["content"] is None
    assert message["reasoning_content"].startswith("I will search")
    assert message["tool_calls"] == [
        {
            "id": f"get_weather_{mark}",
            "type": "function",
            "function": {"name": "get_weather", "arguments": f'{{"location":"{city}"}}'},
        }
        for mark, city in (("1byjy32y4hvq", "Madrid"), ("15c2p6g19s8f", "Brasilia"))
    ]


async def test_a_documented_stream(provider: Provider, upstream: Upstream) -> None:
    upstream.script(replayed("chat.sse"))
    told = await read(provider, ask_of(stream=True))
    assert told.text() == "A large language model (LLM) is a type of artificial neural network."
    assert told.end is not None
    assert told.end.usage == Usage(input=5, output=15, status="reported")


async def test_a_documented_stream_of_two_tool_calls(
    provider: Provider, upstream: Upstream
) -> None:
    upstream.script(replayed("tools.sse"))
    told = await read(provider, ask_of(stream=True))
    assert told.end is not None and told.end.finish_reason == "tool_calls"
    deltas = [chunk["choices"][0]["delta"] for chunk in told.chunks]
    plan = "".join(delta.get("reasoning_content", "") for delta in deltas)
    assert plan == "I will use the get_weather tool to find the weather in Madrid and Brasilia."
    pieces = [call for delta in deltas for call in delta.get("tool_calls", ())]
    arguments = ["", ""]
    for call in pieces:
        arguments[call["index"]] += call["function"]["arguments"]
    assert arguments == ['{"location":"Madrid"}', '{"location":"Brasilia"}']
    assert [call["id"] for call in pieces if "id" in call] == [
        "get_weather_15c2p6g19s8f",
        "get_weather_n01pkywy0p2w",
    ]


async def test_citations_are_handed_on(provider: Provider, upstream: Upstream) -> None:
    upstream.script(replayed("citations.sse"))
    told = await read(provider, ask_of(stream=True))
    cited = [
        one for chunk in told.chunks for one in chunk["choices"][0]["delta"].get("citations", ())
    ]
    assert [(one["start"], one["end"], one["text"]) for one in cited] == [
        (6, 10, "24°C"),
        (25, 29, "28°C"),
    ]
    assert cited[0]["sources"][0]["tool_output"] == {"temperature": "24°C"}
    answer = chat_answer({"type": "text", "text": "x"})
    answer["message"]["citations"] = cited
    upstream.script(json_reply(answer))
    whole = json.loads((await provider.complete(ask_of())).body)
    assert whole["choices"][0]["message"]["citations"] == cited


@both
async def test_logprobs_are_told_by_pieces_of_text(
    provider: Provider, upstream: Upstream, stream: bool
) -> None:
    CohereStage(provider, upstream).play(Scene(chunks=2, logprobs=True))
    if stream:
        told = await read(provider, ask_of(stream=True, logprobs=True))
        content = [
            one
            for chunk in told.chunks
            for one in (chunk["choices"][0].get("logprobs") or {"content": ()})["content"]
        ]
    else:
        whole = json.loads((await provider.complete(ask_of(logprobs=True))).body)
        content = whole["choices"][0]["logprobs"]["content"]
    assert content == [
        {
            "token": said,
            "logprob": -0.75,
            "bytes": list(said.encode()),
            "top_logprobs": [],
        }
        for said in ("wörd0 ", "wörd1 ")
    ]


@both
async def test_thinking_comes_before_the_answer(
    provider: Provider, upstream: Upstream, stream: bool
) -> None:
    CohereStage(provider, upstream).play(Scene(chunks=2, thinks="Hm, wörds."))
    if stream:
        told = await read(provider, ask_of(stream=True))
        assert told.chunks[0]["choices"][0]["delta"] == {
            "role": "assistant",
            "reasoning_content": "Hm, wörds.",
        }
        assert told.text() == "wörd0 wörd1 "
        assert sum(deltas.text_bytes for deltas in told.deltas) == len("Hm, wörds.wörd0 wörd1 ") + 3
    else:
        message = json.loads((await provider.complete(ask_of())).body)["choices"][0]["message"]
        assert message["reasoning_content"] == "Hm, wörds."


@both
@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("COMPLETE", "stop"),
        ("STOP_SEQUENCE", "stop"),
        ("MAX_TOKENS", "length"),
        ("TOOL_CALL", "tool_calls"),
        ("SOMETHING_NEW", "stop"),
    ],
)
async def test_how_an_answer_ended(
    provider: Provider, upstream: Upstream, stream: bool, said: str, reason: str
) -> None:
    if stream:
        upstream.script(event_stream(START, text("x"), end(said)))
        told = await read(provider, ask_of(stream=True))
        assert told.finish_reasons() == {0: reason}
    else:
        upstream.script(json_reply(chat_answer({"type": "text", "text": "x"}, finish_reason=said)))
        assert (await provider.complete(ask_of())).finish_reason == reason


@both
@pytest.mark.parametrize(
    ("said", "error", "status", "code"),
    [
        ("ERROR", None, 502, None),
        ("ERROR", "the model fell over", 502, None),
        ("TIMEOUT", None, 504, "timeout"),
    ],
)
async def test_an_answer_that_ended_badly_is_a_failure_that_may_have_cost(
    provider: Provider,
    upstream: Upstream,
    stream: bool,
    said: str,
    error: str | None,
    status: int,
    code: str | None,
) -> None:
    if stream:
        upstream.script(event_stream(START, text("x"), end(said, error=error)))
    else:
        upstream.script(json_reply(chat_answer({"type": "text", "text": "x"}, finish_reason=said)))
    failure = await outcome(provider, ask_of(stream=stream))
    assert (failure.info.status, failure.info.code) == (status, code)
    assert not failure.cost_known and failure.reached
    assert failure.retryable is not stream
    if stream and error:
        assert error in failure.info.message


@pytest.mark.parametrize(
    ("reported", "usage", "cost"),
    [
        (
            {
                "billed_units": {"input_tokens": 1000, "output_tokens": 200},
                "tokens": {"input_tokens": 1500, "output_tokens": 210},
            },
            Usage(input=1000, output=200, status="reported"),
            Cost(input=300_000, output=300_000),
        ),
        (
            {
                "billed_units": {"input_tokens": 1000.0, "output_tokens": 200.0},
                "tokens": {"input_tokens": 1500, "output_tokens": 210},
                "cached_tokens": 900,
            },
            Usage(input=600, cached_input=400, output=200, status="reported"),
            Cost(input=240_000, output=300_000, cache_savings=60_000),
        ),
        (
            {
                "billed_units": {"input_tokens": 5, "output_tokens": 1},
                "tokens": {"input_tokens": 1221, "output_tokens": 1},
                "cached_tokens": 1216,
            },
            Usage(input=5, output=1, status="reported"),
            Cost(input=1_500, output=1_500),
        ),
        (
            {"tokens": {"input_tokens": 1500, "output_tokens": 210}},
            Usage(input=1500, output=210, status="reported"),
            Cost(input=450_000, output=315_000),
        ),
        (
            {"billed_units": {"input_tokens": 10, "output_tokens": 2}, "cached_tokens": 99},
            Usage(cached_input=10, output=2, status="reported"),
            Cost(input=1_500, output=3_000, cache_savings=1_500),
        ),
    ],
    ids=["billed", "cached", "template cached", "no units", "no tokens"],
)
@both
async def test_money_follows_the_billed_units(
    provider: Provider,
    upstream: Upstream,
    stream: bool,
    reported: dict[str, Any],
    usage: Usage,
    cost: Cost,
) -> None:
    if stream:
        upstream.script(event_stream(START, text("x"), end(usage=reported)))
        told = await read(provider, ask_of(stream=True))
        assert told.end is not None
        counted = told.end.usage
    else:
        upstream.script(json_reply(chat_answer({"type": "text", "text": "x"}, usage=reported)))
        counted = (await provider.complete(ask_of())).usage
    assert counted == usage
    assert cost_of(counted, COMMAND_A_PLUS) == cost


async def test_the_documented_difference_of_tokens_and_billed_tokens(
    provider: Provider, upstream: Upstream
) -> None:
    """The example of docs.cohere.com/v2/docs/how-does-cohere-pricing-work."""
    reported = {
        "billed_units": {"input_tokens": 6772, "output_tokens": 248},
        "tokens": {"input_tokens": 7596, "output_tokens": 645},
    }
    upstream.script(json_reply(chat_answer({"type": "text", "text": "x"}, usage=reported)))
    usage = (await provider.complete(ask_of())).usage
    assert cost_of(usage, COMMAND_R) == Cost(input=1_015_800, output=148_800)


@pytest.mark.parametrize(
    "reported",
    [
        {},
        5,
        {"billed_units": {"input_tokens": -1, "output_tokens": 2}},
        {"billed_units": {"input_tokens": 1.5, "output_tokens": 2}},
        {"billed_units": {"input_tokens": "many", "output_tokens": 2}},
        {"billed_units": {"input_tokens": 1e30, "output_tokens": 2}},
        {"billed_units": {"search_units": 1}},
    ],
)
async def test_usage_that_makes_no_sense_is_unknown_and_not_zero(
    provider: Provider, upstream: Upstream, reported: Any
) -> None:
    upstream.script(json_reply(chat_answer({"type": "text", "text": "x"}, usage=reported)))
    assert (await provider.complete(ask_of())).usage == Usage()


@both
@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
async def test_what_cohere_says_about_an_error_is_told_without_its_key(
    provider: Provider, upstream: Upstream, stream: bool, status: int
) -> None:
    message = f"invalid request: no such thing; key {KEY}"
    upstream.script(json_reply({"message": message, "id": "7a2e7a4c"}, status))
    failure = await outcome(provider, ask_of(stream=stream))
    assert KEY not in failure.info.message
    if status not in (401, 403):
        assert "no such thing" in failure.info.message


@both
@pytest.mark.parametrize(
    "reply",
    [
        Reply(headers={"Content-Type": "text/html"}, steps=(b"<html>Sign in</html>",)),
        json_reply(b"nonsense"),
        json_reply([]),
        json_reply({}),
        json_reply({"message": {"content": 5}, "finish_reason": "COMPLETE"}),
        json_reply({"message": {"content": [{"type": "text", "text": 5}]}}),
        json_reply({"message": "no credits", "id": "x"}),
        json_reply({"error": {"message": "no credits", "code": 402}}),
        json_reply(b'{"message": {"citations": ["\xff"]}, "finish_reason": "COMPLETE"}'),
        json_reply(b'{"message": {"citations": ' + b"[" * 5000 + b"]" * 5000 + b"}}"),
        Reply(status=302, headers={"Location": "http://127.0.0.1:1/"}),
        Reply(status=204),
    ],
)
async def test_an_answer_that_is_none_is_a_provider_error(
    provider: Provider, upstream: Upstream, reply: Reply, stream: bool
) -> None:
    upstream.script(reply)
    failure = await outcome(provider, ask_of(stream=stream))
    assert (failure.info.status, failure.info.type) == (502, "provider_error")
    assert "<" not in failure.info.message
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    "broken",
    [
        b"data: nonsense\n\n",
        b"data: []\n\n",
        b'data: {"type": "content-delta"}\n\n',
        b'data: {"type": "message-end", "delta": 5}\n\n',
        piece("tool-call-delta", {"tool_calls": {"function": {"arguments": "x"}}}),
        b'event: error\ndata: {"message": "too many tokens", "id": "x"}\n\n',
        b"data: [DONE]\n\n",
    ],
)
async def test_a_stream_that_breaks_is_a_provider_error_after_what_was_said(
    provider: Provider, upstream: Upstream, broken: bytes
) -> None:
    upstream.script(event_stream(START, text("so far"), broken))
    told = await read(provider, ask_of(stream=True))
    assert told.failure is not None and told.end is None
    assert told.failure.info.status == 502 and not told.failure.retryable
    assert told.text() == "so far"
    if b"too many" in broken:
        assert "too many tokens" in told.failure.info.message
