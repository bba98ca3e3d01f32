"""The OpenAI Python SDK as a client: it must not notice that this is not OpenAI, and see more."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel

from tests.flow.gateway import ADMIN, KEY, Gateway, running_gateway
from tests.upstream import (
    DONE,
    chat_answer,
    chat_chunk,
    chat_stream,
    event,
    event_stream,
    json_reply,
)

HI: Any = [{"role": "user", "content": "Hi"}]
TOOLS: Any = [
    {
        "type": "function",
        "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
    }
]


class City(BaseModel):
    name: str
    people: int


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("sdk")) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture
async def aclient(gateway: Gateway) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{gateway.url}/api/v1", api_key=KEY, max_retries=0) as client:
        yield client


def extra(answer: BaseModel) -> dict[str, Any]:
    """What came beside the SDK's own fields."""
    assert answer.model_extra is not None
    return answer.model_extra


def test_an_answer(gateway: Gateway, client: OpenAI) -> None:
    gateway.up.script(json_reply(chat_answer("Hello", system_fingerprint="fp")))
    answer = client.chat.completions.create(model="up-model", messages=HI, temperature=0.5)
    assert answer.choices[0].message.content == "Hello"
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.object, answer.model) == ("chat.completion", "up-model")
    assert answer.id.startswith("chatcmpl-")
    assert answer.system_fingerprint == "fp"
    assert answer.usage is not None and answer.usage.total_tokens == 10
    assert extra(answer)["provider"] == "up"
    assert extra(answer)["cost"]["total_cost"] == 0.0000475
    assert extra(answer)["latency"]["total_time_ms"] > 0


def test_a_stream(gateway: Gateway, client: OpenAI) -> None:
    gateway.up.script(chat_stream("Hel", "lo", " there"))
    chunks = list(client.chat.completions.create(model="up-model", messages=HI, stream=True))
    assert [text(chunk) for chunk in chunks] == ["Hel", "lo", " there", ""]
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert len({chunk.id for chunk in chunks}) == 1
    assert extra(chunks[-1])["cost"]["total_cost"] > 0
    assert all("cost" not in extra(chunk) for chunk in chunks[:-1])


def text(chunk: ChatCompletionChunk) -> str:
    return chunk.choices[0].delta.content or ""


