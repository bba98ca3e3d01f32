"""llmock asked twice for the same: directly by the vendor's own SDK, and through the whole gateway
by OpenAI's. Both must read the same, field by field.

Vendors that speak OpenAI's dialect are asked directly by its SDK, as they say themselves.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import anthropic
import cohere
import httpx
import openai
import pytest
from google import genai
from google.genai import types
from openai import OpenAI

from tests.flow.providers.dialects import CITIES, DIALECTS, WEATHER, Dialect, ask, put_together
from tests.llmock_server import LLMock

FUNCTION = WEATHER["function"]
QUESTION = "Is anybody there? Ég er hér 👋"
LIMIT = 200
REASONS = {
    "end_turn": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "COMPLETE": "stop",
    "TOOL_CALL": "tool_calls",
    "eos": "stop",
}
SCRIPTS: dict[str, dict[str, Any]] = {
    "text": {"text": "I am here.\n\nHver ert þú? 👋"},
    "a call": {"tool_calls": [{"name": "get_weather", "arguments": CITIES[0]}]},
    "two calls": {"tool_calls": [{"name": "get_weather", "arguments": one} for one in CITIES]},
    "text and a call": {
        "text": "I look.",
        "tool_calls": [{"name": "get_weather", "arguments": {"city": 'Par"is\\', "deep": [{}]}}],
    },
    "no arguments": {"tool_calls": [{"name": "get_weather", "arguments": {}}]},
    "cut short": {"text": "Once upon a", "finish_reason": "length"},
    "filtered": {"text": "I", "finish_reason": "content_filter"},
    "its own words": {},
}


class Read(NamedTuple):
    """What a client reads in an answer; the ids are the provider's own or the gateway's."""

    text: str
    calls: list[tuple[str, Any]]
    reason: str
    prompt: int
    completion: int
    cached: int
    id: str
    call_ids: list[str]

    @property
    def same(self) -> tuple[Any, ...]:
        """All that both must read alike."""
        return self[:6]


class SDKs(NamedTuple):
    """The vendors' own, at llmock."""

    anthropic: anthropic.Anthropic
    google: genai.Client
    cohere: cohere.ClientV2
    openai: OpenAI


@pytest.fixture(scope="module")
def sdks(llmock: LLMock) -> Iterator[SDKs]:
    with ExitStack() as stack:
        http = stack.enter_context(httpx.Client(timeout=30))
        google = types.HttpOptions(
            base_url=f"{llmock.url}/gemini", api_version="v1beta", httpx_client=http
        )
        yield SDKs(
            stack.enter_context(
                anthropic.Anthropic(api_key="x", base_url=f"{llmock.url}/anthropic", max_retries=0)
            ),
            genai.Client(api_key="x", http_options=google),
            cohere.ClientV2(api_key="x", base_url=f"{llmock.url}/cohere", httpx_client=http),
            stack.enter_context(OpenAI(api_key="x", base_url=llmock.url, max_retries=0)),
        )


def by_anthropic(sdks: SDKs, engine: str, *, stream: bool) -> Read:
    asked: Any = {
        "model": engine,
        "max_tokens": LIMIT,
        "messages": [{"role": "user", "content": QUESTION}],
        "tools": [{"name": FUNCTION["name"], "input_schema": FUNCTION["parameters"]}],
    }
    if stream:
        with sdks.anthropic.messages.stream(**asked) as events:
            answer = events.get_final_message()
    else:
        answer = sdks.anthropic.messages.create(**asked)
    calls = [block for block in answer.content if block.type == "tool_use"]
    return Read(
        "".join(block.text for block in answer.content if block.type == "text"),
        [(call.name, call.input) for call in calls],
        REASONS[answer.stop_reason or ""],
        answer.usage.input_tokens,
        answer.usage.output_tokens,
        answer.usage.cache_read_input_tokens or 0,
        answer.id,
        [call.id for call in calls],
    )


def by_google(sdks: SDKs, engine: str, *, stream: bool) -> Read:
    declared = types.FunctionDeclaration(
        name=FUNCTION["name"], parameters_json_schema=FUNCTION["parameters"]
    )
    asked: Any = {
        "model": engine,
        "contents": QUESTION,
        "config": types.GenerateContentConfig(
            max_output_tokens=LIMIT,
            tools=[types.Tool(function_declarations=[declared])],
            automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
        ),
    }
    models = sdks.google.models
    answers = (
        list(models.generate_content_stream(**asked))
        if stream
        else [models.generate_content(**asked)]
    )
    candidates = [one for answer in answers for one in answer.candidates or ()]
    parts = [part for one in candidates for part in (one.content and one.content.parts) or ()]
    calls = [part.function_call for part in parts if part.function_call]
    reason, usage = candidates[-1].finish_reason, answers[-1].usage_metadata
    assert reason is not None and usage is not None
    return Read(
        "".join(part.text or "" for part in parts),
        [(call.name or "", call.args) for call in calls],
        "tool_calls" if calls else REASONS[reason.value],
        usage.prompt_token_count or 0,
        usage.candidates_token_count or 0,
        usage.cached_content_token_count or 0,
        answers[-1].response_id or "",
        [call.id or "" for call in calls],
    )


