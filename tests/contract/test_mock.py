"""The mock keeps the contract of providers, and does what its script says."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from schemas.config import ProviderConfig
from schemas.ids import Clock
from tests.contract.provider_contract import (
    ProviderContract,
    Scene,
    Stage,
    ask_of,
    outcome,
    read,
)
from workers.http import Http
from workers.providers import make
from workers.providers.mock import Mock


class MockStage:
    """Scenes are played by the script in the header."""

    lacks: frozenset[str] = frozenset()

    def __init__(self, provider: Mock) -> None:
        self.provider = provider

    def play(self, scene: Scene) -> dict[str, str]:
        script: list[str] = [] if scene.echoes else [f"chunks={scene.chunks}"]
        if not scene.reports_usage:
            script.append("usage=none")
        if scene.tool:
            script += [f"tool={scene.tool}", f"calls={scene.calls}"]
        if scene.status != 200:
            script.append(f"error={scene.status}")
        if scene.retry_after:
            script.append(f"retry_after={scene.retry_after}")
        if scene.cut is not None:
            script.append(f"cut={scene.cut}")
        if scene.hang is not None:
            script.append("hang=mid" if scene.hang else "hang=first")
        return {"X-Mock": ",".join(script)}

    async def busy(self) -> None:
        await self._until(lambda: self.provider.meter.running > 0)

    async def quiet(self) -> None:
        await self._until(lambda: self.provider.meter.running == 0)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():  # noqa: ASYNC110 - the meter is plain numbers
            await asyncio.sleep(0)


@asynccontextmanager
async def mock(script: str = "") -> AsyncIterator[Mock]:
    http = Http(Clock(), limit=1)
    config = ProviderConfig(dialect="mock", options={"script": script})
    try:
        provider = make("mock", config, http, Clock())
        assert isinstance(provider, Mock)
        yield provider
    finally:
        await http.close()


class TestMock(ProviderContract):
    @pytest.fixture
    async def stage(self) -> AsyncIterator[Stage]:
        async with mock() as provider:
            yield MockStage(provider)


@pytest.fixture
async def provider() -> AsyncIterator[Mock]:
    async with mock() as provider:
        yield provider


async def test_the_same_request_gets_the_same_answer(provider: Mock) -> None:
    ask = ask_of(says="What is new?")
    first, second = await provider.complete(ask), await provider.complete(ask)
    assert first.body == second.body
    assert "What is new?" in json.loads(first.body)["choices"][0]["message"]["content"]


async def test_tokens_are_words(provider: Mock) -> None:
    told = await read(provider, ask_of({"x-mock": "tokens=50"}, stream=True, says="one two three"))
    assert told.end is not None
    assert (told.end.usage.input, told.end.usage.output) == (3, 50)
    assert len(told.text().split()) == 50


async def test_max_tokens_cuts_the_answer_short(provider: Mock) -> None:
    answer = await provider.complete(ask_of(max_tokens=4))
    assert answer.finish_reason == "length"
    assert answer.usage.output == 4


async def test_logprobs_come_when_asked(provider: Mock) -> None:
    told = await read(provider, ask_of(stream=True, logprobs=True))
    tokens = [
        entry["token"]
        for chunk in told.chunks
        for entry in (chunk["choices"][0]["logprobs"] or {"content": []})["content"]
    ]
    assert "".join(tokens) == told.text()


async def test_the_first_attempts_of_a_call_can_fail(provider: Mock) -> None:
    headers = {"X-Mock": "error=503,fails=2"}
    for _ in range(2):
        assert (await outcome(provider, ask_of(headers))).info.status == 502
    assert (await provider.complete(ask_of(headers))).finish_reason == "stop"
    other = ask_of(headers)._replace(call_id="another")
    assert (await outcome(provider, other)).info.status == 502


async def test_an_error_can_come_in_the_middle(provider: Mock) -> None:
    told = await read(provider, ask_of({"X-Mock": "error=500,status_after=3"}, stream=True))
    assert told.failure is not None and not told.failure.retryable
    assert len(told.deltas) == 3


async def test_the_header_overrides_the_configured_script() -> None:
    async with mock("error=500,tokens=5") as provider:
        assert (await outcome(provider, ask_of())).info.status == 502
        failure = await outcome(provider, ask_of({"X-Mock": "error=429"}))
        assert failure.info.status == 429


@pytest.mark.parametrize(
    "script", ["latency=slow", "speed=1", "error=200", "chunks=-1", "cut", "tokens=nan"]
)
async def test_a_script_that_makes_no_sense_is_the_clients_fault(
    provider: Mock, script: str
) -> None:
    failure = await outcome(provider, ask_of({"X-Mock": script}))
    assert (failure.info.status, failure.info.param) == (400, "X-Mock")
    with pytest.raises(ValueError, match=r"providers\.mock\.options\.script"):
        async with mock(script):
            pass


async def test_the_meter_counts_like_a_bill(provider: Mock) -> None:
    await provider.complete(ask_of(says="one two", n=2, max_tokens=5))
    await outcome(provider, ask_of({"X-Mock": "error=500"}, says="three"))
    pieces = provider.stream(ask_of({"X-Mock": "chunks=10,tokens=10"}, stream=True, says="four"))
    await anext(pieces)
    await pieces.aclose()
    meter = provider.meter
    assert (meter.calls, meter.failed, meter.cancelled, meter.running) == (3, 1, 1, 0)
    assert (meter.prompt_tokens, meter.completion_tokens) == (4, 11)
