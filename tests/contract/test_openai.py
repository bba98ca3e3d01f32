"""The openai adapter keeps the contract of providers, over real sockets."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from schemas.config import ProviderConfig
from schemas.ids import Clock
from schemas.usage import Usage
from tests.contract.provider_contract import (
    ProviderContract,
    Scene,
    Stage,
    ask_of,
    both,
    outcome,
    read,
)
from tests.upstream import (
    CUT,
    DONE,
    HANG,
    Recorded,
    Reply,
    Step,
    Upstream,
    chat_answer,
    chat_chunk,
    chat_stream,
    event,
    event_stream,
    json_reply,
    usage,
)
from workers.http import Http
from workers.providers import make
from workers.providers.base import Deltas, Provider, StreamEnd
from workers.providers.openai import OpenAI

KEY = "sk-operator-secret-0123456789"
ARGUMENTS = ('{"city": ', '"Paris"', "}")


class OpenAIStage:
    """Scenes are played by a scripted server that speaks chat completions."""

    def __init__(self, provider: Provider, upstream: Upstream) -> None:
        self.provider = provider
        self.upstream = upstream

    def play(self, scene: Scene) -> dict[str, str]:
        def reply(request: Recorded) -> Reply:
            if scene.status != 200:
                error = {"error": {"message": f"Sorry: {scene.status}", "type": "x", "code": None}}
                headers = {"Retry-After": scene.retry_after} if scene.retry_after else {}
                return json_reply(error, scene.status, headers)
            said = request.json["messages"][0]["content"]
            texts = [said] if scene.echoes else [f"wörd{at} " for at in range(scene.chunks)]
            return _stream(scene, texts) if request.json["stream"] else _whole(scene, texts)

        self.upstream.script(reply)
        return {}

    async def busy(self) -> None:
        await self.upstream.request()

    async def quiet(self) -> None:
        for request in self.upstream.requests:
            if not request.cut and not request.answered.is_set():
                await request.gone.wait()


def _whole(scene: Scene, texts: list[str]) -> Reply:
    if scene.cut is not None:
        return Reply(before=(CUT,))
    answer = chat_answer("".join(texts), choices=scene.choices)
    if scene.tool:
        function = {"name": scene.tool, "arguments": "".join(ARGUMENTS)}
        call = {"id": "call_1", "type": "function", "function": function}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        answer["choices"][0] |= {"message": message, "finish_reason": "tool_calls"}
    if not scene.reports_usage:
        del answer["usage"]
    reply = json_reply(answer)
    return reply if scene.hang is None else replace(reply, before=(HANG,))


def _stream(scene: Scene, texts: list[str]) -> Reply:
    steps: list[Step] = []
    for text in texts:
        steps += [event(chat_chunk(text, index=at)) for at in range(scene.choices)]
    if scene.tool:
        start = {
            "id": "call_1",
            "type": "function",
            "function": {"name": scene.tool, "arguments": ""},
        }
        parts = [start, *({"function": {"arguments": part}} for part in ARGUMENTS)]
        steps = [event(chat_chunk({"tool_calls": [{"index": 0, **part}]})) for part in parts]
    reason = "tool_calls" if scene.tool else "stop"
    steps += [event(chat_chunk({}, index=at, finish_reason=reason)) for at in range(scene.choices)]
    if scene.reports_usage:
        steps.append(event(chat_chunk({}, choices=[], usage=usage(7, 3))))
    steps.append(DONE)
    for fault, after in ((CUT, scene.cut), (HANG, scene.hang)):
        if after == 0:
            return Reply(before=(fault,))
        if after is not None:
            steps = [*steps[:after], fault]
    return event_stream(*steps)


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as server:
        yield server


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    client = Http(Clock(), limit=100)
    yield client
    await client.close()


@pytest.fixture
def provider(upstream: Upstream, http: Http) -> Provider:
    config = ProviderConfig(base_url=upstream.url, api_key=KEY, headers={"X-Org": "ours"})
    return make("acme", config, http, Clock())


class TestOpenAI(ProviderContract):
    @pytest.fixture
    async def stage(self, provider: Provider, upstream: Upstream) -> AsyncIterator[Stage]:
        yield OpenAIStage(provider, upstream)


async def test_what_the_gateway_does_not_know_passes_both_ways_byte_for_byte(
    provider: Provider, upstream: Upstream
) -> None:
    odd = '"odd":{"big":123456789012345678901234567890,"f":1.10,"e":1e-7,"s":"\\u00e9\\/","z":[]}'
    ask = ask_of()._replace(
        body=f'{{"model":"m","messages":[],"seed":9007199254740993,{odd},"top_p":0.50}}'.encode()
    )
    sent = f'{{"model":"the-engine","messages":[],"seed":9007199254740993,{odd},"top_p":0.50}}'
    choice = (
        f'{{"index":0,"message":{{"role":"assistant","content":"é",{odd}}},"finish_reason":"stop"}}'
    )
    upstream.script(
        json_reply(f'{{"id":"a", {odd}, "model":"b","choices":[{choice}] ,"created":1}}'.encode())
    )
    answer = await provider.complete(ask)
    assert upstream.requests[0].body.decode() == sent
    assert answer.body.decode() == (
        f'{{"id":"chatcmpl-0193-call",{odd},"model":"the-clients-name","choices":[{choice}],'
        f'"created":1700000000,"provider":"acme"}}'
    )


async def test_unknown_fields_of_a_chunk_pass_untouched(
    provider: Provider, upstream: Upstream
) -> None:
    odd = '"odd":{"n":12345678901234567890123,"f":0.10}'
    choice = f'{{"index":0,"delta":{{"content":"x",{odd}}},{odd},"logprobs":null}}'
    chunk = f'{{"system_fingerprint":"fp",{odd},"choices":[{choice}],"usage":null}}'.encode()
    upstream.script(event_stream(event(chunk), event(chat_chunk({}, finish_reason="stop")), DONE))
    told = await read(provider, ask_of(stream=True))
    assert told.deltas[0].parts[0].decode() == (
        f'{{"system_fingerprint":"fp",{odd},"choices":[{choice}],"id":"chatcmpl-0193-call",'
        f'"model":"the-clients-name","created":1700000000,"provider":"acme"}}'
    )


async def test_a_stream_asks_for_usage_and_keeps_the_clients_other_options(
    provider: Provider, upstream: Upstream
) -> None:
    upstream.script(chat_stream("x"))
    await read(provider, ask_of(stream=True))
    options = {"include_usage": False, "include_obfuscation": False}
    await read(provider, ask_of(stream=True, stream_options=options))
    await read(provider, ask_of(stream=True, stream_options=None))
    assert [request.json["stream_options"] for request in upstream.requests] == [
        {"include_usage": True},
        {"include_usage": True, "include_obfuscation": False},
        {"include_usage": True},
    ]


async def test_the_clients_model_stands_in_for_a_missing_engine(
    provider: Provider, upstream: Upstream
) -> None:
    upstream.script(json_reply(chat_answer()))
    await provider.complete(ask_of()._replace(engine=""))
    assert upstream.requests[0].json["model"] == "the-clients-name"


async def test_headers_of_client_configuration_and_gateway_arrive(
    provider: Provider, upstream: Upstream
) -> None:
    upstream.script(json_reply(chat_answer()))
    client = {
        "X-Trace": "abc",
        "x-org": "theirs",
        "Authorization": "Bearer theirs",
        "Connection": "close",
        "X-Bad": "a\r\nX-Smuggled: 1",
    }
    await provider.complete(ask_of(client))
    headers = upstream.requests[0].headers
    assert headers["X-Trace"] == "abc"
    assert headers["X-Org"] == "ours"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert headers["User-Agent"].startswith("nexus/")
    assert headers["Content-Type"] == "application/json"
    assert not {"Connection", "X-Bad", "X-Smuggled", "Cookie"} & set(headers)
    assert upstream.requests[0].path == "/v1/chat/completions"


async def test_events_of_one_read_leave_together(provider: Provider, upstream: Upstream) -> None:
    together = b"".join(event(chat_chunk(text)) for text in "abc")
    gate = asyncio.Event()
    end = event(chat_chunk({}, finish_reason="stop")) + DONE
    upstream.script(event_stream(together, gate, event(chat_chunk("d")) + end))
    pieces = provider.stream(ask_of(stream=True))
    first = await anext(pieces)
    assert isinstance(first, Deltas) and len(first.parts) == 3 and first.text_bytes == 3
    gate.set()
    rest = [piece async for piece in pieces]
    assert [type(piece) for piece in rest] == [Deltas, StreamEnd]


async def test_a_chunk_after_the_finish_releases_what_was_held(
    provider: Provider, upstream: Upstream
) -> None:
    upstream.script(
        event_stream(
            event(chat_chunk("x", finish_reason="stop", usage=usage(1, 1))),
            event(chat_chunk({}, choices=[], late="filter")),
            DONE,
        )
    )
    told = await read(provider, ask_of(stream=True))
    assert told.end is not None and told.end.last == b""
    assert [bool(chunk["choices"]) for chunk in told.chunks] == [True, False]
    assert told.end.finish_reason == "stop"
    assert told.end.usage == Usage(input=1, output=1, status="reported")


async def test_a_stream_may_end_without_done_once_all_choices_finished(
    provider: Provider, upstream: Upstream
) -> None:
    upstream.script(
        event_stream(event(chat_chunk("x")), event(chat_chunk({}, finish_reason="length")))
    )
    told = await read(provider, ask_of(stream=True))
    assert told.end is not None and told.end.finish_reason == "length"


@pytest.mark.parametrize(
    "steps",
    [
        (event(chat_chunk("x")),),
        (event(chat_chunk("x")), event(chat_chunk("y", index=1, finish_reason="stop"))),
        (event(chat_chunk("x")), b"data: {"),
        (event(chat_chunk("x")), event(b'{"choices": [')),
        (event(chat_chunk("x")), event(b'{"choices": [{"delta": 7}]}')),
        (event(chat_chunk("x")), event(b"[1, 2]")),
        (event(chat_chunk("x")), event(b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}")),
        (event(chat_chunk("x")), b'data: {"choices": [{"delta": {"content": "\xff"}}]}\n\n'),
        (event(chat_chunk("x")), event({"error": {"message": "overloaded", "code": None}})),
        (event(chat_chunk("x")), b'event: error\ndata: {"message": "overloaded"}\n\n'),
    ],
    ids=[
        "no finish",
        "one of two choices unfinished",
        "half an event",
        "half a chunk",
        "delta of a wrong type",
        "no object",
        "too deep",
        "invalid UTF-8",
        "error object",
        "error event",
    ],
)
async def test_a_broken_stream_shows_what_came_and_never_ends_well(
    provider: Provider, upstream: Upstream, steps: tuple[bytes, ...]
) -> None:
    upstream.script(event_stream(b"".join(steps)))
    told = await read(provider, ask_of(stream=True))
    assert told.text().startswith("x") and told.end is None
    assert told.failure is not None
    assert (told.failure.info.status, told.failure.info.type) == (502, "provider_error")
    assert not told.failure.retryable


@pytest.mark.parametrize("steps", [(), (DONE,), (b": nothing to say\n\n",)])
async def test_a_stream_that_says_nothing_is_broken_and_may_be_retried(
    provider: Provider, upstream: Upstream, steps: tuple[bytes, ...]
) -> None:
    upstream.script(event_stream(*steps))
    told = await read(provider, ask_of(stream=True))
    assert told.deltas == [] and told.failure is not None
    assert (told.failure.info.status, told.failure.retryable) == (502, True)


async def test_an_error_in_a_stream_keeps_its_own_status(
    provider: Provider, upstream: Upstream
) -> None:
    upstream.script(
        event_stream(event({"error": {"message": "slow down", "type": "rate_limit_error"}}))
    )
    told = await read(provider, ask_of(stream=True))
    assert told.failure is not None and told.failure.info.status == 429
    upstream.script(event_stream(event({"error": {"message": "no such tool", "code": 400}})))
    told = await read(provider, ask_of(stream=True))
    assert told.failure is not None
    assert (told.failure.info.status, told.failure.info.message) == (400, "no such tool")


@both
@pytest.mark.parametrize(
    "reply",
    [
        Reply(headers={"Content-Type": "text/html"}, steps=(b"<html>Sign in</html>",)),
        json_reply(b"nonsense"),
        json_reply([]),
        json_reply({}),
        json_reply({"choices": 1}),
        json_reply(b'{"choices": [{"message": {"content": "\xff"}}]}'),
        json_reply(b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}"),
        Reply(status=302, headers={"Location": "http://127.0.0.1:1/"}),
        Reply(status=204),
    ],
    ids=[
        "html",
        "no json",
        "list",
        "empty",
        "choices",
        "utf-8",
        "too deep",
        "redirect",
        "no content",
    ],
)
async def test_an_answer_that_is_none_is_a_provider_error(
    provider: Provider, upstream: Upstream, reply: Reply, stream: bool
) -> None:
    upstream.script(reply)
    failure = await outcome(provider, ask_of(stream=stream))
    assert (failure.info.status, failure.info.type) == (502, "provider_error")
    assert "<" not in failure.info.message
    assert len(upstream.requests) == 1, "no redirect is followed"


@both
async def test_an_error_object_with_status_200_is_an_error(
    provider: Provider, upstream: Upstream, stream: bool
) -> None:
    upstream.script(json_reply({"error": {"message": "no credits", "code": 402}}))
    failure = await outcome(provider, ask_of(stream=stream))
    assert failure.info.status == 502 and "no credits" in failure.info.message


@both
@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
async def test_no_message_holds_the_providers_key(
    provider: Provider, upstream: Upstream, stream: bool, status: int
) -> None:
    message = f"Wrong key {KEY}, or was it sk-other-key-123 or Bearer abc.def?"
    upstream.script(json_reply({"error": {"message": message}}, status))
    failure = await outcome(provider, ask_of(stream=stream))
    for secret in (KEY, "sk-other", "abc.def"):
        assert secret not in failure.info.message
        assert secret not in str(failure)


async def test_what_the_provider_says_about_an_error_is_kept_and_bounded(
    provider: Provider, upstream: Upstream
) -> None:
    error = {"message": "Too long. " * 100, "param": "messages", "code": "context_length_exceeded"}
    upstream.script(json_reply({"error": error}, 400))
    info = (await outcome(provider, ask_of())).info
    assert (info.param, info.code) == ("messages", "context_length_exceeded")
    assert len(info.message) == 500 and info.message.startswith("Too long.")


async def test_reasoning_and_tool_names_count_as_text(
    provider: Provider, upstream: Upstream
) -> None:
    call = {"index": 0, "function": {"name": "abc", "arguments": "{}"}}
    upstream.script(
        event_stream(
            event(chat_chunk({"reasoning_content": "hmm", "reasoning": "hmm"})),
            event(chat_chunk({"content": [{"type": "text", "text": "été"}, {"type": "image"}]})),
            event(chat_chunk({"tool_calls": [call], "refusal": "no"})),
            event(chat_chunk({}, finish_reason="stop")),
        )
    )
    told = await read(provider, ask_of(stream=True))
    assert told.end is not None
    assert sum(deltas.text_bytes for deltas in told.deltas) == 3 + 5 + 5 + 2
    assert told.end.usage.output == 4


async def test_connections_are_kept_even_when_the_end_comes_after_done(
    provider: Provider, upstream: Upstream
) -> None:
    gate = asyncio.Event()
    upstream.script(replace(chat_stream("x"), steps=(*chat_stream("x").steps, gate)))
    told = await read(provider, ask_of(stream=True))
    assert told.end is not None, "nobody waits for what comes after [DONE]"
    gate.set()
    await upstream.requests[0].answered.wait()
    upstream.script(json_reply(chat_answer()))
    for _ in range(4):
        await provider.complete(ask_of())
    assert upstream.requests[0].peer in {request.peer for request in upstream.requests[1:]}


@pytest.mark.parametrize("worker_stops", [False, True])
async def test_a_connection_whose_end_does_not_come_after_done_is_closed(
    provider: Provider, upstream: Upstream, http: Http, worker_stops: bool
) -> None:
    upstream.script(replace(chat_stream("x"), steps=(*chat_stream("x").steps, HANG)))
    assert (await read(provider, ask_of(stream=True))).end is not None
    assert not upstream.requests[0].gone.is_set()
    if worker_stops:
        await http.close()
    await upstream.requests[0].gone.wait()


async def test_a_connection_that_the_server_just_closed_was_not_reached(
    provider: Provider, upstream: Upstream
) -> None:
    upstream.script(json_reply(chat_answer()), Reply(before=(CUT,)), json_reply(chat_answer()))
    await provider.complete(ask_of())
    failure = await outcome(provider, ask_of())
    assert upstream.connections == 1
    assert failure.retryable and not failure.reached
    assert (await provider.complete(ask_of())).finish_reason == "stop"


async def test_a_fresh_connection_closed_without_an_answer_was_reached(
    provider: Provider, upstream: Upstream
) -> None:
    upstream.script(Reply(before=(CUT,)))
    failure = await outcome(provider, ask_of())
    assert failure.retryable and failure.reached


async def test_an_answer_cut_in_its_body_is_broken(provider: Provider, upstream: Upstream) -> None:
    whole = json_reply(chat_answer())
    upstream.script(replace(whole, steps=(b'{"choices"', CUT)))
    failure = await outcome(provider, ask_of())
    assert (failure.info.status, failure.retryable, failure.reached) == (502, True, True)


@both
async def test_a_large_body_arrives_whole(
    provider: Provider, upstream: Upstream, stream: bool
) -> None:
    upstream.script(chat_stream("x") if stream else json_reply(chat_answer()))
    ask = ask_of(stream=stream, says="é" * 4_000_000)
    if stream:
        assert (await read(provider, ask)).end is not None
    else:
        await provider.complete(ask)
    assert upstream.requests[0].json["messages"] == [{"role": "user", "content": "é" * 4_000_000}]


async def test_a_large_body_may_be_refused_before_it_was_read(
    provider: Provider, upstream: Upstream
) -> None:
    upstream.script(json_reply({"error": {"message": "Too much."}}, 413))
    failure = await outcome(provider, ask_of(says="x" * 4_000_000))
    assert (failure.info.status, failure.info.message) == (413, "Too much.")


def test_base_urls_are_completed_and_checked(http: Http) -> None:
    def url_of(base_url: str) -> str:
        provider = make("acme", ProviderConfig(base_url=base_url), http, Clock())
        assert isinstance(provider, OpenAI)
        return provider.url

    assert url_of("http://localhost:11434") == "http://localhost:11434/v1/chat/completions"
    assert url_of("https://api.x.ai/v1/") == "https://api.x.ai/v1/chat/completions"
    assert url_of("https://h/openai?v=1") == "https://h/openai/chat/completions?v=1"
    for wrong in ("", "localhost:80", "ftp://host/v1"):
        with pytest.raises(ValueError, match=r"providers\.acme\.base_url"):
            url_of(wrong)