def by_cohere(sdks: SDKs, engine: str, *, stream: bool) -> Read:
    asked: Any = {
        "model": engine,
        "max_tokens": LIMIT,
        "messages": [{"role": "user", "content": QUESTION}],
        "tools": [WEATHER],
    }
    if stream:
        return _cohere_stream(list(sdks.cohere.chat_stream(**asked)))
    answer: Any = sdks.cohere.chat(**asked)
    calls = answer.message.tool_calls or []
    return Read(
        "".join(part.text for part in answer.message.content or ()),
        [(call.function.name, json.loads(call.function.arguments)) for call in calls],
        REASONS[answer.finish_reason],
        int(answer.usage.billed_units.input_tokens),
        int(answer.usage.billed_units.output_tokens),
        0,
        answer.id,
        [call.id for call in calls],
    )


def _cohere_stream(events: list[Any]) -> Read:
    text, calls = "", list[Any]()
    for event in events:
        said: Any = getattr(getattr(event, "delta", None), "message", None)
        if event.type == "content-delta":
            text += said.content.text
        elif event.type == "tool-call-start":
            calls.append([said.tool_calls.id, said.tool_calls.function.name, ""])
        elif event.type == "tool-call-delta":
            calls[event.index][2] += said.tool_calls.function.arguments
    end = events[-1].delta
    return Read(
        text,
        [(name, json.loads(arguments)) for _, name, arguments in calls],
        REASONS[end.finish_reason],
        int(end.usage.billed_units.input_tokens),
        int(end.usage.billed_units.output_tokens),
        0,
        events[0].id,
        [identity for identity, _, _ in calls],
    )


def directly(sdks: SDKs, dialect: Dialect, *, stream: bool) -> Read:
    if dialect.provider in _VENDORS:
        return _VENDORS[dialect.provider](sdks, dialect.engine, stream=stream)
    place = sdks.openai.with_options(base_url=sdks.openai.base_url.join(dialect.path))
    return by_openai(place, dialect, dialect.engine, stream=stream)


_VENDORS: dict[str, Callable[..., Read]] = {
    "anthropic": by_anthropic,
    "google": by_google,
    "cohere": by_cohere,
}


def by_openai(client: OpenAI, dialect: Dialect, model: str, *, stream: bool) -> Read:
    asked: dict[str, Any] = {"model": model, "max_completion_tokens": LIMIT}
    if dialect.tools:
        asked["tools"] = [WEATHER]
    if stream:
        asked |= {"stream": True, "stream_options": {"include_usage": True}}
        chunks = list(ask(client, dialect, QUESTION, **asked))
        said, last = put_together(chunks), chunks[-1]
        text, calls, reason = said["text"], said["calls"], str(said["reason"])
    else:
        last = ask(client, dialect, QUESTION, **asked)
        (choice,) = last.choices
        text, reason = choice.message.content or "", str(choice.finish_reason)
        functions = [(call.id, call.function) for call in choice.message.tool_calls or ()]
        calls = [(identity, said.name, said.arguments) for identity, said in functions]
    details = last.usage.prompt_tokens_details
    return Read(
        text,
        [(name, json.loads(arguments)) for _, name, arguments in calls],
        REASONS.get(reason, reason),
        last.usage.prompt_tokens,
        last.usage.completion_tokens,
        (details and details.cached_tokens) or 0,
        last.id,
        [identity for identity, _, _ in calls],
    )


every = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.provider)


@every
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("script", SCRIPTS)
def test_both_sdks_read_the_same(
    llmock: LLMock, client: OpenAI, sdks: SDKs, dialect: Dialect, stream: bool, script: str
) -> None:
    if (dialect.provider, script) == ("cohere", "filtered"):
        script = "cut short"  # llmock tells a filter as Cohere's ERROR, which is a failure.
    llmock.script({"type": "reply", **SCRIPTS[script], "times": None})
    theirs = directly(sdks, dialect, stream=stream)
    ours = by_openai(client, dialect, dialect.model, stream=stream)
    if stream and not dialect.counts_streams:
        theirs = theirs._replace(prompt=ours.prompt, completion=ours.completion)
    assert ours.same == theirs.same
    assert ours.text or ours.calls
    assert ours.id.startswith("chatcmpl-") and ours.id != theirs.id
    assert len(set(ours.call_ids)) == len(ours.call_ids) == len(theirs.call_ids)
    kinds = [identity.partition("_")[0] for identity in theirs.call_ids]
    assert not any(kinds) or [one.partition("_")[0] for one in ours.call_ids] == kinds


@every
def test_both_sdks_read_the_same_error(
    llmock: LLMock, client: OpenAI, sdks: SDKs, dialect: Dialect
) -> None:
    message = "max_tokens: 200 > 100, which is the most."
    llmock.script({"type": "fail", "status": 400, "message": message, "times": None})
    with pytest.raises(Exception, match=message) as theirs:
        directly(sdks, dialect, stream=False)
    told: Any = theirs.value
    with pytest.raises(openai.BadRequestError) as ours:
        ask(client, dialect)
    assert (getattr(told, "status_code", None) or told.code) == ours.value.status_code
    assert isinstance(ours.value.body, dict) and ours.value.body["message"] == message


def test_embeddings_are_the_same_and_cost_what_they_are_counted(
    llmock: LLMock, client: OpenAI, sdks: SDKs
) -> None:
    llmock.script({"type": "delay", "seconds": 0})
    texts = ["Is anybody there?", "Ég er hér 👋"]
    place = sdks.openai.with_options(base_url=f"{llmock.url}/v1")
    theirs = place.embeddings.create(model="gpt-4o", input=texts)
    ours: Any = client.embeddings.create(model="llmock/gpt-4o", input=texts)
    assert [one.embedding for one in ours.data] == [one.embedding for one in theirs.data]
    assert ours.usage.prompt_tokens == theirs.usage.prompt_tokens > 0
    assert round(ours.cost["total_cost"] * 1e9) == theirs.usage.prompt_tokens * 1000
