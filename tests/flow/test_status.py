"""Health and metrics as clients see them: right while all is well, honest while parts are away."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from compose.nats_server import NatsServer
from ingress import status
from ledger.connection import Message
from schemas import subjects
from schemas.config import Config, ProviderConfig
from schemas.ids import Clock
from tests import sample_events as sample
from tests.governed_bus import Bus, bus_at, governing, until
from tests.ingress_doors import ADMIN, KEY_A, Doors, doors

CONFIG = Config(
    api_keys=(KEY_A,),
    admin_token=ADMIN,
    providers={"openai": ProviderConfig(), "anthropic": ProviderConfig(pool="shared")},
)
POOLS = ("openai", "shared")


@pytest.fixture(autouse=True)
def look_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "_HEALTH_KEPT", -1.0)


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[Bus]:
    async with bus_at(nats_url) as bus:
        yield bus


def work(bus: Bus, *pools: str) -> None:
    """Answer pings as a worker of these pools does."""

    def pong(message: Message) -> None:
        bus.connection.publish(message.reply, b"pong")

    for pool in pools:
        bus.connection.subscribe(subjects.ping(pool), pong, queue="workers")


async def get(ingress: Doors, path: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(timeout=10) as client:
        return await client.get(f"{ingress.url}{path}", headers=headers)


async def health(ingress: Doors) -> dict[str, Any]:
    answer = await get(ingress, "/health")
    assert answer.status_code == 200
    report: dict[str, Any] = answer.json()
    return report


async def health_where(ingress: Doors, component: str, part: str) -> dict[str, Any]:
    """The first report in which a component is as expected."""
    report: dict[str, Any] = {}

    async def reached() -> bool:
        report.update(await health(ingress))
        return bool(report["components"][component] == part)

    await until(reached)
    return report


async def test_health_has_the_shape_of_the_document(bus: Bus, nats_server: NatsServer) -> None:
    work(bus, *POOLS)
    await bus.append(sample.start("a"), sample.complete("a", time.time_ns()))
    async with doors(bus, CONFIG) as ingress, governing(nats_server):
        seq = await bus.governed()

        async def known() -> bool:
            return (await bus.state())["seq"] == seq

        await until(known)
        answer = await get(ingress, "/api/v1/health")
        assert answer.headers["x-nexus-ledger-seq"] == str(seq)
        report = answer.json()
    assert report["status"] == "healthy"
    assert report["version"] == "0.1.0"
    assert 0 <= report["uptime_ms"] < 60_000
    assert report["components"] == {"bus": "ok", "governor": "ok", "workers": "ok"}
    assert report["providers"]["openai"]["status"] == "healthy"
    assert report["providers"]["openai"]["latency_ms"] == 200.0
    assert report["providers"]["anthropic"] == {
        "status": "healthy",
        "latency_ms": None,
        "error_rate": None,
        "recent_attempts": 0,
        "reason": None,
    }


async def test_a_failing_provider_shows_and_the_gateway_is_degraded(
    bus: Bus, nats_server: NatsServer
) -> None:
    work(bus, *POOLS)
    await bus.append(*(sample.failed(f"c{n}", time.time_ns()) for n in range(5)))
    async with doors(bus, CONFIG) as ingress, governing(nats_server):

        async def seen() -> bool:
            return bool((await bus.state())["providers"])

        await until(seen)
        report = await health(ingress)
    assert report["providers"]["openai"]["status"] == "unhealthy"
    assert report["status"] == "degraded"


async def test_health_says_which_part_is_away_and_stays_alive(
    nats_server: NatsServer,
) -> None:
    async with bus_at(nats_server.url) as bus, doors(bus, CONFIG) as ingress:
        report = await health(ingress)
        assert report["status"] == "degraded"
        assert report["components"] == {"bus": "ok", "governor": "away", "workers": "away"}
        assert report["providers"]["openai"]["status"] == "unhealthy"
        assert report["providers"]["openai"]["reason"] == "no worker serves its queue"
        work(bus, "openai")
        async with governing(nats_server):
            report = await health_where(ingress, "workers", "ok")
            assert report["status"] == "degraded"
            assert report["components"]["governor"] == "ok"
            assert report["providers"]["openai"]["status"] == "healthy"
            assert report["providers"]["anthropic"]["status"] == "unhealthy"
        nats_server.kill()
        report = await health_where(ingress, "bus", "away")
        assert report["status"] == "degraded"
        assert report["components"] == {"bus": "away", "governor": "unknown", "workers": "unknown"}
        assert report["providers"]["openai"]["status"] == "healthy"


async def test_many_who_ask_for_health_cost_the_bus_one_question(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "_HEALTH_KEPT", 60.0)
    questions: list[Message] = []
    bus.connection.subscribe(subjects.GOVERNOR_STATE, questions.append)
    async with doors(bus, CONFIG) as ingress:
        await asyncio.gather(*(health(ingress) for _ in range(20)))
    assert len(questions) == 1


async def test_metrics_are_those_of_the_governor_and_open_to_all(
    bus: Bus, nats_server: NatsServer
) -> None:
    await bus.append(sample.start("a"), sample.complete("a"))
    async with doors(bus, CONFIG) as ingress, governing(nats_server):
        seq = await bus.governed()

        async def known() -> bool:
            return (await bus.state())["seq"] == seq

        await until(known)
        answer = await get(ingress, "/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    counted = {
        sample.name: sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert counted["nexus_ai_requests_total"] == 1
    assert counted["titan_model_requests_total"] == 1
    assert counted["unified_requests_total"] == 1
    assert counted["nexus_ai_ledger_seq"] == seq


async def test_metrics_outlive_the_governor_for_a_quarter_of_a_minute(
    bus: Bus, nats_server: NatsServer
) -> None:
    hand = [100.0]
    clock = Clock(monotonic=lambda: hand[0])
    async with doors(bus, CONFIG, clock) as ingress:
        async with governing(nats_server):
            fresh = await get(ingress, "/metrics")
            assert fresh.status_code == 200
        hand[0] += 15
        assert (await get(ingress, "/metrics")).text == fresh.text
        hand[0] += 1
        assert (await get(ingress, "/metrics")).status_code == 503


async def test_metrics_without_a_governor_are_refused_and_those_of_a_starting_one_waited_for(
    bus: Bus, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with doors(bus, CONFIG) as ingress:
        monkeypatch.setattr(status, "_FIRST_ANSWER_WITHIN", 0.3)
        answer = await get(ingress, "/metrics")
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "governor_away"
        monkeypatch.setattr(status, "_FIRST_ANSWER_WITHIN", 8.0)
        asking = asyncio.create_task(get(ingress, "/metrics"))
        async with governing(nats_server):
            assert (await asking).status_code == 200


async def test_metrics_of_many_models_still_fit_into_one_answer(
    bus: Bus, nats_server: NatsServer
) -> None:
    for number in range(250):
        model = f"model-with-a-long-name-{number}"
        call = f"c{number}"
        await bus.append(sample.start(call, model=model), sample.complete(call, model=model))
    async with doors(bus, CONFIG) as ingress, governing(nats_server):
        seq = await bus.governed()

        async def known() -> bool:
            return (await bus.state())["seq"] == seq

        await until(known)
        answer = await get(ingress, "/metrics")
    assert len(answer.content) > 1024 * 1024
    assert "model-with-a-long-name-199" in answer.text
    assert "model-with-a-long-name-200" not in answer.text


async def test_metrics_ask_for_a_key_where_that_is_configured(
    bus: Bus, nats_server: NatsServer
) -> None:
    guarded = Config(api_keys=(KEY_A,), metrics_require_key=True)
    async with doors(bus, guarded) as ingress, governing(nats_server):
        assert (await get(ingress, "/metrics")).status_code == 401
        assert (await get(ingress, "/metrics", authorization=f"Bearer {KEY_A}")).status_code == 200
