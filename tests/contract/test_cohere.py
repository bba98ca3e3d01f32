"""The cohere adapter keeps the contract of providers, and translates what Cohere's API v2 knows."""

import base64
import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from schemas.config import ProviderConfig
from schemas.ids import Clock
from schemas.usage import Cost, Price, Rates, Usage, cost_of
from tests.contract.cohere_stage import KEY, START, CohereStage, chat_answer, end, piece, text
from tests.contract.provider_contract import (
    CLIENT_KEY,
    ProviderContract,
    Scene,
    Stage,
    ask_of,
    both,
    outcome,
    read,
)
from tests.upstream import Reply, Upstream, event_stream, json_reply
from workers.http import Http
from workers.providers import make
from workers.providers.base import Ask, AttemptFailed, Provider
from workers.providers.cohere import TEXTS_AT_ONCE, Cohere

FIXTURES = Path(__file__).parents[1] / "fixtures" / "cohere"
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}
# cohere.com/pricing: Command R, 0.15 dollars per million tokens in, 0.60 out.
COMMAND_R = Price("command-r-08-2024", Rates(input=150_000_000, output=600_000_000))
# The one model with a price for what comes from the cache, as openrouter.ai lists it: Command A+,
# 0.30 dollars per million tokens in, 0.15 from the cache, 1.50 out.
COMMAND_A_PLUS = Price(
    "command-a-plus", Rates(input=300_000_000, cached_input=150_000_000, output=1_500_000_000)
)
# cohere.com/pricing: Embed 4, 0.12 dollars per million tokens of text.
EMBED_4 = Price("embed-v4.0", Rates(input=120_000_000, output=0))


@pytest.fixture
def provider(upstream: Upstream, http: Http) -> Provider:
    """The cohere adapter, at the scripted server."""
    config = ProviderConfig(
        dialect="cohere", base_url=upstream.url, api_key=KEY, headers={"X-Org": "ours"}
    )
    return make("cohere", config, http, Clock())


class TestCohere(ProviderContract):
    @pytest.fixture
    async def stage(self, provider: Provider, upstream: Upstream) -> AsyncIterator[Stage]:
        yield CohereStage(provider, upstream)


async def sent(provider: Provider, upstream: Upstream, **fields: Any) -> dict[str, Any]:
    """What arrives at Cohere of a chat with these fields."""
    upstream.script(json_reply(chat_answer({"type": "text", "text": "x"})))
    await provider.complete(ask_of(**fields))
    shown: dict[str, Any] = upstream.requests[-1].json
    return shown


async def refusal(provider: Provider, **fields: Any) -> AttemptFailed:
    """The 400 that a chat with these fields gets before anything is sent."""
    failure = await outcome(provider, ask_of(**fields))
    assert failure.info.status == 400 and not failure.reached and not failure.falls_back
    return failure


def embedding_of(texts: list[str] | str, **fields: Any) -> Ask:
    body = json.dumps({"model": "the-clients-name", "input": texts, **fields}).encode()
    return ask_of()._replace(body=body)


def vectors_of(body: bytes) -> list[Any]:
    return [item["embedding"] for item in json.loads(body)["data"]]


# --- what is asked


async def test_messages_keep_their_roles_and_their_order(
    provider: Provider, upstream: Upstream
) -> None:
    shown = await sent(
        provider,
        upstream,
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "system", "content": [{"type": "text", "text": "Be"}]},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello", "reasoning_content": "A greeting."},
            {"role": "assistant", "content": None, "refusal": "No."},
            {"role": "user", "content": [{"type": "text", "text": "Bye"}]},
        ],
    )
    assert shown["model"] == "the-engine" and shown["stream"] is False
    assert shown["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "system", "content": "Be"},
        {"role": "user", "content": "Hi"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "A greeting."},
                {"type": "text", "text": "Hello"},
            ],
        },
        {"role": "assistant", "content": "No."},
        {"role": "user", "content": [{"type": "text", "text": "Bye"}]},
    ]


async def test_images_go_as_they_are_because_cohere_fetches_them(
    provider: Provider, upstream: Upstream
) -> None:
    parts = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "https://h/cat.png", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
    ]
    shown = await sent(provider, upstream, messages=[{"role": "user", "content": parts}])
    assert shown["messages"][0]["content"] == parts


