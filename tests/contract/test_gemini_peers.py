"""The gemini adapter beside what others wrote: Google's own SDK, and llmock as the provider."""

import base64
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from google import genai
from google.genai import types

from schemas.config import ProviderConfig
from schemas.ids import Clock
from tests.contract.gemini_stage import KEY, chat_answer
from tests.contract.provider_contract import ask_of, both, outcome, read
from tests.llmock_server import LLMock, llmock_server
from tests.upstream import Upstream, event_stream, json_reply
from workers.http import Http
from workers.providers import make
from workers.providers.base import Provider

FIXTURES = Path(__file__).parents[1] / "fixtures" / "gemini"
ANSWERS = [
    "blocked",
    "cached",
    "grounded",
    "image",
    "logprobs",
    "safety",
    "text",
    "thinking",
    "tools",
]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
REASONS = {
    types.FinishReason.STOP: "stop",
    types.FinishReason.SAFETY: "content_filter",
    None: "content_filter",
}


@pytest.fixture
def provider(upstream: Upstream, http: Http) -> Provider:
    config = ProviderConfig(dialect="gemini", base_url=f"{upstream.url}/v1beta", api_key=KEY)
    return make("google", config, http, Clock())


@pytest.fixture
async def sdk(upstream: Upstream) -> AsyncIterator[genai.client.AsyncClient]:
    """Google's own client, at the scripted server."""
    async with httpx.AsyncClient() as http:
        options = types.HttpOptions(
            base_url=upstream.url, api_version="v1beta", httpx_async_client=http
        )
        yield genai.Client(api_key=KEY, http_options=options).aio


def parts_of(response: types.GenerateContentResponse) -> list[types.Part]:
    candidates = response.candidates or [types.Candidate()]
    content = candidates[0].content
    return (content.parts if content else None) or []


def in_the_sdks_words(response: types.GenerateContentResponse) -> dict[str, Any]:
    """What the SDK reads in an answer, field by field as ours shall say it."""
    parts = parts_of(response)
    spoken = [part for part in parts if not part.thought]
    calls = [
        (part.function_call.id, part.function_call.name, part.function_call.args)
        for part in parts
        if part.function_call
    ]
    signatures = [
        base64.b64encode(part.thought_signature).decode()
        for part in parts
        if part.thought_signature
    ]
    images = [
        f"data:{part.inline_data.mime_type};base64,"
        + base64.b64encode(part.inline_data.data or b"").decode()
        for part in parts
        if part.inline_data
    ]
    reason = response.candidates[0].finish_reason if response.candidates else None
    usage = response.usage_metadata
    assert usage is not None
    return {
        "text": "".join(part.text or "" for part in spoken),
        "thoughts": "".join(part.text or "" for part in parts if part.thought),
        "calls": calls,
        "signatures": signatures,
        "images": images,
        "reason": "tool_calls" if calls else REASONS[reason],
        "prompt": (usage.prompt_token_count or 0) + (usage.tool_use_prompt_token_count or 0),
        "cached": usage.cached_content_token_count or 0,
        "thought": usage.thoughts_token_count or 0,
        "total": usage.total_token_count,
    }


def signature_of(owner: dict[str, Any]) -> list[str]:
    signature = owner.get("extra_content", {}).get("google", {}).get("thought_signature")
    return [signature] if signature else []


