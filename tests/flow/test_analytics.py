"""The analytics role against a real ledger: it follows, survives, repairs and answers."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from analytics.asks import Scope
from analytics.client import Analytics
from analytics.projector import CONSUMER, Projector
from analytics.questions.usage import UsageParams
from compose.nats_server import NatsServer
from ledger.connection import Connection
from schemas import subjects
from schemas.config import BusConfig, Config
from schemas.errors import NexusError, Unavailable
from schemas.event import Event
from schemas.ids import Clock, rfc3339
from tests.ledger_fold import fold, projected
from tests.sample_events import complete, failed, start
from tests.warehouse import (
    Child,
    Ledger,
    Warehouse,
    child,
    config_for,
    drop,
    ledger,
    new_id,
    on_every_backend,
    until,
    warehouse,
)


def calls(count: int, **fields: Any) -> list[Event]:
    """So many calls of two events each, under ids of their own."""
    found: list[Event] = []
    for _ in range(count):
        call_id = new_id()
        found.append(start(call_id, event_id=new_id(), **fields))
        found.append(complete(call_id, event_id=new_id(), **fields))
    return found


@asynccontextmanager
async def projecting(house: Warehouse, stream: Ledger) -> AsyncIterator[Projector]:
    """A projector at work in this process."""
    projector = Projector(house.projection, stream.connection, "_INBOX")
    stream.on_reconnect = projector.look_again
    running = asyncio.create_task(projector.run())
    try:
        yield projector
    finally:
        projector.stop()
        await running


async def applied(projector: Projector, seq: int) -> None:
    async def reached() -> bool:
        return projector.applied_seq == seq

    await until(reached)


async def acked(stream: Ledger, seq: int) -> None:
    async def reached() -> bool:
        return await stream.acked() == seq

    await until(reached)


@on_every_backend
async def test_what_the_ledger_takes_is_projected_acked_and_not_projected_again(
    backend: str, nats_url: str, tmp_path: Path
) -> None:
    config = config_for(backend, tmp_path)
    history = calls(700)
    async with warehouse(config) as house, ledger(nats_url) as stream:
        async with projecting(house, stream) as projector:
            await stream.create()
            await stream.append(*history[:1000])
            await applied(projector, 1000)
            await stream.append(*history[1000:])
            await applied(projector, len(history))
        await acked(stream, len(history))
        assert await projected(house) == fold(enumerate(history, 1))
        async with projecting(house, stream) as projector:
            await applied(projector, len(history))
            info = await stream.js.consumer_info(subjects.LEDGER, CONSUMER)
            assert info.num_pending == 0
        assert await house.one("select count() from events") == len(history)
    await drop(config)


async def test_what_is_no_event_is_kept_and_does_not_hold_up_the_rest(
    nats_url: str, tmp_path: Path
) -> None:
    config = config_for("embedded", tmp_path)
    async with warehouse(config) as house, ledger(nats_url) as stream:
        await stream.create()
        for body in (b"\xff\x00 not JSON", b'{"event_type": "model.request.dreamt"}', b""):
            await stream.js.publish("ledger.worker.p.model.request.dreamt", body)
        await stream.append(*calls(1))
        async with projecting(house, stream) as projector:
            await applied(projector, 5)
        parked = await house.rows(
            "select seq, hex(raw) from events final where parked != '' order by seq"
        )
        assert [(seq, bytes.fromhex(raw)[:2]) for seq, raw in parked] == [
            (1, b"\xff\x00"),
            (2, b'{"'),
            (3, b""),
        ]
        assert await house.one("select sum(requests) from model_stats_hourly final") == 1


async def test_projection_goes_on_after_the_bus_was_killed(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    config = config_for("embedded", tmp_path)
    history = calls(60)
    async with warehouse(config) as house, ledger(nats_server.url) as stream:
        await stream.create()
        await stream.append(*history[:40])
        async with projecting(house, stream) as projector:
            await applied(projector, 40)
            nats_server.kill()
            nats_server.start()
            await until(stream.is_reached)
            await stream.append(*history[40:])
            await applied(projector, 120)
        assert await projected(house) == fold(enumerate(history, 1))


@on_every_backend
async def test_nothing_is_acked_while_the_database_refuses_it(
    backend: str, nats_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_for(backend, tmp_path)
    history = calls(10)
    async with warehouse(config) as house, ledger(nats_url) as stream:
        await stream.create()
        async with projecting(house, stream) as projector:
            await stream.append(*history[:4])
            await applied(projector, 4)
            await house.reader.query("select 1")
            await house.writer.command("rename table model_stats_hourly to elsewhere")
            await stream.append(*history[4:])

            async def noticed() -> bool:
                return "projector interrupted" in caplog.messages

            await until(noticed)
            assert projector.applied_seq == 4
            assert await stream.acked() == 4
            await house.writer.command("rename table elsewhere to model_stats_hourly")
            await applied(projector, len(history))
        assert await projected(house) == fold(enumerate(history, 1))
    await drop(config)


async def test_a_database_that_was_deleted_is_filled_again_from_the_ledger(
    nats_url: str, tmp_path: Path
) -> None:
    history = calls(30)
    async with ledger(nats_url) as stream:
        await stream.create()
        await stream.append(*history)
        for name in ("first", "second"):
            async with warehouse(config_for("embedded", tmp_path / name)) as house:
                async with projecting(house, stream) as projector:
                    await applied(projector, 60)
                assert await projected(house) == fold(enumerate(history, 1))


async def test_events_that_the_database_lost_in_the_middle_are_taken_again(
    nats_url: str, tmp_path: Path
) -> None:
    history = calls(30)
    async with warehouse(config_for("embedded", tmp_path)) as house, ledger(nats_url) as stream:
        await stream.create()
        await stream.append(*history)
        async with projecting(house, stream) as projector:
            await applied(projector, 60)
        await house.writer.command(
            "alter table events delete where seq between 20 and 25 settings mutations_sync = 2"
        )
        async with projecting(house, stream) as projector:
            await applied(projector, 60)
        assert await house.one("select uniqExact(seq) from events") == 60
        assert await projected(house) == fold(enumerate(history, 1))


@on_every_backend
async def test_a_ledger_made_anew_replaces_what_was_projected(
    backend: str, nats_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_for(backend, tmp_path)
    new = calls(20, project="new")
    async with warehouse(config) as house, ledger(nats_url) as stream:
        await stream.create()
        await stream.append(*calls(30, project="old"))
        async with projecting(house, stream) as projector:
            await applied(projector, 60)
        await stream.js.delete_stream(subjects.LEDGER)
        await stream.create()
        await stream.append(*new)
        async with projecting(house, stream) as projector:
            await applied(projector, 40)
        assert "ledger.truncated" in caplog.messages
        assert await projected(house) == fold(enumerate(new, 1))
        assert await house.one("select count() from events final") == 40
    await drop(config)


async def test_a_ledger_that_lost_its_end_is_followed_from_where_it_still_agrees(
    nats_server: NatsServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, kept = tmp_path / "nats" / "store", tmp_path / "kept"
    history, other = calls(20), calls(25)
    async with warehouse(config_for("embedded", tmp_path)) as house:
        async with ledger(nats_server.url) as stream:
            await stream.create()
            await stream.append(*history[:30])
            nats_server.stop()
            shutil.copytree(store, kept)
            nats_server.start()
            await until(stream.is_reached)
            async with projecting(house, stream) as projector:
                await stream.append(*history[30:])
                await applied(projector, 40)
                nats_server.stop()
                shutil.rmtree(store)
                shutil.copytree(kept, store)
                nats_server.start()
                await until(stream.is_reached)
                await stream.append(*other)
                projector.look_again()
                await applied(projector, 80)
        truncated = next(one for one in caplog.records if one.message == "ledger.truncated")
        assert truncated.__dict__["last_equal_seq"] == 30
        ledger_now = [*history[:30], *other]
        assert await projected(house) == fold(enumerate(ledger_now, 1))
        assert await house.one("select count() from events final") == 80


@asynccontextmanager
async def asking(url: str) -> AsyncIterator[Analytics]:
    connection = await Connection.connect(BusConfig(url=url), name="ingress")
    try:
        yield Analytics(connection)
    finally:
        await connection.close()


async def test_the_role_answers_over_the_bus_and_ends_in_order(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    now = rfc3339(Clock().now_ns())
    mine = complete(new_id(), event_id=new_id(), time=now, project="mine", cost_nano=1_000)
    theirs = failed(new_id(), event_id=new_id(), time=now, project="theirs", cost_nano=None)
    config = config_for("embedded", tmp_path, nats_server.url_of("analytics"))
    async with ledger(nats_server.url) as stream, asking(nats_server.url) as analytics:
        await stream.create()
        with pytest.raises(Unavailable, match="not running") as nobody:
            await analytics.usage(UsageParams(), None)
        assert nobody.value.info.retry_after
        with child(config) as role:
            await role.ready()
            last = await stream.append(mine, theirs)

            async def seen() -> bool:
                return (await analytics.usage(UsageParams(), None)).as_of_seq == last

            await until(seen)
            everything = await analytics.usage(UsageParams(), None)
            assert (everything.total_requests, everything.total_cost) == (2, 0.000001)
            own = await analytics.usage(UsageParams(), Scope(project="mine"))
            assert own.total_requests == 1
            rows = await analytics.sql("select project, cost_usd from calls", Scope(project="mine"))
            assert (rows.columns, rows.rows) == (["project", "cost_usd"], [["mine", 0.000001]])
            assert rows.as_of_seq == last
            for statement, code in (
                ("drop table events", "sql_refused"),
                ("select x", "sql_failed"),
            ):
                with pytest.raises(NexusError) as refused:
                    await analytics.sql(statement, None)
                assert (refused.value.info.status, refused.value.info.code) == (400, code)
            with pytest.raises(NexusError) as unknown:
                await analytics.usage(UsageParams(period="decade"), None)
            assert unknown.value.info.param == "period"
            assert await role.terminate() == 0
        await acked(stream, last)
        with pytest.raises(Unavailable):
            await analytics.usage(UsageParams(), None)


async def test_a_result_too_large_for_the_bus_is_refused_with_advice(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    config = config_for("embedded", tmp_path, nats_server.url_of("analytics"))
    async with ledger(nats_server.url) as stream, asking(nats_server.url) as analytics:
        await stream.create()
        events = [complete(new_id(), event_id=new_id(), app="x" * 1_000) for _ in range(100)]
        last = await stream.append(*events)
        with child(config) as role:
            await role.ready()

            async def seen() -> bool:
                return (await analytics.usage(UsageParams(), None)).as_of_seq == last

            await until(seen)
            with pytest.raises(NexusError, match="more than the bus carries") as refused:
                await analytics.sql("select a.app from events a cross join events b", None)
            assert refused.value.info.status == 400


async def test_while_another_process_has_the_database_the_answer_is_503(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    config = config_for("embedded", tmp_path, nats_server.url_of("analytics"))
    async with ledger(nats_server.url) as stream, asking(nats_server.url) as analytics:
        await stream.create()
        async with warehouse(config):
            one = Child(config)

            async def says_why() -> bool:
                try:
                    await analytics.usage(UsageParams(), None)
                except NexusError as error:
                    assert error.info.status == 503
                    return "does not open" in error.info.message
                return False

            await until(says_why)
            assert await one.terminate() == 0


async def test_the_role_waits_for_a_bus_and_ends_without_one(tmp_path: Path) -> None:
    config = Config(data_dir=str(tmp_path), bus=BusConfig(url="nats://127.0.0.1:9"))
    one = Child(config)
    opened = tmp_path / "analytics" / "store" / "status"

    async def is_open() -> bool:
        return opened.exists()

    await until(is_open)
    assert await one.terminate() == 0


async def test_the_role_ends_in_order_when_the_bus_went_away(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    async with ledger(nats_server.url) as stream:
        await stream.create()
    one = Child(config_for("embedded", tmp_path / "data", nats_server.url_of("analytics")))
    await one.ready()
    nats_server.stop()
    assert await one.terminate() == 0
