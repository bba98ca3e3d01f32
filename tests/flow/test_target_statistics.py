"""What the ledger measured of targets reaches every ingress: told by analytics, heard live."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from compose import setup
from compose.nats_server import NatsServer
from ingress.target_statistics import Figures, TargetStatistics
from schemas.errors import ErrorInfo
from schemas.event import Event
from schemas.ids import Clock, rfc3339
from tests.flow.bus_permissions.users import as_user, config_at
from tests.sample_events import attempt_failed, complete
from tests.warehouse import child, config_for, ledger, new_id, until

DOWN = ErrorInfo(status=502, type="provider_error", message="failed", provider="fast")


def end(engine: str, ms: float) -> Event:
    now = rfc3339(Clock().now_ns())
    timed: dict[str, Any] = {"network_ms": ms, "ttfb_ms": ms + 3, "latency_ms": 2 * ms + 3}
    return complete(new_id(), event_id=new_id(), time=now, provider="p", engine=engine, **timed)


def failure(engine: str) -> Event:
    now = rfc3339(Clock().now_ns())
    return attempt_failed(
        new_id(), event_id=new_id(), time=now, provider="p", engine=engine, error=DOWN
    )


async def test_a_slow_targets_figures_reach_every_ingress(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    await asyncio.to_thread(setup.prepare, config_at(nats_server.url))
    config = config_for("embedded", tmp_path, nats_server.url_of("analytics"))
    early, late = TargetStatistics(Clock()), TargetStatistics(Clock())
    async with ledger(nats_server.url) as stream, as_user(nats_server, "ingress") as first:
        early.listen(first)
        await first.flush()
        before = [end("slow", 2000.0), end("fast", 100.0), failure("fast")]
        last = await stream.append(*before)

        async def heard() -> bool:
            return early.of("p", "fast").error_rate == pytest.approx(1 / 3, rel=0.01)

        # Without analytics: from the live events alone.
        await until(heard)
        assert early.as_of_seq == 0
        with child(config) as role:
            await role.ready()

            async def told() -> bool:
                return early.as_of_seq == last

            await until(told)
            async with as_user(nats_server, "ingress") as second:
                late.listen(second)

                async def answered() -> bool:
                    return late.as_of_seq == last

                # Nothing new is told: it has asked.
                await until(answered)
                for statistics in (early, late):
                    slow = statistics.of("p", "slow")
                    assert slow.first_byte_ms == pytest.approx(2000, rel=0.05)
                    assert slow.total_ms == pytest.approx(4000, rel=0.05)
                    fast = statistics.of("p", "fast")
                    assert fast.total_p95_ms == pytest.approx(200, rel=0.05)
                    assert fast.error_rate is not None and 0.2 < fast.error_rate < 0.35
                last = await stream.append(*[end("new", 500.0) for _ in range(20)])

                async def both_told() -> bool:
                    return early.as_of_seq == late.as_of_seq == last

                await until(both_told)
                assert late.of("p", "new").first_byte_ms == pytest.approx(500, rel=0.05)
            assert await role.terminate() == 0
    assert late.of("p", "nobody") == Figures()