@pytest.mark.parametrize(
    ("result", "data"),
    [
        ('{"temperature": 24, "unit": "C"}', [{"temperature": 24, "unit": "C"}]),
        ('[{"a": 1}, {"b": 2}]', [{"a": 1}, {"b": 2}]),
        ("24 °C", [{"text": "24 °C"}]),
        ("[1, 2]", [{"text": "[1, 2]"}]),
        ("[]", [{"text": "[]"}]),
        ("{}", [{}]),
        ("", [{"text": ""}]),
        ("[" * 5000, [{"text": "[" * 5000}]),
    ],
    ids=["object", "objects", "text", "numbers", "none", "empty object", "empty", "deep"],
)
async def test_the_results_of_tools_are_documents_that_can_be_cited(
    provider: Provider, upstream: Upstream, result: str, data: list[dict[str, Any]]
) -> None:
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "Madrid"}'},
    }
    shown = await sent(
        provider,
        upstream,
        messages=[
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "reasoning_content": "I look.", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": result},
        ],
    )
    assert shown["messages"][1] == {
        "role": "assistant",
        "tool_calls": [call],
        "tool_plan": "I look.",
    }
    assert shown["messages"][2] == {
        "role": "tool",
        "tool_call_id": "call_1",
        "content": [{"type": "document", "document": {"data": one}} for one in data],
    }


@pytest.mark.parametrize(
    ("choice", "expected", "offered"),
    [
        (None, None, ["get_weather", "get_time"]),
        ("auto", None, ["get_weather", "get_time"]),
        ("none", "NONE", ["get_weather", "get_time"]),
        ("required", "REQUIRED", ["get_weather", "get_time"]),
        ({"type": "function", "function": {"name": "get_time"}}, "REQUIRED", ["get_time"]),
    ],
)
async def test_tools_and_the_choice_among_them(
    provider: Provider, upstream: Upstream, choice: Any, expected: str | None, offered: list[str]
) -> None:
    weather = {"name": "get_weather", "description": "Looks", "parameters": WEATHER, "strict": True}
    tools = [
        {"type": "function", "function": weather},
        {"type": "function", "function": {"name": "get_time"}},
    ]
    shown = await sent(provider, upstream, tools=tools, tool_choice=choice)
    assert [tool["function"]["name"] for tool in shown["tools"]] == offered
    assert shown.get("tool_choice") == expected
    assert shown["strict_tools"] is True
    if len(offered) == 2:
        assert shown["tools"][0]["function"] == {
            "name": "get_weather",
            "description": "Looks",
            "parameters": WEATHER,
        }


async def test_parameters_have_coheres_names(provider: Provider, upstream: Upstream) -> None:
    shown = await sent(
        provider,
        upstream,
        max_completion_tokens=100,
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        stop=["END", "STOP"],
        seed=7,
        frequency_penalty=0.1,
        presence_penalty=0.2,
        logprobs=True,
        top_logprobs=0,
        user="u",
        metadata={"a": "b"},
    )
    del shown["messages"], shown["model"], shown["stream"]
    assert shown == {
        "max_tokens": 100,
        "temperature": 0.5,
        "p": 0.9,
        "k": 40,
        "stop_sequences": ["END", "STOP"],
        "seed": 7,
        "frequency_penalty": 0.1,
        "presence_penalty": 0.2,
        "logprobs": True,
    }


@pytest.mark.parametrize(
    ("wished", "expected"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"type": "json_object"}),
        (
            {"type": "json_schema", "json_schema": {"name": "w", "schema": WEATHER}},
            {"type": "json_object", "json_schema": WEATHER},
        ),
    ],
)
async def test_structured_output(
    provider: Provider, upstream: Upstream, wished: Any, expected: Any
) -> None:
    shown = await sent(provider, upstream, response_format=wished)
    assert shown.get("response_format") == expected


@pytest.mark.parametrize(
    ("effort", "expected"),
    [
        ("none", {"type": "disabled"}),
        ("minimal", {"type": "enabled", "token_budget": 512}),
        ("low", {"type": "enabled", "token_budget": 1024}),
        ("medium", {"type": "enabled", "token_budget": 4096}),
        ("high", {"type": "enabled"}),
    ],
)
async def test_the_effort_of_reasoning_is_a_budget_of_thinking(
    provider: Provider, upstream: Upstream, effort: str, expected: Any
) -> None:
    assert (await sent(provider, upstream, reasoning_effort=effort))["thinking"] == expected


