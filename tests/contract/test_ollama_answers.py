"""What Ollama answers: text, thoughts, tools, counts, embeddings, errors. Its own client reads each
recorded answer beside the adapter, so that both the recordings and the reading are right."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import ollama
import pytest

from schemas.config import ProviderConfig
from schemas.ids import Clock
from schemas.usage import Cost, Price, Rates, Usage, cost_of
from tests.contract.ollama_stage import KEY, OllamaStage, answer_of, end, line, lines, text
from tests.contract.provider_contract import Scene, Told, ask_of, both, outcome, read
from tests.upstream import Reply, Upstream, event_stream, json_reply
from workers.http import Http
from workers.providers import make
from workers.providers.base import Ask, Provider

FIXTURES = Path(__file__).parents[1] / "fixtures" / "ollama"
HELLO = [{"role": "user", "content": "hello"}]
# Ollama has no price of its own: this is one that an operator may have set for a model.
CONFIGURED = Price("local", Rates(input=100_000_000, cached_input=10_000_000, output=400_000_000))


@pytest.fixture
def provider(upstream: Upstream, http: Http) -> Provider:
    """The ollama adapter, at the scripted server."""
    config = ProviderConfig(dialect="ollama", base_url=upstream.url, api_key=KEY)
    return make("ollama", config, http, Clock())


@pytest.fixture
async def client(upstream: Upstream) -> AsyncIterator[ollama.AsyncClient]:
    """Ollama's own client, at the scripted server."""
    async with ollama.AsyncClient(host=upstream.url) as client:
        yield client


def recorded(name: str) -> Reply:
    body = (FIXTURES / name).read_bytes()
    return lines(body) if name.endswith(".ndjson") else json_reply(body)


def deltas_of(told: Told) -> list[dict[str, Any]]:
    return [chunk["choices"][0]["delta"] for chunk in told.chunks]


def embedding_of(texts: Any, **fields: Any) -> Ask:
    body = json.dumps({"model": "the-clients-name", "input": texts, **fields}).encode()
    return ask_of()._replace(body=body)


@pytest.mark.parametrize(
    "name", ["chat.json", "structured.json", "tools.json", "load.json", "logprobs.json"]
)
async def test_ollamas_client_reads_the_same_in_a_whole_answer(
    provider: Provider, upstream: Upstream, client: ollama.AsyncClient, name: str
) -> None:
    upstream.script(recorded(name))
    theirs = await client.chat(model="m", messages=HELLO)
    answer = await provider.complete(ask_of())
    choice = json.loads(answer.body)["choices"][0]
    assert (choice["message"]["content"] or "") == theirs.message.content
    assert [
        (call["function"]["name"], json.loads(call["function"]["arguments"]))
        for call in choice["message"].get("tool_calls", ())
    ] == [(call.function.name, call.function.arguments) for call in theirs.message.tool_calls or ()]
    told = (choice["logprobs"] or {"content": ()})["content"]
    assert [(one["token"], one["logprob"]) for one in told] == [
        (one.token, one.logprob) for one in theirs.logprobs or ()
    ]
    if theirs.prompt_eval_count is not None:
        assert answer.usage.prompt == theirs.prompt_eval_count
        assert answer.usage.completion == theirs.eval_count


@pytest.mark.parametrize("name", ["chat.ndjson", "tools.ndjson", "thinking.ndjson"])
async def test_ollamas_client_reads_the_same_in_a_stream(
    provider: Provider, upstream: Upstream, client: ollama.AsyncClient, name: str
) -> None:
    upstream.script(recorded(name))
    pieces = [piece async for piece in await client.chat(model="m", messages=HELLO, stream=True)]
    told = await read(provider, ask_of(stream=True))
    assert told.end is not None
    assert told.text() == "".join(piece.message.content or "" for piece in pieces)
    deltas = deltas_of(told)
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "".join(
        piece.message.thinking or "" for piece in pieces
    )
    assert [
        json.loads(call["function"]["arguments"])
        for delta in deltas
        for call in delta.get("tool_calls", ())
    ] == [call.function.arguments for piece in pieces for call in piece.message.tool_calls or ()]
    assert told.end.usage.prompt == pieces[-1].prompt_eval_count
    assert told.end.usage.completion == pieces[-1].eval_count


