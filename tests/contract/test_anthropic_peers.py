"""The anthropic adapter beside what others wrote: Anthropic's own SDK, and llmock as a server."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from anthropic import APIStatusError, AsyncAnthropic
from anthropic.types import Message

from tests.contract.anthropic_stage import KEY, anthropic_at, error
from tests.contract.provider_contract import Told, ask_of, both, outcome, read
from tests.llmock_server import LLMock, llmock_server
from tests.upstream import Upstream, event_stream, json_reply
from workers.http import Http
from workers.providers.base import Provider

FIXTURES = Path(__file__).parents[1] / "fixtures" / "anthropic"
ANSWERS = sorted(path.name for path in FIXTURES.glob("*.json"))
STREAMS = sorted(path.name for path in FIXTURES.glob("*.sse") if path.stem != "overloaded")
TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {}}}]
ASKED: Any = {
    "model": "claude-haiku-4-5-20251001",
    "max_tokens": 4096,
    "messages": [{"role": "user", "content": [{"type": "text", "text": "Tell me"}]}],
}
REASONS = {
    "stop": {"end_turn", "stop_sequence", "pause_turn"},
    "length": {"max_tokens", "model_context_window_exceeded"},
    "tool_calls": {"tool_use"},
    "content_filter": {"refusal"},
}


@pytest.fixture
async def sdk(upstream: Upstream) -> AsyncIterator[AsyncAnthropic]:
    """Anthropic's own SDK at the scripted server."""
    async with AsyncAnthropic(api_key=KEY, base_url=upstream.url, max_retries=0) as client:
        yield client


@pytest.fixture
def scripted(upstream: Upstream, http: Http) -> Provider:
    """The adapter at the scripted server."""
    return anthropic_at(upstream.url, http)


@pytest.fixture(scope="module")
def llmock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLMock]:
    log = tmp_path_factory.mktemp("llmock") / "log"
    with llmock_server(log, "--response-style", "echo") as server:
        yield server


@pytest.fixture
def simulated(llmock: LLMock, http: Http) -> Provider:
    """The adapter at llmock."""
    return anthropic_at(f"{llmock.url}/anthropic/v1", http)


def as_openai_says_it(theirs: Message) -> dict[str, Any]:
    """A message that the SDK has read, field by field in our words."""
    said: dict[str, Any] = {
        "content": "",
        "reasoning_content": "",
        "thinking_blocks": [],
        "tool_calls": [],
        "citations": [],
        "refusal": (theirs.stop_details and theirs.stop_details.explanation) or "",
    }
    for block in theirs.content:
        if block.type == "text":
            said["content"] += block.text
            said["citations"] += [cited.model_dump() for cited in block.citations or ()]
        elif block.type == "thinking":
            said["reasoning_content"] += block.thinking
            said["thinking_blocks"].append(block.model_dump())
        elif block.type == "redacted_thinking":
            said["thinking_blocks"].append(block.model_dump())
        elif block.type == "tool_use":
            said["tool_calls"].append((block.id, block.name, block.input))
    return said


def as_given(ours: dict[str, Any]) -> dict[str, Any]:
    """Our message with all its fields, its calls decoded."""
    calls = [
        (call["id"], call["function"]["name"], json.loads(call["function"]["arguments"]))
        for call in ours.get("tool_calls", ())
    ]
    texts = {name: ours.get(name) or "" for name in ("content", "reasoning_content", "refusal")}
    lists = {name: ours.get(name, []) for name in ("thinking_blocks", "citations")}
    return {**texts, **lists, "tool_calls": calls}


def put_together(told: Told) -> dict[str, Any]:
    """The message that a client puts together from the deltas of a stream."""
    said: dict[str, Any] = {"tool_calls": []}
    for chunk in told.chunks:
        for name, value in chunk["choices"][0]["delta"].items():
            if name == "tool_calls":
                _put_together(said["tool_calls"], value)
            elif name in said:
                said[name] += value
            else:
                said[name] = value
    return said


def _put_together(calls: list[dict[str, Any]], pieces: list[dict[str, Any]]) -> None:
    for piece in pieces:
        if piece["index"] == len(calls):
            calls.append(piece)
        else:
            calls[piece["index"]]["function"]["arguments"] += piece["function"]["arguments"]


@pytest.mark.parametrize("name", ANSWERS)
async def test_the_sdk_reads_the_same_in_a_whole_answer(
    upstream: Upstream, scripted: Provider, sdk: AsyncAnthropic, name: str
) -> None:
    upstream.script(json_reply((FIXTURES / name).read_bytes()))
    theirs: Message = await sdk.messages.create(**ASKED)
    answer = await scripted.complete(ask_of())
    (choice,) = json.loads(answer.body)["choices"]
    assert as_given(choice["message"]) == as_openai_says_it(theirs)
    assert theirs.stop_reason in REASONS[answer.finish_reason]
    _counted_alike(answer.usage, theirs)