def test_usage_of_a_stream(gateway: Gateway, client: OpenAI) -> None:
    gateway.up.script(chat_stream("Hel", "lo"))
    stream = client.chat.completions.create(
        model="up-model", messages=HI, stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = list(stream)
    assert last.choices == []
    assert last.usage is not None and last.usage.prompt_tokens == 7
    assert all(chunk.choices for chunk in chunks)


def test_the_helper_for_streams_puts_the_answer_together(gateway: Gateway, client: OpenAI) -> None:
    gateway.up.script(chat_stream("Hel", "lo"))
    with client.chat.completions.stream(model="up-model", messages=HI) as stream:
        seen = [event.delta for event in stream if event.type == "content.delta"]
        answer = stream.get_final_completion()
    assert seen == ["Hel", "lo"]
    assert answer.choices[0].message.content == "Hello"


async def test_an_answer_to_the_async_client(gateway: Gateway, aclient: AsyncOpenAI) -> None:
    gateway.up.script(json_reply(chat_answer("Hello")))
    answer = await aclient.chat.completions.create(model="up-model", messages=HI)
    assert answer.choices[0].message.content == "Hello"


async def test_a_stream_to_the_async_client(gateway: Gateway, aclient: AsyncOpenAI) -> None:
    gateway.up.script(chat_stream("Hel", "lo"))
    stream = await aclient.chat.completions.create(model="up-model", messages=HI, stream=True)
    assert [text(chunk) async for chunk in stream] == ["Hel", "lo", ""]


async def test_leaving_a_stream_stops_the_provider(gateway: Gateway, aclient: AsyncOpenAI) -> None:
    gateway.up.script(chat_stream(*["more"] * 500, pause=0.05))
    stream = await aclient.chat.completions.create(model="up-model", messages=HI, stream=True)
    async for _ in stream:
        break
    await stream.close()
    gateway.up.wait_for(gateway.up.request.gone)
    assert not gateway.up.request.answered.is_set()


def test_tools(gateway: Gateway, client: OpenAI) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    answer = chat_answer()
    answer["choices"][0] = {
        "index": 0,
        "message": {"role": "assistant", "content": None, "tool_calls": [call]},
        "finish_reason": "tool_calls",
    }
    gateway.up.script(json_reply(answer), json_reply(chat_answer("Sunny")))
    first = client.chat.completions.create(
        model="up-model", messages=HI, tools=TOOLS, tool_choice="required"
    )
    asked = first.choices[0].message
    assert asked.tool_calls is not None and asked.tool_calls[0].id == "c1"
    result = {"role": "tool", "tool_call_id": "c1", "content": '{"sky":"clear"}'}
    talk: Any = [*HI, asked.to_dict(), result]
    second = client.chat.completions.create(model="up-model", messages=talk, tools=TOOLS)
    assert second.choices[0].message.content == "Sunny"
    sent = gateway.up.requests[1].json
    assert sent["messages"][1:] == [{"role": "assistant", "tool_calls": [call], "content": None},
                                    result]  # fmt: skip
    assert sent["tools"] == TOOLS


def test_tool_calls_in_pieces(gateway: Gateway, client: OpenAI) -> None:
    head = {"index": 0, "id": "c1", "type": "function"}
    pieces: list[dict[str, Any]] = [
        {**head, "function": {"name": "weather", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"ci'}},
        {"index": 0, "function": {"arguments": 'ty":"Oslo"}'}},
    ]
    chunks = [chat_chunk({"tool_calls": [piece]}) for piece in pieces]
    chunks.append(chat_chunk({}, finish_reason="tool_calls"))
    gateway.up.script(event_stream(*map(event, chunks), DONE))
    with client.chat.completions.stream(model="up-model", messages=HI, tools=TOOLS) as stream:
        message = stream.get_final_completion().choices[0].message
    assert message.tool_calls is not None
    function = message.tool_calls[0].function
    assert (function.name, json.loads(function.arguments)) == ("weather", {"city": "Oslo"})


def test_several_choices_and_log_probabilities(gateway: Gateway, client: OpenAI) -> None:
    answer = chat_answer("Hello", choices=3)
    token = {"token": "Hello", "logprob": -0.25, "bytes": [72], "top_logprobs": []}
    for choice in answer["choices"]:
        choice["logprobs"] = {"content": [token], "refusal": None}
    gateway.up.script(json_reply(answer))
    got = client.chat.completions.create(
        model="up-model", messages=HI, n=3, logprobs=True, top_logprobs=0, seed=2**62
    )
    assert [choice.index for choice in got.choices] == [0, 1, 2]
    logprobs = got.choices[2].logprobs
    assert logprobs is not None and logprobs.content is not None
    assert logprobs.content[0].logprob == -0.25
    sent = gateway.up.request.json
    assert (sent["n"], sent["logprobs"], sent["top_logprobs"], sent["seed"]) == (3, True, 0, 2**62)


def test_several_choices_of_the_mock(client: OpenAI) -> None:
    stream = client.chat.completions.create(model="mock", messages=HI, n=3, stream=True)
    ends = {choice.index: choice.finish_reason for chunk in stream for choice in chunk.choices}
    assert ends == {0: "stop", 1: "stop", 2: "stop"}


def test_a_response_format(gateway: Gateway, client: OpenAI) -> None:
    gateway.up.script(json_reply(chat_answer('{"name":"Oslo","people":700000}')))
    answer = client.chat.completions.parse(model="up-model", messages=HI, response_format=City)
    assert answer.choices[0].message.parsed == City(name="Oslo", people=700_000)
    form = gateway.up.request.json["response_format"]
    assert form["type"] == "json_schema" and form["json_schema"]["name"] == "City"


def test_fields_of_the_gateway_by_extra_body(gateway: Gateway, client: OpenAI) -> None:
    gateway.up.script(json_reply(chat_answer("Hello")))
    answer = client.chat.completions.create(
        model="up-model",
        messages=HI,
        extra_body={"response": {"include_cost": False, "include_model_info": True}, "top_k": 5},
    )
    assert "cost" not in extra(answer)
    assert extra(answer)["model_info"]["engine"] == "engine-1"
    assert gateway.up.request.json["top_k"] == 5
    assert "response" not in gateway.up.request.json


def test_headers_of_a_raw_response(gateway: Gateway, client: OpenAI) -> None:
    gateway.up.script(json_reply(chat_answer("Hello")))
    raw = client.chat.completions.with_raw_response.create(model="up-model", messages=HI)
    answer = raw.parse()
    assert raw.headers["x-request-id"] == raw.request_id == f"req_{answer.id[9:]}"
    assert answer._request_id == raw.request_id
    assert raw.headers["content-type"] == "application/json"


def test_headers_of_a_raw_stream(gateway: Gateway, client: OpenAI) -> None:
    gateway.up.script(chat_stream("Hello"))
    create = client.chat.completions.with_streaming_response.create
    with create(model="up-model", messages=HI, stream=True) as raw:
        lines = [line for line in raw.iter_lines() if line]
        assert raw.headers["content-type"].startswith("text/event-stream")
        assert raw.headers["x-request-id"].removeprefix("req_") in lines[0]
    assert lines[-1] == "data: [DONE]"


@pytest.mark.parametrize("prefix", ["/v1", "/ai/v1", "/api/v1"])
def test_every_prefix_is_a_base_url(gateway: Gateway, prefix: str) -> None:
    with OpenAI(base_url=gateway.url + prefix, api_key=KEY) as client:
        assert client.chat.completions.create(model="mock", messages=HI).choices


@pytest.mark.parametrize("token", [KEY, ADMIN])
def test_a_token_beside_an_unused_key(gateway: Gateway, token: str) -> None:
    headers = {"X-Nexus-Token": token}
    with OpenAI(base_url=f"{gateway.url}/v1", api_key="unused", default_headers=headers) as client:
        assert client.chat.completions.create(model="mock", messages=HI).choices


def test_models(client: OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert {"mock", "up-model", "gpt-4o"} <= listed.keys()
    assert listed["up-model"].object == "model"
    one = client.models.retrieve("gpt-4o")
    assert (one.id, one.owned_by) == ("gpt-4o", "openai")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no-such-model")


# Errors


def test_a_wrong_key(gateway: Gateway) -> None:
    with (
        OpenAI(base_url=f"{gateway.url}/v1", api_key="wrong") as client,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        client.chat.completions.create(model="mock", messages=HI)
    error = caught.value
    assert (error.status_code, error.type, error.code) == (
        401, "authentication_error", "invalid_api_key",
    )  # fmt: skip
    assert "not known here" in error.message
    assert error.request_id is not None and error.request_id.startswith("req_")


def test_an_unknown_model(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="no-such-model", messages=HI)
    error = caught.value
    assert (error.code, error.param, error.type) == (
        "model_not_found", "model", "invalid_request_error",
    )  # fmt: skip
    assert "The model 'no-such-model' does not exist" in error.message
    assert isinstance(error.body, dict) and error.body["request_id"] == error.request_id


def test_a_parameter_out_of_range(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="mock", messages=HI, temperature=3)
    assert (caught.value.code, caught.value.param) == ("invalid_value", "temperature")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (400, openai.BadRequestError, ("invalid_request_error", "odd", "seed")),
        (404, openai.NotFoundError, ("invalid_request_error", "odd", "seed")),
        (422, openai.UnprocessableEntityError, ("invalid_request_error", "odd", "seed")),
        (429, openai.RateLimitError, ("rate_limit_error", "odd", None)),
        (500, openai.InternalServerError, ("provider_error", "odd", None)),
    ],
)
def test_errors_of_the_provider(
    gateway: Gateway,
    client: OpenAI,
    status: int,
    kind: type[openai.APIStatusError],
    said: tuple[str, str, str | None],
    stream: bool,
) -> None:
    body = {"error": {"message": "That was odd.", "type": "x", "code": "odd", "param": "seed"}}
    gateway.up.script(json_reply(body, status=status, headers={"Retry-After": "100"}))
    with pytest.raises(kind) as caught:
        client.chat.completions.create(model="up-model", messages=HI, stream=stream)
    error = caught.value
    assert (error.type, error.code, error.param) == said
    assert "That was odd." in error.message
    assert isinstance(error.body, dict) and error.body["provider"] == "up"
    if status == 429:
        assert error.response.headers["retry-after"] == "100"


def test_an_error_in_a_stream_is_raised_after_what_came(gateway: Gateway, client: OpenAI) -> None:
    gateway.up.script(event_stream(event(chat_chunk("Hel")), event(chat_chunk("lo"))))
    stream = client.chat.completions.create(model="up-model", messages=HI, stream=True)
    assert [text(next(stream)), text(next(stream))] == ["Hel", "lo"]
    with pytest.raises(openai.APIError) as caught:
        next(stream)
    assert caught.value.type == "provider_error"
    assert isinstance(caught.value.body, dict) and caught.value.body["provider"] == "up"
