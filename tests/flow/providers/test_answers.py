"""Every dialect of llmock through the whole gateway, asked with the OpenAI SDK: its answers."""

import json
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.flow.gateway import Gateway
from tests.flow.providers.dialects import (
    CITIES,
    DIALECTS,
    WEATHER,
    WITH_TOOLS,
    Dialect,
    ask,
    put_together,
)
from tests.llmock_server import LLMock

every = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.provider)
with_tools = pytest.mark.parametrize("dialect", WITH_TOOLS, ids=lambda dialect: dialect.provider)
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGD4DwABBAEAX+XD"
    "SwAAAABJRU5ErkJggg=="
)
TEXT = "Ég er hér 👋, where are you?"


def arrived(llmock: LLMock) -> list[Any]:
    """The bodies that llmock got since its last script."""
    return [request["body"] for request in llmock.requests]


@every
def test_a_chat(llmock: LLMock, client: OpenAI, dialect: Dialect) -> None:
    llmock.script({"type": "reply", "text": TEXT})
    answer = ask(client, dialect)
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content) == ("assistant", TEXT)
    assert choice.finish_reason == "stop" and not choice.message.tool_calls
    assert answer.id.startswith("chatcmpl-") and answer.object == "chat.completion"
    assert (answer.model, answer.provider) == (dialect.model, dialect.provider)
    usage = answer.usage
    assert usage.prompt_tokens > 0 and usage.completion_tokens > 0
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


@every
def test_a_stream(llmock: LLMock, client: OpenAI, dialect: Dialect) -> None:
    llmock.script({"type": "reply", "text": TEXT})
    chunks = list(ask(client, dialect, stream=True, stream_options={"include_usage": True}))
    assert put_together(chunks) == {"text": TEXT, "calls": [], "reason": "stop"}
    assert chunks[0].choices[0].delta.role == "assistant"
    assert {(chunk.model, chunk.provider) for chunk in chunks} == {
        (dialect.model, dialect.provider)
    }
    assert len({chunk.id for chunk in chunks}) == 1
    assert sum(bool(chunk.choices[0].delta.content) for chunk in chunks if chunk.choices) > 1
    assert chunks[-1].usage.total_tokens > 0 and chunks[-1].choices == []


@every
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_why_an_answer_ended(
    llmock: LLMock, client: OpenAI, dialect: Dialect, reason: str, stream: bool
) -> None:
    llmock.script({"type": "reply", "text": "Once upon a", "finish_reason": reason, "times": None})
    if (dialect.provider, reason) == ("cohere", "content_filter"):
        # llmock says ERROR for it, which at Cohere is a failure.
        with pytest.raises(openai.APIError) as caught:
            list(ask(client, dialect, stream=stream))
        assert caught.value.type == "provider_error"
        return
    answer = ask(client, dialect, stream=stream)
    said = put_together(list(answer))["reason"] if stream else answer.choices[0].finish_reason
    assert said == reason


@with_tools
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_two_calls_of_tools_at_once(
    llmock: LLMock, client: OpenAI, dialect: Dialect, stream: bool
) -> None:
    wanted = [{"name": "get_weather", "arguments": city} for city in CITIES]
    llmock.script({"type": "reply", "tool_calls": wanted})
    answer = ask(client, dialect, stream=stream, tools=[WEATHER])
    if stream:
        said = put_together(list(answer))
        calls, reason = said["calls"], said["reason"]
    else:
        (choice,) = answer.choices
        reason = choice.finish_reason
        calls = [
            [call.id, call.function.name, call.function.arguments]
            for call in choice.message.tool_calls
        ]
    assert [(name, json.loads(text)) for _, name, text in calls] == [
        ("get_weather", city) for city in CITIES
    ]
    assert all(identity for identity, _, _ in calls) and calls[0][0] != calls[1][0]
    assert reason == "tool_calls"


