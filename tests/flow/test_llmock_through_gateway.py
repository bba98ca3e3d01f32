"""Somebody else's client and somebody else's provider with the gateway between them."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from tests.flow.gateway import KEY, Gateway, running_gateway
from tests.llmock_server import LLMock, llmock_server
from tests.upstream import chat_answer, chat_stream, json_reply

MODELS = """
  llm: {provider: llmock, engine: gpt-4o, input_cost: 0.000001, output_cost: 0.000002}
  safe: {provider: llmock, engine: gpt-4o-mini, fallbacks: [up-model]}
"""
TOOLS: Any = [{"type": "function", "function": {"name": "get_weather", "parameters": {}}}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLMock]:
    log = tmp_path_factory.mktemp("llmock") / "log"
    with llmock_server(log, "--response-style", "echo") as server:
        yield server


@pytest.fixture(scope="module")
def gateway(server: LLMock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    provider = (
        f'  llmock: {{dialect: openai, base_url: "{server.url}/v1", api_key: "${{UP_API_KEY}}"}}'
    )
    folder = tmp_path_factory.mktemp("gateway")
    with running_gateway(folder, MODELS, provider) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def ask(client: OpenAI, text: str = "Is anybody there?", model: str = "llm", **more: Any) -> Any:
    talk: Any = [{"role": "user", "content": text}]
    return client.chat.completions.create(model=model, messages=talk, **more)


def content(stream: Any) -> list[str]:
    return [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]


def served(server: LLMock) -> list[dict[str, Any]]:
    """What llmock has served since the last script."""
    found = httpx.get(f"{server.url}/_llmock/requests", timeout=10).json()["requests"]
    return list(found)


def verdict(server: LLMock) -> dict[str, Any]:
    """What llmock thinks of the way its client coped since the last script."""
    judged: dict[str, Any] = httpx.get(f"{server.url}/_llmock/verdict", timeout=10).json()
    return judged


def test_an_answer(server: LLMock, client: OpenAI) -> None:
    server.script({"type": "reply", "text": "I am here."})
    answer = ask(client)
    assert answer.choices[0].message.content == "I am here."
    assert (answer.model, answer.provider) == ("llm", "llmock")
    spent = answer.usage.prompt_tokens * 1000 + answer.usage.completion_tokens * 2000
    assert round(answer.cost["total_cost"] * 1e9) == spent > 0


def test_a_stream(server: LLMock, client: OpenAI) -> None:
    server.script({"type": "reply", "text": "I am here, where are you?"})
    options = {"include_usage": True}
    chunks = list(ask(client, stream=True, stream_options=options))
    assert "".join(content(chunks)) == "I am here, where are you?"
    assert chunks[-1].usage.total_tokens > 0


def test_a_tool_call(server: LLMock, client: OpenAI) -> None:
    call = {"name": "get_weather", "arguments": {"city": "Reykjavik"}}
    server.script({"type": "reply", "tool_calls": [call], "times": 2})
    (asked,) = ask(client, tools=TOOLS).choices[0].message.tool_calls
    assert json.loads(asked.function.arguments) == call["arguments"]
    pieces = [
        piece.function.arguments
        for chunk in ask(client, tools=TOOLS, stream=True)
        for piece in chunk.choices[0].delta.tool_calls or ()
    ]
    assert json.loads("".join(pieces)) == call["arguments"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [500, 503])
def test_a_provider_that_recovers_is_not_noticed(
    server: LLMock, client: OpenAI, status: int, stream: bool
) -> None:
    server.script({"type": "fail", "status": status, "times": 2})
    answer = ask(client, stream=stream)
    assert "".join(content(answer)) if stream else answer.choices[0].message.content
    assert [request["status"] for request in served(server)] == [status, status, 200]
    judged = verdict(server)
    assert judged["passed"] and judged["calls"] == 1, judged


def test_a_provider_that_does_not_recover_is_given_up(server: LLMock, client: OpenAI) -> None:
    server.script({"type": "fail", "status": 500, "times": None})
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client)
    assert (caught.value.status_code, caught.value.type) == (502, "provider_error")
    assert len(served(server)) == 3
    assert verdict(server)["passed"]


def test_a_rate_limit_is_waited_for_as_long_as_it_says(server: LLMock, client: OpenAI) -> None:
    server.script({"type": "fail", "status": 429, "retry_after": 1})
    assert ask(client).choices
    first, second = served(server)
    assert (first["status"], second["status"]) == (429, 200)
    judged = verdict(server)
    assert judged["passed"] and judged["warnings"] == 0, judged


def test_a_rate_limit_that_stays_is_told_with_its_wait(server: LLMock, client: OpenAI) -> None:
    server.script({"type": "fail", "status": 429, "retry_after": 3600, "times": None})
    with pytest.raises(openai.RateLimitError) as caught:
        ask(client)
    assert caught.value.response.headers["retry-after"] == "3600"
    assert len(served(server)) == 1


@pytest.mark.parametrize(
    ("status", "kind"), [(400, openai.BadRequestError), (404, openai.NotFoundError)]
)
def test_a_refusal_is_not_tried_again(
    server: LLMock, client: OpenAI, status: int, kind: type[openai.APIStatusError]
) -> None:
    server.script({"type": "fail", "status": status, "message": "You cannot have that."})
    with pytest.raises(kind) as caught:
        ask(client)
    assert "You cannot have that." in caught.value.message
    assert len(served(server)) == 1
    assert verdict(server)["passed"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [401, 429, 500])
def test_a_fallback_answers_for_a_provider_that_cannot(
    server: LLMock, gateway: Gateway, client: OpenAI, status: int, stream: bool
) -> None:
    server.script({"type": "fail", "status": status, "times": None, "retry_after": 3600})
    whole = json_reply(chat_answer("From the other"))
    gateway.up.script(chat_stream("From the other") if stream else whole)
    answer = ask(client, model="safe", stream=stream)
    if stream:
        chunks = list(answer)
        assert "".join(content(chunks)) == "From the other"
        assert {chunk.provider for chunk in chunks} == {"up"}
    else:
        assert (answer.choices[0].message.content, answer.provider) == ("From the other", "up")
    assert gateway.up.request.json["model"] == "engine-1"


@pytest.mark.parametrize("kind", ["disconnect", "truncate", "malformed"])
def test_a_stream_that_breaks_is_told_to_the_client(
    server: LLMock, client: OpenAI, kind: str
) -> None:
    server.script({"type": "stream_fault", "kind": kind, "after_chunks": 3})
    stream = ask(client, "one two three four five six", stream=True)
    seen = [next(stream) for _ in range(3)]
    assert all(content(seen)[1:])
    with pytest.raises(openai.APIError) as caught:
        next(stream)
    assert caught.value.type == "provider_error"
    assert len(served(server)) == 1


@pytest.mark.parametrize("kind", ["disconnect", "truncate", "malformed"])
def test_a_stream_that_breaks_before_its_first_word_is_begun_again(
    server: LLMock, client: OpenAI, kind: str
) -> None:
    server.script({"type": "stream_fault", "kind": kind, "after_chunks": 0})
    assert "".join(content(ask(client, stream=True)))
    assert len(served(server)) == 2
    assert verdict(server)["passed"]


def test_the_report_on_many_calls_with_many_faults(server: LLMock, client: OpenAI) -> None:
    """llmock's own judgement: nothing was retried too early, too often or in vain."""
    cut = {"type": "stream_fault", "kind": "disconnect", "after_chunks": 0}
    faults: list[tuple[bool, dict[str, Any], int]] = [
        (False, {"type": "fail", "status": 429, "retry_after": 0.5}, 200),
        (True, {"type": "fail", "status": 429, "retry_after": 0.3}, 200),
        (False, {"type": "fail", "status": 400}, 400),
        (True, {"type": "fail", "status": 401}, 502),
        (False, {"type": "fail", "status": 500, "times": 2}, 200),
        (True, {"type": "fail", "status": 503, "retry_after": 0.2}, 200),
        (False, {"type": "delay", "seconds": 0.3}, 200),
        (True, {"type": "slow_first_token", "seconds": 0.3}, 200),
        (True, cut, 200),
        (False, {"type": "fail", "status": 422}, 422),
    ]
    server.script({"type": "reply", "text": "Hello", "times": None})
    outcomes = []
    for stream, fault, _ in faults:
        httpx.post(f"{server.url}/_llmock/scenario", json={"behaviors": [fault]})
        try:
            answer = ask(client, f"Question {len(outcomes)}", stream=stream)
            said = "".join(content(answer)) if stream else answer.choices[0].message.content
            outcomes.append(200 if said == "Hello" else said)
        except openai.APIStatusError as error:
            outcomes.append(error.status_code)
    assert outcomes == [expected for _, _, expected in faults]
    judged = verdict(server)
    assert judged["errors"] == 0, judged["findings"]
    assert judged["calls"] == len(faults) and judged["attempts"] == len(faults) + 6