def in_one_spelling(value: Any) -> Any:
    """Google takes fields in either of its spellings; the SDK uses both."""
    if isinstance(value, list):
        return [in_one_spelling(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        re.sub("_(.)", lambda found: found[1].upper(), name): in_one_spelling(one)
        for name, one in value.items()
    }


@pytest.mark.parametrize("name", ANSWERS)
async def test_googles_sdk_reads_the_same_in_an_answer(
    provider: Provider, sdk: genai.client.AsyncClient, upstream: Upstream, name: str
) -> None:
    upstream.script(json_reply((FIXTURES / f"{name}.json").read_bytes()))
    theirs = in_the_sdks_words(await sdk.models.generate_content(model="m", contents="x"))
    ours = await provider.complete(ask_of())
    (choice,) = json.loads(ours.body)["choices"]
    message = choice["message"]
    calls = message.get("tool_calls", [])
    assert theirs == {
        "text": message["content"] or "",
        "thoughts": message.get("reasoning_content", ""),
        "calls": [
            (call["id"], call["function"]["name"], json.loads(call["function"]["arguments"]))
            for call in calls
        ],
        "signatures": [one for owner in (message, *calls) for one in signature_of(owner)],
        "images": [image["image_url"]["url"] for image in message.get("images", [])],
        "reason": choice["finish_reason"],
        "prompt": ours.usage.prompt,
        "cached": ours.usage.cached_input,
        "thought": ours.usage.reasoning,
        "total": ours.usage.prompt + ours.usage.completion,
    }


@pytest.mark.parametrize("name", ["text", "thinking", "tools"])
async def test_googles_sdk_reads_the_same_in_a_stream(
    provider: Provider, sdk: genai.client.AsyncClient, upstream: Upstream, name: str
) -> None:
    upstream.script(event_stream((FIXTURES / f"{name}.sse").read_bytes()))
    pieces = [
        piece async for piece in await sdk.models.generate_content_stream(model="m", contents="x")
    ]
    told = await read(provider, ask_of(stream=True))
    parts = [part for piece in pieces for part in parts_of(piece)]
    deltas = [chunk["choices"][0]["delta"] for chunk in told.chunks]
    assert told.text() == "".join(part.text or "" for part in parts if not part.thought)
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "".join(
        part.text or "" for part in parts if part.thought
    )
    assert [
        (call["id"], call["function"]["name"], json.loads(call["function"]["arguments"]))
        for delta in deltas
        for call in delta.get("tool_calls", ())
    ] == [
        (part.function_call.id, part.function_call.name, part.function_call.args)
        for part in parts
        if part.function_call
    ]
    usage = pieces[-1].usage_metadata
    assert usage is not None and told.end is not None
    assert told.end.usage.prompt + told.end.usage.completion == usage.total_token_count


async def test_googles_sdk_asks_in_the_same_words(
    provider: Provider, sdk: genai.client.AsyncClient, upstream: Upstream
) -> None:
    upstream.script(json_reply(chat_answer({"text": "x"})))
    signature = base64.b64encode(b"signature").decode()
    function = {"name": "f", "description": "F.", "parameters": SCHEMA}
    call = {
        "id": "8f2b1a3c",
        "type": "function",
        "function": {"name": "f", "arguments": '{"a": 1}'},
        "extra_content": {"google": {"thought_signature": signature}},
    }
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    ask = ask_of(
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Look"}, image]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "8f2b1a3c", "content": '{"b": [2]}'},
        ],
        tools=[{"type": "function", "function": function}],
        tool_choice={"type": "function", "function": {"name": "f"}},
        max_tokens=100,
        temperature=0.5,
        top_p=0.25,
        top_k=3,
        stop=["."],
        seed=7,
        n=2,
        presence_penalty=0.5,
        frequency_penalty=0.25,
        logprobs=True,
        top_logprobs=2,
        reasoning_effort="low",
        response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}},
    )
    await provider.complete(ask._replace(engine="gemini-2.5-flash"))
    called = types.FunctionCall(id="8f2b1a3c", name="f", args={"a": 1})
    answered = types.FunctionResponse(id="8f2b1a3c", name="f", response={"b": [2]})
    declared = types.FunctionDeclaration(name="f", description="F.", parameters_json_schema=SCHEMA)
    calling = types.FunctionCallingConfig(
        mode=types.FunctionCallingConfigMode.ANY, allowed_function_names=["f"]
    )
    pixel = types.Blob(mime_type="image/png", data=base64.b64decode("iVBORw0KGgo="))
    await sdk.models.generate_content(
        model="gemini-2.5-flash",
        contents=[
            types.Content(
                role="user", parts=[types.Part(text="Look"), types.Part(inline_data=pixel)]
            ),
            types.Content(
                role="model",
                parts=[types.Part(function_call=called, thought_signature=b"signature")],
            ),
            types.Content(role="user", parts=[types.Part(function_response=answered)]),
        ],
        config=types.GenerateContentConfig(
            system_instruction=types.Content(parts=[types.Part(text="Be brief.")]),
            tools=[types.Tool(function_declarations=[declared])],
            tool_config=types.ToolConfig(function_calling_config=calling),
            max_output_tokens=100,
            temperature=0.5,
            top_p=0.25,
            top_k=3,
            stop_sequences=["."],
            seed=7,
            candidate_count=2,
            presence_penalty=0.5,
            frequency_penalty=0.25,
            response_logprobs=True,
            logprobs=2,
            thinking_config=types.ThinkingConfig(thinking_budget=1024, include_thoughts=True),
            response_mime_type="application/json",
            response_json_schema=SCHEMA,
        ),
    )
    ours, theirs = upstream.requests
    assert ours.path == theirs.path
    assert ours.headers["x-goog-api-key"] == theirs.headers["x-goog-api-key"]
    assert ours.json == in_one_spelling(theirs.json)