async def test_coheres_own_parameters_pass_as_they_are(
    provider: Provider, upstream: Upstream
) -> None:
    native = {
        "citation_options": {"mode": "FAST"},
        "documents": [{"id": "1", "data": {"text": "Sunny."}}, "Rainy."],
        "k": 3,
        "p": 0.4,
        "priority": 2,
        "safety_mode": "STRICT",
        "strict_tools": False,
        "thinking": {"type": "enabled", "token_budget": 99},
    }
    shown = await sent(provider, upstream, **native, top_p=0.9, reasoning_effort="low")
    assert {name: shown[name] for name in native} == native


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"logit_bias": {"1": 5}}, "logit_bias"),
        ({"verbosity": "low"}, "verbosity"),
    ],
)
async def test_a_parameter_that_cohere_has_no_word_for_is_refused_or_dropped(
    provider: Provider, upstream: Upstream, fields: dict[str, Any], param: str
) -> None:
    failure = await refusal(provider, **fields)
    assert failure.info.param == param and f"'{param}'" in failure.info.message
    shown = await sent(provider, upstream, **fields, drop_params=True)
    assert not {param, "drop_params"} & set(shown)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"reasoning_effort": "enormous"}, "reasoning_effort"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"tool_choice": "some"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"tools": [{"type": "web_search", "function": {"name": "f"}}]}, "tools"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"temperature": "hot"}, "temperature"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {
                                "type": "input_audio",
                                "input_audio": {"data": "", "format": "wav"},
                            }
                        ],
                    }
                ]
            },
            "messages",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages",
        ),
    ],
)
async def test_what_cohere_cannot_do_is_a_400_that_names_the_parameter(
    provider: Provider, fields: dict[str, Any], param: str
) -> None:
    for stream in (False, True):
        failure = await refusal(provider, stream=stream, **fields)
        assert failure.info.param == param


# --- what is answered


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


# --- what is charged


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


# --- embeddings


async def test_documented_embeddings(provider: Provider, upstream: Upstream) -> None:
    upstream.script(replayed("embed.json"))
    answer = await provider.embed(embedding_of(["hello", "goodbye"]))
    shown = json.loads(answer.body)
    assert upstream.requests[0].path == "/v2/embed"
    assert upstream.requests[0].json == {
        "model": "the-engine",
        "texts": ["hello", "goodbye"],
        "input_type": "search_document",
        "embedding_types": ["float"],
    }
    assert (shown["object"], shown["model"]) == ("list", "the-clients-name")
    assert [item["index"] for item in shown["data"]] == [0, 1]
    assert vectors_of(answer.body)[0] == [0.016296387, -0.008354187, -0.04699707, -0.07104492]
    assert answer.usage == Usage(input=2, status="reported")
    assert cost_of(answer.usage, EMBED_4).total == 240


async def test_embeddings_with_dimensions_and_coheres_own_parameters(
    provider: Provider, upstream: Upstream
) -> None:
    CohereStage(provider, upstream).play(Scene(vectors=((0.5, -2.0),)))
    native = {"input_type": "search_query", "truncate": "START", "max_tokens": 9, "priority": 1}
    ask = embedding_of("one", dimensions=256, encoding_format="base64", user="u", **native)
    (vector,) = vectors_of((await provider.embed(ask)).body)
    assert struct.unpack("<2f", base64.b64decode(vector)) == (0.5, -2.0)
    asked = upstream.requests[0].json
    assert asked["output_dimension"] == 256 and asked["texts"] == ["one"]
    assert {name: asked[name] for name in native} == native


async def test_more_texts_than_cohere_takes_go_in_several_requests_and_come_back_in_order(
    provider: Provider, upstream: Upstream
) -> None:
    count = 2 * TEXTS_AT_ONCE + 8
    vectors = tuple((float(at), 0.5) for at in range(count))
    CohereStage(provider, upstream).play(Scene(vectors=vectors))
    answer = await provider.embed(embedding_of([f"text {at}" for at in range(count)]))
    assert vectors_of(answer.body) == [list(vector) for vector in vectors]
    assert [item["index"] for item in json.loads(answer.body)["data"]] == list(range(count))
    texts = [request.json["texts"] for request in upstream.requests]
    assert [len(some) for some in texts] == [96, 96, 8]
    assert [one for some in texts for one in some] == [f"text {at}" for at in range(count)]
    assert answer.usage == Usage(input=2 * count, status="reported")
    assert 0 < answer.sent <= answer.first_byte


