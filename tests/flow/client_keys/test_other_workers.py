"""The client's own keys when workers die, sleep or do not have the secret."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from schemas.events import AttemptAbandoned, AttemptLate, RequestComplete
from tests.cluster import Cluster
from tests.cluster import until as eventually
from tests.flow.client_keys.place import OWN, SECRET, bring, outcomes
from tests.flow.gateway import message, refusal
from tests.upstream import chat_answer, json_reply


async def test_whoever_takes_a_call_over_asks_with_the_clients_key_and_says_who_pays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_SERVER_SECRET", SECRET)
    settings: dict[str, Any] = {"secret": ["${TEST_SERVER_SECRET}"]}
    async with Cluster(tmp_path, workers=2, settings=settings) as cluster:
        gate = asyncio.Event()
        whole = json_reply(chat_answer("Hello"))
        cluster.upstream.script(replace(whole, before=(gate,)), whole)
        body = {"model": "chat", "messages": [message("Hi")]}
        asking = asyncio.create_task(
            cluster.client.post(cluster.urls[0], json=body, headers=bring(up=OWN))
        )
        paused = cluster.runner(await cluster.upstream.request(0))
        await paused.pause()
        assert (await asking).status_code == 200
        gate.set()
        paused.resume()

        async def has_late() -> bool:
            return any(isinstance(event, AttemptLate) for event in await cluster.events())

        await eventually(has_late)
        ended = outcomes(await cluster.settled())
        assert [type(event) for event in ended] == [AttemptAbandoned, RequestComplete, AttemptLate]
        assert [event.billed_to for event in ended] == ["client"] * 3
        sent = [request.headers["Authorization"] for request in cluster.upstream.requests]
        assert sent == [f"Bearer {OWN}"] * 2


async def test_a_worker_with_another_secret_says_so_and_asks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_SERVER_SECRET", SECRET)
    settings: dict[str, Any] = {"secret": ["${TEST_SERVER_SECRET}"]}
    async with Cluster(tmp_path, settings=settings) as cluster:
        await cluster.workers[0].kill()
        monkeypatch.setenv("TEST_SERVER_SECRET", f"{SECRET} of another machine")
        await cluster.role("worker", "stranger").start()
        cluster.upstream.script(json_reply(chat_answer()))
        body = {"model": "chat", "messages": [message("Hi")]}
        response = await cluster.client.post(cluster.urls[0], json=body, headers=bring(up=OWN))
        error = refusal(response, 503, "server_error", "secret_mismatch")
        assert "NEXUS_SECRET" in error["message"]
        assert cluster.upstream.requests == []
        (await cluster.client.post(cluster.urls[0], json=body)).raise_for_status()
        assert len(cluster.upstream.requests) == 1
        failed, _ = outcomes(await cluster.settled())
        assert (failed.cost_nano, failed.billed_to) == (0, "client")