@with_tools
def test_what_a_tool_said_goes_back_to_who_called_it(
    llmock: LLMock, client: OpenAI, dialect: Dialect
) -> None:
    """llmock reads each dialect's own form of tools and results: it calls, then it answers."""
    llmock.script({"type": "delay", "seconds": 0})
    talk: list[Any] = [{"role": "user", "content": "How is the weather in Reykjavik?"}]
    called = ask(client, dialect, messages=talk, tools=[WEATHER]).choices[0].message
    (call,) = called.tool_calls
    assert call.function.name == "get_weather" and "city" in json.loads(call.function.arguments)
    result = {"role": "tool", "tool_call_id": call.id, "content": '{"degrees": 4}'}
    talk += [called.model_dump(exclude_none=True), result]
    answered = ask(client, dialect, messages=talk, tools=[WEATHER]).choices[0]
    assert answered.finish_reason == "stop" and answered.message.content
    assert "degrees" in json.dumps(arrived(llmock)[-1])


@with_tools
def test_a_tool_that_must_be_called_is_called(
    llmock: LLMock, client: OpenAI, dialect: Dialect
) -> None:
    llmock.script({"type": "delay", "seconds": 0})
    other = {"type": "function", "function": {"name": "other", "parameters": {"type": "object"}}}
    required = ask(client, dialect, tools=[WEATHER], tool_choice="required")
    assert required.choices[0].finish_reason == "tool_calls"
    unwanted = ask(client, dialect, tools=[WEATHER], tool_choice="none")
    if dialect.provider == "cohere":
        # llmock does not read Cohere's capitals.
        assert [body["tool_choice"] for body in arrived(llmock)] == ["REQUIRED", "NONE"]
    else:
        assert unwanted.choices[0].finish_reason == "stop"
    chosen = {"type": "function", "function": {"name": "other"}}
    named = ask(client, dialect, tools=[WEATHER, other], tool_choice=chosen)
    (call,) = named.choices[0].message.tool_calls
    assert call.function.name == "other"


def test_tools_of_a_provider_without_any_are_refused_or_dropped(
    llmock: LLMock, gateway: Gateway, client: OpenAI
) -> None:
    (perplexity,) = (dialect for dialect in DIALECTS if not dialect.tools)
    llmock.script({"type": "reply", "text": "I cannot."})
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, perplexity, tools=[WEATHER])
    assert caught.value.param == "tools" and arrived(llmock) == []
    answer = ask(client, perplexity, tools=[WEATHER], extra_body={"drop_params": True})
    assert answer.choices[0].message.content == "I cannot."
    (body,) = arrived(llmock)
    assert "tools" not in body and "drop_params" not in body


@every
def test_a_system_message_and_images_of_a_conversation_arrive(
    llmock: LLMock, client: OpenAI, dialect: Dialect
) -> None:
    llmock.script({"type": "reply", "text": "A pixel."})
    parts = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
    ]
    talk = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": "An image."},
        {"role": "user", "content": "Of what?"},
    ]
    assert ask(client, dialect, messages=talk).choices[0].message.content == "A pixel."
    (body,) = arrived(llmock)
    texts = json.dumps(body, ensure_ascii=False)
    assert all(text in texts for text in ("Be brief.", "What is it?", "An image.", "Of what?"))
    assert PIXEL in texts


@every
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_an_answer_keeps_the_schema_that_was_asked_for(
    llmock: LLMock, client: OpenAI, dialect: Dialect, stream: bool
) -> None:
    """llmock reads each dialect's own form of a schema, and answers by it."""
    llmock.script({"type": "delay", "seconds": 0})
    schema = {
        "type": "object",
        "properties": {
            "city": {"type": "string", "enum": ["Reykjavik"]},
            "degrees": {"type": "array", "items": {"type": "integer"}},
        },
        "required": ["city", "degrees"],
        "additionalProperties": False,
    }
    wanted = {"name": "weather", "schema": schema, "strict": True}
    form = {"type": "json_schema", "json_schema": wanted}
    answer = ask(client, dialect, stream=stream, response_format=form)
    text = put_together(list(answer))["text"] if stream else answer.choices[0].message.content
    if dialect.provider == "anthropic":
        # llmock reads the form of the time before `output_config`.
        (body,) = arrived(llmock)
        assert body["output_config"]["format"]["schema"]["required"] == schema["required"]
        return
    said = json.loads(text)
    assert said["city"] == "Reykjavik" and isinstance(said["degrees"], list)