async def test_what_our_own_server_says_is_what_ollamas_client_expects(
    provider: Provider, upstream: Upstream, client: ollama.AsyncClient
) -> None:
    stage = OllamaStage(provider, upstream)
    stage.play(Scene(chunks=4, thinks="Hm."))
    pieces = [piece async for piece in await client.chat(model="m", messages=HELLO, stream=True)]
    told = await read(provider, ask_of(stream=True))
    assert "".join(piece.message.content or "" for piece in pieces) == told.text()
    stage.play(Scene(tool="get_weather", calls=2, logprobs=True))
    theirs = await client.chat(model="m", messages=HELLO)
    assert [call.function.name for call in theirs.message.tool_calls or ()] == ["get_weather"] * 2
    stage.play(Scene(vectors=((0.5, 1.0), (2.0, 3.0))))
    embedded = await client.embed(model="m", input=["a", "b"])
    ours = json.loads((await provider.embed(embedding_of(["a", "b"]))).body)
    assert [item["embedding"] for item in ours["data"]] == [list(v) for v in embedded.embeddings]
    stage.play(Scene(status=404))
    with pytest.raises(ollama.ResponseError, match="Sorry: 404"):
        await client.chat(model="m", messages=HELLO)


@both
async def test_thoughts_are_reasoning(provider: Provider, upstream: Upstream, stream: bool) -> None:
    OllamaStage(provider, upstream).play(Scene(chunks=2, thinks="Hm, wörds."))
    if stream:
        told = await read(provider, ask_of(stream=True))
        assert deltas_of(told)[0] == {"role": "assistant", "reasoning_content": "Hm, wörds."}
        assert told.text() == "wörd0 wörd1 "
    else:
        message = json.loads((await provider.complete(ask_of())).body)["choices"][0]["message"]
        assert message["reasoning_content"] == "Hm, wörds."
        assert message["content"] == "wörd0 wörd1 "


async def test_ids_of_tool_calls_are_the_servers_or_made_of_the_calls(
    provider: Provider, upstream: Upstream
) -> None:
    function = {"name": "f", "arguments": {}}
    calls = [{"function": function}, {"id": "call_theirs", "function": function}, {}]
    upstream.script(json_reply(answer_of(tool_calls=calls)))
    whole = json.loads((await provider.complete(ask_of())).body)["choices"][0]["message"]
    upstream.script(lines(*(line(answer_of(done=False, tool_calls=[one])) for one in calls), end()))
    told = await read(provider, ask_of(stream=True))
    streamed = [call for delta in deltas_of(told) for call in delta.get("tool_calls", ())]
    ids = ["call_0193-call_0", "call_theirs", "call_0193-call_2"]
    assert [call["id"] for call in whole["tool_calls"]] == ids
    assert [(call["index"], call["id"]) for call in streamed] == list(enumerate(ids))
    assert {call["function"]["arguments"] for call in streamed} == {"{}"}


@both
async def test_logprobs_are_told_by_tokens(
    provider: Provider, upstream: Upstream, stream: bool
) -> None:
    body = json.loads((FIXTURES / "logprobs.json").read_bytes())
    upstream.script(lines(line(body)) if stream else json_reply(body))
    if stream:
        told = await read(provider, ask_of(stream=True, logprobs=True))
        content = told.chunks[0]["choices"][0]["logprobs"]["content"]
    else:
        whole = json.loads((await provider.complete(ask_of(logprobs=True))).body)
        content = whole["choices"][0]["logprobs"]["content"]
    assert content == [
        {
            "token": "H",
            "logprob": -0.25,
            "bytes": [72],
            "top_logprobs": [
                {"token": "H", "logprob": -0.25, "bytes": [72]},
                {"token": "Y", "logprob": -1.5, "bytes": [89]},
            ],
        },
        {"token": "é", "logprob": -0.5, "bytes": [195, 169], "top_logprobs": []},
    ]


@both
@pytest.mark.parametrize(
    ("said", "reason"),
    [("stop", "stop"), ("length", "length"), ("load", "stop"), ("new", "stop"), (None, "stop")],
)
async def test_how_an_answer_ended(
    provider: Provider, upstream: Upstream, stream: bool, said: str | None, reason: str
) -> None:
    last = {**answer_of("x"), "done_reason": said}
    upstream.script(lines(line(last)) if stream else json_reply(last))
    if stream:
        told = await read(provider, ask_of(stream=True))
        assert told.finish_reasons() == {0: reason} and told.text() == "x"
    else:
        assert (await provider.complete(ask_of())).finish_reason == reason


