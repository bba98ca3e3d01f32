"""What every provider must keep, told without any dialect.

A provider's test inherits ProviderContract and gives the fixture `stage`: the provider wired to
something that can be told which Scene to play next.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol

import pytest

from schemas.call import Timeouts
from schemas.usage import Usage
from workers.providers.base import Answer, Ask, AttemptFailed, Deltas, Provider, StreamEnd

PATIENT = Timeouts(connect=5, first_byte=5, idle=5, total=5)
HASTY = 0.4
CLIENT_KEY = "sk-clients/own+key-0123456789-abcdefgh"


@dataclass(frozen=True)
class Scene:
    """What happens at the provider next: an answer of `chunks` pieces, and how it goes wrong.

    `cut` and `hang` come after so many chunks; `echoes` lets the answer hold what the user said.
    `calls` are how often `tool` is called at once, `thinks` what the model thinks before it
    answers, `logprobs` whether it tells those of its tokens, `vectors` the embeddings of a request
    for them, `usage` what the provider reports, told in its own words (None: 7 in, 3 out).
    """

    chunks: int = 3
    choices: int = 1
    reports_usage: bool = True
    tool: str = ""
    status: int = 200
    retry_after: str = ""
    cut: int | None = None
    hang: int | None = None
    echoes: bool = False
    calls: int = 1
    thinks: str = ""
    logprobs: bool = False
    vectors: tuple[tuple[float, ...], ...] = ()
    usage: Usage | None = None


class Stage(Protocol):
    """A provider and the power over what it meets.

    `lacks` are the parameters that it has no word for: a request with one is refused.
    """

    @property
    def provider(self) -> Provider: ...

    @property
    def lacks(self) -> frozenset[str]: ...

    def play(self, scene: Scene) -> dict[str, str]:
        """Arranges the scene for all attempts to come; returns the headers they must carry."""
        ...

    async def busy(self) -> None:
        """Returns once an attempt has reached the provider."""
        ...

    async def quiet(self) -> None:
        """Returns once nothing runs for the provider any more."""
        ...


@dataclass
class Told:
    """A stream that was read to its end, or to its failure."""

    deltas: list[Deltas] = field(default_factory=list)
    end: StreamEnd | None = None
    failure: AttemptFailed | None = None

    @property
    def chunks(self) -> list[dict[str, Any]]:
        parts = [part for deltas in self.deltas for part in deltas.parts]
        if self.end is not None and self.end.last:
            parts.append(self.end.last)
        return [json.loads(part) for part in parts]

    def text(self, choice: int = 0) -> str:
        return "".join(
            part["delta"].get("content") or ""
            for chunk in self.chunks
            for part in chunk["choices"]
            if part["index"] == choice
        )

    def finish_reasons(self) -> dict[int, str]:
        return {
            part["index"]: part["finish_reason"]
            for chunk in self.chunks
            for part in chunk["choices"]
            if part["finish_reason"]
        }


async def read(provider: Provider, ask: Ask) -> Told:
    """Reads a stream to its end; a failure is kept, not raised."""
    told = Told()
    try:
        async with aclosing(provider.stream(ask)) as pieces:
            async for piece in pieces:
                assert told.end is None, "nothing may follow the end of a stream"
                if isinstance(piece, StreamEnd):
                    told.end = piece
                else:
                    told.deltas.append(piece)
    except AttemptFailed as failure:
        told.failure = failure
    return told


def ask_of(
    headers: dict[str, str] | None = None,
    *,
    stream: bool = False,
    says: str = "Tell me",
    timeouts: Timeouts = PATIENT,
    **fields: Any,
) -> Ask:
    """An attempt at a chat whose user `says` this; `fields` are added to the body."""
    body = {
        "model": "the-clients-name",
        "messages": [{"role": "user", "content": says}],
        "stream": stream,
        **fields,
    }
    return Ask(
        call_id="0193-call",
        model="the-clients-name",
        engine="the-engine",
        body=json.dumps(body).encode(),
        stream=stream,
        created=1_700_000_000,
        headers=headers or {},
        timeouts=timeouts,
    )


async def outcome(provider: Provider, ask: Ask) -> AttemptFailed:
    """The failure of an attempt that must fail."""
    if ask.stream:
        told = await read(provider, ask)
        assert told.failure is not None and told.end is None
        return told.failure
    with pytest.raises(AttemptFailed) as caught:
        await provider.complete(ask)
    return caught.value


def is_the_gateways(shown: dict[str, Any], provider: Provider) -> bool:
    return (
        shown["id"] == "chatcmpl-0193-call"
        and shown["model"] == "the-clients-name"
        and shown["created"] == 1_700_000_000
        and shown["provider"] == provider.name
    )


both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


class ProviderContract:
    """Inherit, give `stage`, and every test below runs against the provider.

    Not every vendor streams the arguments of a tool call in pieces.
    """

    arguments_in_pieces = True

    @pytest.fixture
    async def stage(self) -> AsyncIterator[Stage]:
        pytest.fail("a test of the contract gives the fixture `stage`")
        yield

    async def test_a_whole_answer_is_canonical_and_knows_its_usage_and_times(
        self, stage: Stage
    ) -> None:
        answer = await stage.provider.complete(ask_of(stage.play(Scene())))
        shown = json.loads(answer.body)
        assert is_the_gateways(shown, stage.provider)
        assert shown["object"] == "chat.completion"
        assert shown["choices"][0]["message"]["content"]
        assert answer.finish_reason == "stop"
        assert answer.usage.status == "reported"
        assert answer.usage.prompt > 0 and answer.usage.completion > 0
        assert 0 < answer.sent <= answer.first_byte

    async def test_a_stream_is_canonical_ordered_and_ends_once(self, stage: Stage) -> None:
        headers = stage.play(Scene(chunks=20))
        whole = json.loads((await stage.provider.complete(ask_of(headers))).body)
        told = await read(stage.provider, ask_of(headers, stream=True))
        assert told.failure is None and told.end is not None
        assert all(is_the_gateways(chunk, stage.provider) for chunk in told.chunks)
        assert {chunk["object"] for chunk in told.chunks} == {"chat.completion.chunk"}
        assert len([chunk for chunk in told.chunks if _content(chunk)]) == 20
        assert told.text() == whole["choices"][0]["message"]["content"]
        assert sum(deltas.text_bytes for deltas in told.deltas) == len(told.text().encode())
        assert all(0 < deltas.sent <= deltas.first_byte for deltas in told.deltas)

    async def test_the_end_of_a_stream_holds_the_last_chunk_and_the_usage(
        self, stage: Stage
    ) -> None:
        told = await read(stage.provider, ask_of(stage.play(Scene()), stream=True))
        assert told.end is not None
        assert json.loads(told.end.last)["choices"][0]["finish_reason"] == "stop"
        assert told.end.finish_reason == "stop"
        assert told.end.usage.status == "reported"
        assert told.end.usage.prompt > 0 and told.end.usage.completion > 0
        assert not any("usage" in chunk for chunk in told.chunks)
        before = [part for deltas in told.deltas for part in deltas.parts]
        assert not any(b'"finish_reason":"stop"' in part for part in before)

    @both
    async def test_a_tool_call_arrives_whole(self, stage: Stage, stream: bool) -> None:
        tools = [{"type": "function", "function": {"name": "get_weather", "parameters": {}}}]
        ask = ask_of(stage.play(Scene(tool="get_weather")), stream=stream, tools=tools)
        if stream:
            told = await read(stage.provider, ask)
            assert told.end is not None and told.end.finish_reason == "tool_calls"
            calls = [
                call
                for chunk in told.chunks
                for call in chunk["choices"][0]["delta"].get("tool_calls", ())
            ]
            assert not self.arguments_in_pieces or len(calls) > 2
            assert sum(deltas.text_bytes for deltas in told.deltas) > 0
            identity, function = calls[0]["id"], calls[0]["function"]["name"]
            arguments = "".join(call["function"]["arguments"] for call in calls)
        else:
            answer = await stage.provider.complete(ask)
            assert answer.finish_reason == "tool_calls"
            (call,) = json.loads(answer.body)["choices"][0]["message"]["tool_calls"]
            identity, function = call["id"], call["function"]["name"]
            arguments = call["function"]["arguments"]
        assert identity and function == "get_weather"
        assert isinstance(json.loads(arguments), dict)

    @both
    async def test_calls_of_tools_at_once_arrive_each_with_its_own_id(
        self, stage: Stage, stream: bool
    ) -> None:
        tools = [{"type": "function", "function": {"name": "get_weather", "parameters": {}}}]
        ask = ask_of(stage.play(Scene(tool="get_weather", calls=2)), stream=stream, tools=tools)
        if stream:
            told = await read(stage.provider, ask)
            assert told.end is not None and told.end.finish_reason == "tool_calls"
            pieces = [
                call
                for chunk in told.chunks
                for call in chunk["choices"][0]["delta"].get("tool_calls", ())
            ]
            ids = {call["index"]: call["id"] for call in pieces if call.get("id")}
            arguments = dict.fromkeys(ids, "")
            for call in pieces:
                arguments[call["index"]] += call["function"].get("arguments") or ""
            assert sorted(ids) == [0, 1] and len(set(ids.values())) == 2
            assert all(isinstance(json.loads(text), dict) for text in arguments.values())
        else:
            answer = await stage.provider.complete(ask)
            calls = json.loads(answer.body)["choices"][0]["message"]["tool_calls"]
            assert len({call["id"] for call in calls}) == 2
            assert {call["function"]["name"] for call in calls} == {"get_weather"}

    @both
    async def test_every_choice_arrives_with_its_own_end(self, stage: Stage, stream: bool) -> None:
        ask = ask_of(stage.play(Scene(choices=3)), stream=stream, n=3)
        if "n" in stage.lacks:
            failure = await outcome(stage.provider, ask)
            assert (failure.info.status, failure.info.param) == (400, "n")
            assert not failure.reached
            return
        if stream:
            told = await read(stage.provider, ask)
            assert told.finish_reasons() == {0: "stop", 1: "stop", 2: "stop"}
            assert all(told.text(choice) for choice in range(3))
        else:
            shown = json.loads((await stage.provider.complete(ask)).body)
            assert [choice["index"] for choice in shown["choices"]] == [0, 1, 2]

    @both
    async def test_without_reported_usage_all_text_is_estimated(
        self, stage: Stage, stream: bool
    ) -> None:
        count = 1 if "n" in stage.lacks else 2
        scene = Scene(choices=count, reports_usage=False)
        ask = ask_of(stage.play(scene), stream=stream, says="x" * 400, n=count)
        usage: Usage
        if stream:
            told = await read(stage.provider, ask)
            assert told.end is not None
            usage = told.end.usage
            size = sum(len(told.text(choice).encode()) for choice in range(count))
        else:
            answer = await stage.provider.complete(ask)
            usage = answer.usage
            choices = json.loads(answer.body)["choices"]
            size = sum(len(choice["message"]["content"].encode()) for choice in choices)
        assert usage == Usage(input=100, output=-(-size // 4), status="estimated")

    @both
    @pytest.mark.parametrize(
        ("status", "shown", "kind", "code", "retryable", "falls_back"),
        [
            (400, 400, "invalid_request_error", None, False, False),
            (401, 502, "provider_error", "provider_auth", False, True),
            (403, 502, "provider_error", "provider_auth", False, True),
            (404, 404, "invalid_request_error", None, False, True),
            (413, 413, "invalid_request_error", None, False, False),
            (422, 422, "invalid_request_error", None, False, False),
            (429, 429, "rate_limit_error", "rate_limit_exceeded", True, True),
            (500, 502, "provider_error", None, True, True),
            (503, 502, "provider_error", None, True, True),
            (529, 502, "provider_error", None, True, True),
        ],
    )
    async def test_an_error_of_the_provider_is_told_by_the_table(
        self,
        stage: Stage,
        stream: bool,
        status: int,
        shown: int,
        kind: str,
        code: str | None,
        retryable: bool,
        falls_back: bool,
    ) -> None:
        failure = await outcome(
            stage.provider, ask_of(stage.play(Scene(status=status)), stream=stream)
        )
        info = failure.info
        assert (info.status, info.type, info.code) == (shown, kind, code)
        assert info.provider == stage.provider.name
        assert info.message
        assert (failure.retryable, failure.falls_back) == (retryable, falls_back)
        assert failure.reached
        await stage.quiet()

    @both
    @pytest.mark.parametrize("status", [401, 403])
    async def test_a_clients_own_key_that_is_refused_is_the_clients_to_mend(
        self, stage: Stage, stream: bool, status: int
    ) -> None:
        ask = ask_of(stage.play(Scene(status=status)), stream=stream)
        failure = await outcome(stage.provider, ask._replace(credential=CLIENT_KEY))
        info = failure.info
        assert (info.status, info.type) == (401, "authentication_error")
        assert (info.code, info.provider) == ("provider_auth", stage.provider.name)
        assert not failure.retryable and not failure.falls_back
        assert failure.reached and failure.cost_known
        assert CLIENT_KEY not in info.message

    @both
    async def test_a_rate_limit_says_when_to_come_back(self, stage: Stage, stream: bool) -> None:
        scene = Scene(status=429, retry_after="7")
        failure = await outcome(stage.provider, ask_of(stage.play(scene), stream=stream))
        assert failure.retry_after == 7
        assert failure.info.headers() == {"Retry-After": "7"}

    @pytest.mark.parametrize(
        ("hang", "timeouts"),
        [
            (0, Timeouts(connect=5, first_byte=HASTY, idle=5, total=5)),
            (2, Timeouts(connect=5, first_byte=5, idle=HASTY, total=5)),
        ],
        ids=["first byte", "idle"],
    )
    async def test_a_stream_that_goes_silent_times_out(
        self, stage: Stage, hang: int, timeouts: Timeouts
    ) -> None:
        scene = Scene(chunks=4, hang=hang)
        told = await read(stage.provider, ask_of(stage.play(scene), stream=True, timeouts=timeouts))
        assert told.end is None and told.failure is not None
        assert (told.failure.info.status, told.failure.info.code) == (504, "timeout")
        assert len([chunk for chunk in told.chunks if _content(chunk)]) == hang
        assert told.failure.retryable is (hang == 0)
        assert told.failure.reached
        await stage.quiet()

    async def test_a_slow_whole_answer_times_out_by_its_total(self, stage: Stage) -> None:
        timeouts = Timeouts(connect=5, first_byte=5, idle=5, total=HASTY)
        ask = ask_of(stage.play(Scene(hang=0)), timeouts=timeouts)
        failure = await outcome(stage.provider, ask)
        assert (failure.info.status, failure.info.code) == (504, "timeout")
        assert failure.retryable and failure.reached
        await stage.quiet()

    @both
    async def test_a_connection_cut_before_the_first_byte_may_be_retried(
        self, stage: Stage, stream: bool
    ) -> None:
        failure = await outcome(stage.provider, ask_of(stage.play(Scene(cut=0)), stream=stream))
        assert (failure.info.status, failure.info.type) == (502, "provider_error")
        assert failure.retryable

    async def test_a_stream_cut_in_the_middle_never_ends_well(self, stage: Stage) -> None:
        told = await read(stage.provider, ask_of(stage.play(Scene(chunks=4, cut=2)), stream=True))
        assert told.end is None and told.failure is not None
        assert (told.failure.info.status, told.failure.info.type) == (502, "provider_error")
        assert told.failure.retryable is False
        assert told.finish_reasons() == {}

    async def test_closing_a_stream_ends_it_at_the_provider(self, stage: Stage) -> None:
        pieces = stage.provider.stream(ask_of(stage.play(Scene(chunks=4, hang=2)), stream=True))
        assert isinstance(await anext(pieces), Deltas)
        await pieces.aclose()
        await stage.quiet()

    @both
    async def test_cancelling_an_attempt_ends_it_at_the_provider(
        self, stage: Stage, stream: bool
    ) -> None:
        ask = ask_of(stage.play(Scene(hang=0)), stream=stream)
        running: asyncio.Task[Any]
        if stream:
            running = asyncio.create_task(read(stage.provider, ask))
        else:
            running = asyncio.create_task(_complete(stage.provider, ask))
        await stage.busy()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await stage.quiet()

    async def test_fifty_attempts_at_once_do_not_mix(self, stage: Stage) -> None:
        headers = stage.play(Scene(echoes=True))
        markers = [f"marker-{number}." for number in range(50)]
        asks = [
            ask_of(headers, stream=number % 2 == 1, says=marker)
            for number, marker in enumerate(markers)
        ]
        texts = await asyncio.gather(*(_said(stage.provider, ask) for ask in asks))
        for marker, text in zip(markers, texts, strict=True):
            assert [other for other in markers if other in text] == [marker]


def _content(chunk: dict[str, Any]) -> str:
    return "".join(part["delta"].get("content") or "" for part in chunk["choices"])


async def _complete(provider: Provider, ask: Ask) -> Answer:
    return await provider.complete(ask)


async def _said(provider: Provider, ask: Ask) -> str:
    if ask.stream:
        told = await read(provider, ask)
        assert told.failure is None
        return told.text()
    shown = json.loads((await provider.complete(ask)).body)
    return str(shown["choices"][0]["message"]["content"])
