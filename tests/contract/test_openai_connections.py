"""Connections of the openai adapter: kept, left, stale, cut."""

import asyncio
from dataclasses import replace

import pytest

from tests.contract.provider_contract import (
    ask_of,
    outcome,
    read,
)
from tests.upstream import (
    CUT,
    HANG,
    Reply,
    Upstream,
    chat_answer,
    chat_stream,
    json_reply,
)
from workers.http import Http
from workers.providers.base import Provider


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


async def test_a_kept_connection_that_the_server_closes_may_have_carried_the_request(
    provider: Provider, upstream: Upstream
) -> None:
    upstream.script(json_reply(chat_answer()), Reply(before=(CUT,)), json_reply(chat_answer()))
    await provider.complete(ask_of())
    failure = await outcome(provider, ask_of())
    assert upstream.connections == 1 and len(upstream.requests) == 2
    assert failure.retryable and failure.network
    assert failure.reached and not failure.cost_known
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