@both
@pytest.mark.parametrize(
    ("counts", "usage", "cost"),
    [
        (
            {"prompt_eval_count": 1000, "eval_count": 200},
            Usage(input=1000, output=200, status="reported"),
            Cost(input=100_000, output=80_000),
        ),
        (
            {"prompt_eval_count": 1000, "prompt_eval_cached_count": 900, "eval_count": 200},
            Usage(input=100, cached_input=900, output=200, status="reported"),
            Cost(input=19_000, output=80_000, cache_savings=81_000),
        ),
        (
            {"prompt_eval_count": 10, "prompt_eval_cached_count": 900, "eval_count": 0},
            Usage(cached_input=10, status="reported"),
            Cost(input=100, cache_savings=900),
        ),
        (
            {"eval_count": 200},
            Usage(input=100, output=200, status="estimated"),
            Cost(input=10_000, output=80_000),
        ),
        (
            {"prompt_eval_count": 0, "eval_count": 200},
            Usage(input=100, output=200, status="estimated"),
            Cost(input=10_000, output=80_000),
        ),
        (
            {"prompt_eval_count": 1000},
            Usage(input=1000, output=2, status="estimated"),
            Cost(input=100_000, output=800),
        ),
        ({}, Usage(input=100, output=2, status="estimated"), Cost(input=10_000, output=800)),
        ({"prompt_eval_count": -1, "eval_count": 2}, Usage(), Cost()),
        ({"prompt_eval_count": 1.5, "eval_count": 2}, Usage(), Cost()),
        ({"prompt_eval_count": "many", "eval_count": 2}, Usage(), Cost()),
        ({"prompt_eval_count": 1, "eval_count": 10**30}, Usage(), Cost()),
    ],
)
async def test_the_counts_and_what_is_missing_among_them(
    provider: Provider,
    upstream: Upstream,
    stream: bool,
    counts: dict[str, Any],
    usage: Usage,
    cost: Cost,
) -> None:
    last = {**answer_of("12345678"), **counts}
    upstream.script(lines(line(last)) if stream else json_reply(last))
    if stream:
        told = await read(provider, ask_of(stream=True, says="x" * 400))
        assert told.end is not None
        counted = told.end.usage
    else:
        counted = (await provider.complete(ask_of(says="x" * 400))).usage
    assert counted == usage
    assert cost_of(counted, CONFIGURED) == cost


@both
@pytest.mark.parametrize("status", [400, 404, 429, 500])
async def test_what_ollama_says_about_an_error_is_told_without_its_key(
    provider: Provider, upstream: Upstream, stream: bool, status: int
) -> None:
    error = f'model "x" not found, try pulling it first; {KEY}'
    upstream.script(json_reply({"error": error}, status))
    failure = await outcome(provider, ask_of(stream=stream))
    assert 'model "x" not found' in failure.info.message and KEY not in failure.info.message


@both
@pytest.mark.parametrize(
    "reply",
    [
        Reply(headers={"Content-Type": "text/html"}, steps=(b"<html>Sign in</html>",)),
        json_reply(b"nonsense"),
        json_reply([]),
        json_reply({}),
        json_reply(answer_of("half", done=False)),
        json_reply({"message": 5, "done": True}),
        json_reply({"message": {"content": 5}, "done": True}),
        json_reply({"error": "out of memory"}),
        json_reply(
            b'{"message": {"tool_calls": [{"function": {"arguments": "\xff"}}]}, "done": true}'
        ),
        json_reply(b'{"message": ' + b"[" * 5000 + b"]" * 5000 + b"}"),
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
        line({"error": "an error was encountered while running the model"}),
        b"nonsense\n",
        b"[]\n",
        b'{"message": 5}\n',
        b'{"message": {"content": "\xff"}}\n',
        b'{"message": {"content": "cut off"',
        b"",
    ],
)
async def test_a_stream_that_breaks_is_a_provider_error_after_what_was_said(
    provider: Provider, upstream: Upstream, broken: bytes
) -> None:
    upstream.script(lines(text("so far"), broken))
    told = await read(provider, ask_of(stream=True))
    assert told.failure is not None and told.end is None
    assert told.failure.info.status == 502 and not told.failure.retryable
    assert told.text() == "so far" and told.finish_reasons() == {}
    if b"encountered" in broken:
        assert "while running the model" in told.failure.info.message


async def test_a_stream_of_events_is_none_of_lines(provider: Provider, upstream: Upstream) -> None:
    upstream.script(event_stream(b'data: {"choices": []}\n\n'))
    failure = await outcome(provider, ask_of(stream=True))
    assert (failure.info.status, failure.info.type) == (502, "provider_error")