async def test_a_later_request_that_fails_leaves_the_cost_unknown(
    provider: Provider, upstream: Upstream
) -> None:
    good = {"embeddings": {"float": [[1.0]] * TEXTS_AT_ONCE}, "id": "x"}
    upstream.script(json_reply(good), json_reply({"message": "slow down"}, 429))
    with pytest.raises(AttemptFailed) as caught:
        await provider.embed(embedding_of(["x"] * (TEXTS_AT_ONCE + 1)))
    assert caught.value.info.status == 429 and not caught.value.cost_known
    upstream.script(json_reply({"message": "slow down"}, 429))
    with pytest.raises(AttemptFailed) as caught:
        await provider.embed(embedding_of(["x"]))
    assert caught.value.cost_known


async def test_embeddings_without_reported_usage_are_estimated(
    provider: Provider, upstream: Upstream
) -> None:
    CohereStage(provider, upstream).play(Scene(vectors=((1.0,),), reports_usage=False))
    assert (await provider.embed(embedding_of("x"))).usage.status == "estimated"


@pytest.mark.parametrize(
    ("texts", "fields", "param"),
    [
        ([1, 2, 3], {}, "input"),
        ([], {}, "input"),
        ("x", {"dimensions": 0}, "dimensions"),
        ("x", {"embedding_types": ["int8"]}, "embedding_types"),
    ],
)
async def test_what_cannot_be_embedded_is_a_400(
    provider: Provider, texts: Any, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(AttemptFailed) as caught:
        await provider.embed(embedding_of(texts, **fields))
    assert (caught.value.info.status, caught.value.info.param) == (400, param)


@pytest.mark.parametrize(
    "reply",
    [
        json_reply(b"nonsense"),
        json_reply([]),
        json_reply({}),
        json_reply({"embeddings": {"float": [[1.0], [2.0]]}}),
        json_reply({"embeddings": {"float": [["a"]]}}),
        json_reply({"embeddings": [[1.0]]}),
        json_reply({"message": "no credits", "id": "x"}),
    ],
)
async def test_embeddings_that_are_none_are_a_provider_error(
    provider: Provider, upstream: Upstream, reply: Reply
) -> None:
    upstream.script(reply)
    with pytest.raises(AttemptFailed) as caught:
        await provider.embed(embedding_of("x"))
    assert (caught.value.info.status, caught.value.info.type) == (502, "provider_error")


# --- errors, credentials, settings


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


@both
async def test_the_clients_own_key_goes_in_place_of_the_gateways(
    provider: Provider, upstream: Upstream, stream: bool
) -> None:
    CohereStage(provider, upstream).play(Scene())
    ask = ask_of({"X-Trace": "abc"}, stream=stream)
    for one in (ask._replace(credential=CLIENT_KEY), ask):
        if stream:
            assert (await read(provider, one)).end is not None
        else:
            await provider.complete(one)
    sent = [request.headers["Authorization"] for request in upstream.requests]
    assert sent == [f"Bearer {CLIENT_KEY}", f"Bearer {KEY}"]
    headers = upstream.requests[0].headers
    assert headers["X-Trace"] == "abc" and headers["X-Org"] == "ours"
    assert KEY not in str(headers) and CLIENT_KEY.encode() not in upstream.requests[0].body


def test_base_urls_are_completed_and_checked(http: Http) -> None:
    def url_of(base_url: str) -> str:
        config = ProviderConfig(dialect="cohere", base_url=base_url)
        provider = make("mine", config, http, Clock())
        assert isinstance(provider, Cohere)
        return provider.chat_url

    assert url_of("https://api.cohere.com/v2/") == "https://api.cohere.com/v2/chat"
    assert url_of("http://cohere.internal:8080") == "http://cohere.internal:8080/v2/chat"
    for wrong in ("", "localhost:80", "ftp://host/v2"):
        with pytest.raises(ValueError, match=r"providers\.mine\.base_url"):
            url_of(wrong)