@pytest.mark.parametrize("name", STREAMS)
async def test_the_sdk_reads_the_same_in_a_stream(
    upstream: Upstream, scripted: Provider, sdk: AsyncAnthropic, name: str
) -> None:
    upstream.script(event_stream((FIXTURES / name).read_bytes()))
    async with sdk.messages.stream(**ASKED) as events:
        theirs: Message = await events.get_final_message()
    told = await read(scripted, ask_of(stream=True))
    assert told.end is not None
    assert as_given(put_together(told)) == as_openai_says_it(theirs)
    assert theirs.stop_reason in REASONS[told.end.finish_reason]
    _counted_alike(told.end.usage, theirs)


def _counted_alike(ours: Any, theirs: Message) -> None:
    counts = theirs.usage
    written = counts.cache_creation_input_tokens or 0
    kept = counts.cache_creation.ephemeral_1h_input_tokens if counts.cache_creation else 0
    details = counts.output_tokens_details
    assert ours.status == "reported"
    assert ours.input == counts.input_tokens
    assert ours.cached_input == (counts.cache_read_input_tokens or 0)
    assert (ours.cache_write, ours.cache_write_1h) == (written - kept, kept)
    assert ours.completion == counts.output_tokens
    assert ours.reasoning == (details.thinking_tokens if details else 0)


async def test_the_sdk_asks_the_same_of_the_server(
    upstream: Upstream, scripted: Provider, sdk: AsyncAnthropic
) -> None:
    upstream.script(json_reply((FIXTURES / "message.json").read_bytes()))
    await sdk.messages.create(**ASKED)
    await scripted.complete(ask_of()._replace(engine=ASKED["model"]))
    theirs, ours = upstream.requests
    assert (ours.method, ours.path, ours.json) == (theirs.method, theirs.path, theirs.json)
    assert "anthropic-version" in theirs.headers and "anthropic-version" in ours.headers


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (529, "overloaded_error"),
    ],
)
async def test_the_sdk_reads_the_same_error(
    upstream: Upstream, scripted: Provider, sdk: AsyncAnthropic, status: int, kind: str
) -> None:
    upstream.script(json_reply(error(kind, "What went wrong."), status))
    with pytest.raises(APIStatusError) as caught:
        await sdk.messages.create(**ASKED)
    failure = await outcome(scripted, ask_of())
    assert caught.value.status_code == status and caught.value.type == kind
    assert caught.value.api_message is not None
    assert caught.value.api_message in failure.info.message


async def test_the_sdk_fails_where_a_stream_is_overloaded(
    upstream: Upstream, scripted: Provider, sdk: AsyncAnthropic
) -> None:
    upstream.script(event_stream((FIXTURES / "overloaded.sse").read_bytes()))
    text = ""
    with pytest.raises(APIStatusError, match="Overloaded"):
        async with sdk.messages.stream(**ASKED) as events:
            async for piece in events.text_stream:
                text += piece
    told = await read(scripted, ask_of(stream=True))
    assert told.text() == text == "Hel"
    assert told.failure is not None and "Overloaded" in told.failure.info.message


async def test_llmock_answers_whole_and_streamed_alike(simulated: Provider) -> None:
    answer = await simulated.complete(ask_of(says="Is anybody there?"))
    text = json.loads(answer.body)["choices"][0]["message"]["content"]
    told = await read(simulated, ask_of(stream=True, says="Is anybody there?"))
    assert "Is anybody there?" in text and told.text() == text
    assert told.end is not None and told.end.usage == answer.usage
    assert answer.usage.status == "reported" and answer.usage.prompt > 0
    assert told.finish_reasons() == {0: "stop"} and answer.finish_reason == "stop"


async def test_llmock_takes_a_whole_conversation(simulated: Provider) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    call = {"id": "c", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What is this?"}, image]},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "Rain"},
        {"role": "user", "content": "Go on"},
    ]
    answer = await simulated.complete(ask_of(messages=messages, tools=TOOLS, stop=["END"]))
    assert "Go on" in json.loads(answer.body)["choices"][0]["message"]["content"]


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
    if stream:
        told = await read(simulated, ask)
        said, reason = put_together(told), told.finish_reasons()[0]
    else:
        answer = await simulated.complete(ask)
        (choice,) = json.loads(answer.body)["choices"]
        said, reason = choice["message"], answer.finish_reason
    arguments = [arguments for _, _, arguments in as_given(said)["tool_calls"]]
    assert arguments == [one["arguments"] for one in wanted] and reason == "tool_calls"


@both
@pytest.mark.parametrize(
    ("status", "shown"),
    [(400, 400), (401, 502), (404, 404), (429, 429), (500, 502), (503, 502), (529, 502)],
)
async def test_llmock_fails_as_it_was_told(
    llmock: LLMock, simulated: Provider, stream: bool, status: int, shown: int
) -> None:
    llmock.script({"type": "fail", "status": status})
    failure = await outcome(simulated, ask_of(stream=stream))
    assert failure.info.status == shown and failure.info.provider == "anthropic"


@pytest.mark.parametrize("kind", ["disconnect", "truncate", "malformed"])
async def test_a_stream_that_llmock_breaks_never_ends_well(
    llmock: LLMock, simulated: Provider, kind: str
) -> None:
    llmock.script({"type": "stream_fault", "kind": kind, "after_chunks": 5})
    told = await read(simulated, ask_of(stream=True, says="one two three four five six"))
    assert told.end is None and told.failure is not None and told.text()
    assert told.failure.info.status == 502
