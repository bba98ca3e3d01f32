"""The openai adapter against a provider that somebody else wrote, over HTTP."""

import json
from collections.abc import AsyncIterator, Iterator

import pytest

from schemas.call import Timeouts
from schemas.config import ProviderConfig
from schemas.ids import Clock
from tests.contract.provider_contract import ask_of, both, outcome, read
from tests.llmock_server import LLMock, llmock_server
from workers.http import Http
from workers.providers import make
from workers.providers.base import Provider


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLMock]:
    log = tmp_path_factory.mktemp("llmock") / "log"
    with llmock_server(log, "--response-style", "echo") as server:
        yield server


@pytest.fixture
async def provider(server: LLMock) -> AsyncIterator[Provider]:
    http = Http(Clock(), limit=20)
    config = ProviderConfig(base_url=f"{server.url}/v1", api_key="sk-for-llmock-0123456789")
    yield make("llmock", config, http, Clock())
    await http.close()


async def test_a_whole_answer(provider: Provider) -> None:
    answer = await provider.complete(ask_of(says="Is anybody there?"))
    shown = json.loads(answer.body)
    assert "Is anybody there?" in shown["choices"][0]["message"]["content"]
    assert shown["id"] == "chatcmpl-0193-call" and shown["model"] == "the-clients-name"
    assert answer.usage.status == "reported"
    assert answer.usage.prompt == shown["usage"]["prompt_tokens"] > 0
    assert answer.finish_reason == "stop"


async def test_a_stream_says_the_same_and_reports_its_usage(provider: Provider) -> None:
    whole = await provider.complete(ask_of(says="Is anybody there?"))
    told = await read(provider, ask_of(stream=True, says="Is anybody there?"))
    assert told.failure is None and told.end is not None
    assert told.text() == json.loads(whole.body)["choices"][0]["message"]["content"]
    assert told.end.usage == whole.usage
    assert told.finish_reasons() == {0: "stop"}
    assert not any("usage" in chunk for chunk in told.chunks)


async def test_a_tool_is_called_in_pieces(server: LLMock, provider: Provider) -> None:
    call = {"name": "get_weather", "arguments": {"city": "Reykjavik", "unit": "celsius"}}
    server.script({"type": "reply", "tool_calls": [call]})
    tools = [{"type": "function", "function": {"name": "get_weather", "parameters": {}}}]
    told = await read(provider, ask_of(stream=True, tools=tools))
    assert told.end is not None and told.end.finish_reason == "tool_calls"
    pieces = [
        piece["function"].get("arguments", "")
        for chunk in told.chunks
        for piece in chunk["choices"][0]["delta"].get("tool_calls", ())
    ]
    assert len(pieces) > 2 and json.loads("".join(pieces)) == call["arguments"]


async def test_several_choices(provider: Provider) -> None:
    told = await read(provider, ask_of(stream=True, n=3))
    assert told.finish_reasons() == {0: "stop", 1: "stop", 2: "stop"}


@both
@pytest.mark.parametrize(
    ("status", "shown", "kind"),
    [
        (400, 400, "invalid_request_error"),
        (401, 502, "provider_error"),
        (404, 404, "invalid_request_error"),
        (500, 502, "provider_error"),
        (503, 502, "provider_error"),
    ],
)
async def test_errors_are_told_by_the_table(
    server: LLMock, provider: Provider, stream: bool, status: int, shown: int, kind: str
) -> None:
    server.script({"type": "fail", "status": status})
    failure = await outcome(provider, ask_of(stream=stream))
    assert (failure.info.status, failure.info.type) == (shown, kind)
    assert failure.reached


async def test_a_rate_limit_names_its_wait(server: LLMock, provider: Provider) -> None:
    server.script({"type": "fail", "status": 429, "retry_after": 3})
    failure = await outcome(provider, ask_of())
    assert failure.info.status == 429 and failure.retryable
    assert failure.retry_after == 3


@pytest.mark.parametrize("kind", ["disconnect", "truncate", "malformed"])
async def test_a_stream_that_breaks_never_ends_well(
    server: LLMock, provider: Provider, kind: str
) -> None:
    server.script({"type": "stream_fault", "kind": kind, "after_chunks": 3})
    told = await read(provider, ask_of(stream=True, says="one two three four five six"))
    assert told.end is None and told.failure is not None
    assert told.failure.info.status == 502
    assert len(told.chunks) == 3


async def test_a_stream_that_stalls_times_out(server: LLMock, provider: Provider) -> None:
    server.script({"type": "stream_fault", "kind": "stall", "after_chunks": 2, "stall_seconds": 30})
    hasty = Timeouts(connect=5, first_byte=5, idle=0.2, total=5)
    told = await read(provider, ask_of(stream=True, says="one two three", timeouts=hasty))
    assert told.failure is not None and told.failure.info.code == "timeout"
    assert len(told.chunks) == 2
