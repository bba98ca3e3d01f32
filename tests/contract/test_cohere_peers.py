"""The cohere adapter beside what others wrote: against llmock, and beside Cohere's own SDK."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cohere import AsyncClientV2

from schemas.config import ProviderConfig
from schemas.ids import Clock
from tests.contract.provider_contract import ask_of, both, outcome, read
from tests.llmock_server import LLMock, llmock_server
from tests.upstream import Upstream, event_stream, json_reply
from workers.http import Http
from workers.providers import make
from workers.providers.base import Provider

FIXTURES = Path(__file__).parents[1] / "fixtures" / "cohere"
HELLO = [{"role": "user", "content": "hello"}]
TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {}}}]


@pytest.fixture(scope="module")
def llmock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLMock]:
    log = tmp_path_factory.mktemp("llmock") / "log"
    with llmock_server(log, "--response-style", "echo") as server:
        yield server


@pytest.fixture
def simulated(llmock: LLMock, http: Http) -> Provider:
    """The adapter at llmock."""
    config = ProviderConfig(
        dialect="cohere", base_url=f"{llmock.url}/cohere/v2", api_key="co-for-llmock-0123456789"
    )
    return make("llmock", config, http, Clock())


@pytest.fixture
def scripted(upstream: Upstream, http: Http) -> Provider:
    """The adapter at the scripted server."""
    config = ProviderConfig(dialect="cohere", base_url=f"{upstream.url}/v2")
    return make("cohere", config, http, Clock())


@pytest.fixture
async def sdk(upstream: Upstream) -> AsyncIterator[AsyncClientV2]:
    """Cohere's own SDK at the scripted server."""
    async with httpx.AsyncClient() as client:
        yield AsyncClientV2(api_key="x", base_url=upstream.url, httpx_client=client)


async def test_llmock_answers_whole_and_streamed_alike(simulated: Provider) -> None:
    answer = await simulated.complete(ask_of(says="Is anybody there?"))
    text = json.loads(answer.body)["choices"][0]["message"]["content"]
    told = await read(simulated, ask_of(stream=True, says="Is anybody there?"))
    assert "Is anybody there?" in text and told.text() == text
    assert told.end is not None and told.end.usage == answer.usage
    assert answer.usage.status == "reported" and answer.usage.prompt > 0
    assert told.finish_reasons() == {0: "stop"} and answer.finish_reason == "stop"


@both
async def test_llmock_calls_two_tools_at_once(
    llmock: LLMock, simulated: Provider, stream: bool
) -> None:
    wanted = [
        {"name": "get_weather", "arguments": {"city": city, "unit": "celsius"}}
        for city in ("Reykjavik", "Paris")
    ]
    llmock.script({"type": "reply", "tool_calls": wanted})
    ask = ask_of(stream=stream, tools=TOOLS)
    arguments = ["", ""]
    if stream:
        told = await read(simulated, ask)
        assert told.end is not None and told.end.finish_reason == "tool_calls"
        for chunk in told.chunks:
            for call in chunk["choices"][0]["delta"].get("tool_calls", ()):
                arguments[call["index"]] += call["function"]["arguments"]
    else:
        shown = json.loads((await simulated.complete(ask)).body)["choices"][0]
        arguments = [call["function"]["arguments"] for call in shown["message"]["tool_calls"]]
    assert [json.loads(one) for one in arguments] == [one["arguments"] for one in wanted]


@both
@pytest.mark.parametrize(
    ("status", "shown"), [(400, 400), (401, 502), (404, 404), (429, 429), (500, 502), (503, 502)]
)
async def test_llmock_fails_as_it_was_told(
    llmock: LLMock, simulated: Provider, stream: bool, status: int, shown: int
) -> None:
    llmock.script({"type": "fail", "status": status})
    failure = await outcome(simulated, ask_of(stream=stream))
    assert failure.info.status == shown and failure.info.provider == "llmock"