async def test_googles_sdk_asks_for_embeddings_in_the_same_words(
    provider: Provider, sdk: genai.client.AsyncClient, upstream: Upstream
) -> None:
    upstream.script(json_reply((FIXTURES / "embeddings.json").read_bytes()))
    body = json.dumps({"input": ["a", "b", "c"], "dimensions": 3, "task_type": "CLUSTERING"})
    answer = await provider.embed(ask_of()._replace(body=body.encode(), engine="e"))
    config = types.EmbedContentConfig(output_dimensionality=3, task_type="CLUSTERING")
    told = await sdk.models.embed_content(model="e", contents=["a", "b", "c"], config=config)
    ours, theirs = upstream.requests
    assert ours.path == theirs.path
    asked = theirs.json
    for request in asked["requests"]:
        del request["content"]["role"]
    assert ours.json == asked
    assert [one["embedding"] for one in json.loads(answer.body)["data"]] == [
        one.values for one in told.embeddings or []
    ]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLMock]:
    log = tmp_path_factory.mktemp("llmock") / "log"
    with llmock_server(log, "--response-style", "echo") as server:
        yield server


@pytest.fixture
def mocked(server: LLMock, http: Http) -> Provider:
    """The adapter, at llmock."""
    url = f"{server.url}/gemini/v1beta"
    config = ProviderConfig(dialect="gemini", base_url=url, api_key="key-for-llmock-0123456789")
    return make("llmock", config, http, Clock())


async def test_llmocks_answer_is_the_same_whole_and_streamed(mocked: Provider) -> None:
    answer = await mocked.complete(ask_of(says="Is anybody there?"))
    shown = json.loads(answer.body)
    told = await read(mocked, ask_of(stream=True, says="Is anybody there?"))
    assert "Is anybody there?" in shown["choices"][0]["message"]["content"]
    assert told.failure is None and told.end is not None
    assert told.text() == shown["choices"][0]["message"]["content"]
    assert told.end.usage == answer.usage and answer.usage.status == "reported"
    assert answer.usage.prompt > 0 and answer.usage.completion > 0
    assert told.finish_reasons() == {0: "stop"}


@both
async def test_llmock_calls_tools(server: LLMock, mocked: Provider, stream: bool) -> None:
    called = [{"name": f"f{at}", "arguments": {"city": "Reykjavik", "n": at}} for at in range(2)]
    server.script({"type": "reply", "tool_calls": called})
    tools = [{"type": "function", "function": {"name": "f0"}}]
    if stream:
        told = await read(mocked, ask_of(stream=True, tools=tools))
        assert told.end is not None and told.end.finish_reason == "tool_calls"
        calls = [
            call
            for chunk in told.chunks
            for call in chunk["choices"][0]["delta"].get("tool_calls", ())
        ]
    else:
        shown = json.loads((await mocked.complete(ask_of(tools=tools))).body)
        calls = shown["choices"][0]["message"]["tool_calls"]
    functions = [call["function"] for call in calls]
    assert [
        {"name": one["name"], "arguments": json.loads(one["arguments"])} for one in functions
    ] == called


async def test_llmock_takes_a_conversation_with_results(mocked: Provider) -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    ask = ask_of(
        messages=[
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "a", "content": "Rain"},
        ]
    )
    shown = json.loads((await mocked.complete(ask)).body)
    assert "Weather?" in shown["choices"][0]["message"]["content"]


@both
@pytest.mark.parametrize(
    ("status", "shown", "kind"),
    [
        (400, 400, "invalid_request_error"),
        (401, 502, "provider_error"),
        (404, 404, "invalid_request_error"),
        (429, 429, "rate_limit_error"),
        (500, 502, "provider_error"),
        (503, 502, "provider_error"),
    ],
)
async def test_llmocks_errors_are_told_by_the_table(
    server: LLMock, mocked: Provider, stream: bool, status: int, shown: int, kind: str
) -> None:
    server.script({"type": "fail", "status": status, "retry_after": 3})
    failure = await outcome(mocked, ask_of(stream=stream))
    assert (failure.info.status, failure.info.type) == (shown, kind)
    assert failure.reached and (status != 429 or failure.retry_after == 3)


@pytest.mark.parametrize("kind", ["disconnect", "truncate", "malformed"])
async def test_a_stream_of_llmock_that_breaks_never_ends_well(
    server: LLMock, mocked: Provider, kind: str
) -> None:
    server.script({"type": "stream_fault", "kind": kind, "after_chunks": 3})
    told = await read(mocked, ask_of(stream=True, says="one two three four five six"))
    assert told.end is None and told.failure is not None
    assert told.failure.info.status == 502 and told.text()