@pytest.mark.parametrize("kind", ["disconnect", "truncate", "malformed"])
async def test_a_stream_that_llmock_breaks_never_ends_well(
    llmock: LLMock, simulated: Provider, kind: str
) -> None:
    llmock.script({"type": "stream_fault", "kind": kind, "after_chunks": 4})
    told = await read(simulated, ask_of(stream=True, says="one two three four five six"))
    assert told.end is None and told.failure is not None and told.text()
    assert told.failure.info.status == 502


@pytest.mark.parametrize("name", ["chat.json", "thinking.json", "tools.json"])
async def test_the_sdk_reads_the_same_in_a_whole_answer(
    upstream: Upstream, scripted: Provider, sdk: AsyncClientV2, name: str
) -> None:
    upstream.script(json_reply((FIXTURES / name).read_bytes()))
    theirs = await sdk.chat(model="m", messages=HELLO)  # type: ignore[arg-type]
    answer = await scripted.complete(ask_of())
    ours = json.loads(answer.body)["choices"][0]["message"]
    contents = theirs.message.content or []
    texts = [part.text for part in contents if part.type == "text"]
    thoughts = [part.thinking for part in contents if part.type == "thinking"]
    assert (ours["content"] or "") == "".join(texts)
    assert ours.get("reasoning_content", "") == "".join(thoughts) + (theirs.message.tool_plan or "")
    assert [(call["id"], call["function"]) for call in ours.get("tool_calls", ())] == [
        (call.id, call.function and call.function.model_dump())
        for call in theirs.message.tool_calls or ()
    ]
    assert theirs.usage is not None and theirs.usage.billed_units is not None
    assert answer.usage.prompt == theirs.usage.billed_units.input_tokens
    assert answer.usage.completion == theirs.usage.billed_units.output_tokens


@pytest.mark.parametrize("name", ["chat.sse", "citations.sse", "tools.sse"])
async def test_the_sdk_reads_the_same_in_a_stream(
    upstream: Upstream, scripted: Provider, sdk: AsyncClientV2, name: str
) -> None:
    upstream.script(event_stream((FIXTURES / name).read_bytes()))
    text = plan = arguments = ""
    cited = 0
    async for event in sdk.chat_stream(model="m", messages=HELLO):  # type: ignore[arg-type]
        said: Any = getattr(getattr(event, "delta", None), "message", None)
        if event.type == "content-delta":
            text += said.content.text
        elif event.type == "tool-plan-delta":
            plan += said.tool_plan
        elif event.type == "tool-call-delta":
            arguments += said.tool_calls.function.arguments
        elif event.type == "citation-start":
            cited += 1
    told = await read(scripted, ask_of(stream=True))
    deltas = [chunk["choices"][0]["delta"] for chunk in told.chunks]
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    assert told.end is not None and told.text() == text
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == plan
    assert "".join(call["function"]["arguments"] for call in calls) == arguments
    assert sum("citations" in delta for delta in deltas) == cited
    assert text or plan


async def test_the_sdk_reads_the_same_embeddings(
    upstream: Upstream, scripted: Provider, sdk: AsyncClientV2
) -> None:
    upstream.script(json_reply((FIXTURES / "embed.json").read_bytes()))
    theirs = await sdk.embed(
        model="m", texts=["hello", "goodbye"], input_type="x", embedding_types=["float"]
    )
    body = json.dumps({"model": "m", "input": ["hello", "goodbye"]}).encode()
    ours = json.loads((await scripted.embed(ask_of()._replace(body=body))).body)
    assert [item["embedding"] for item in ours["data"]] == theirs.embeddings.float_
    asked = [request.json for request in upstream.requests]
    assert asked[0]["texts"] == asked[1]["texts"] and upstream.requests[0].path == "/v2/embed"
    assert asked[0]["embedding_types"] == asked[1]["embedding_types"]
