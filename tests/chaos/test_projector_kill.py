"""The projector is killed again and again under load and still counts every event once."""

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from compose.nats_server import NatsServer
from ledger.connection import Connection
from ledger.reader import read_subject
from schemas import subjects
from schemas.config import BusConfig
from schemas.event import Event
from schemas.events import decode_event
from schemas.usage import Usage
from tests.ledger_fold import fold, projected
from tests.sample_events import (
    NOON,
    SECOND,
    attempt_abandoned,
    attempt_failed,
    attempt_late,
    cancelled,
    complete,
    failed,
    rejected,
    start,
)
from tests.warehouse import (
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

KILLS = 6
HOURS = 3


def call(chance: random.Random) -> list[Event]:
    """The events of one call, as a bus that delivers twice might bring them about."""
    fields: dict[str, Any] = {
        "call_id": new_id(),
        "at_ns": NOON + chance.randrange(HOURS * 3_600) * SECOND,
        "project": chance.choice("pqr"),
        "key_id": chance.choice(("k1", "k2")),
        "model": chance.choice(("m1", "m2")),
    }

    def paid(**more: Any) -> dict[str, Any]:
        usage = Usage(input=chance.randrange(900), output=chance.randrange(90), status="reported")
        money = {"usage": usage, "usage_status": "reported", "cost_nano": chance.randrange(10**9)}
        return fields | {"event_id": new_id()} | money | more

    events: list[Event] = [start(**fields, event_id=new_id())]
    if chance.random() < 0.2:
        kind = chance.choice((attempt_failed, attempt_abandoned))
        events.append(kind(**paid()))
    end = chance.choice((complete, complete, complete, failed, cancelled, rejected))
    events.append(end(**paid(latency_ms=float(chance.randrange(5_000)))))
    if chance.random() < 0.1:
        events.append(chance.choice((complete, failed))(**paid()))
    if chance.random() < 0.1:
        events.append(attempt_late(**paid(cost_nano=-chance.randrange(1_000))))
    return events


async def append_for_ever(stream: Ledger, chance: random.Random) -> None:
    """Some hundred events a second, one in eight of them stored a second time later."""
    earlier: list[Event] = []
    while True:
        fresh = [event for _ in range(10) for event in call(chance)]
        await stream.append(*fresh)
        await stream.js.publish("ledger.worker.p.model.request.complete", b"{spoilt")
        if earlier:
            await stream.append(*chance.choices(earlier, k=len(fresh) // 8))
        earlier = fresh
        await asyncio.sleep(0.05)


async def compare(house: Warehouse, url: str, last: int) -> None:
    """Every message of the ledger is one row, and every sum is the ledger's own."""
    connection = await Connection.connect(BusConfig(url=url), name="test")
    records = await read_subject(connection, subjects.LEDGER, subjects.LEDGER_SUBJECTS)
    await connection.close()
    kept = [(record.seq, record.data) for record in records]
    assert [seq for seq, _ in kept] == list(range(1, last + 1))
    rows = await house.rows("select seq, hex(raw) from events final order by seq")
    assert [(seq, bytes.fromhex(raw)) for seq, raw in rows] == kept
    decoded = [(seq, decode_event(data)) for seq, data in kept if data != b"{spoilt"]
    assert await projected(house) == fold((seq, event) for seq, event in decoded if event)


@pytest.mark.slow
@on_every_backend
async def test_no_kill_loses_or_doubles_an_event(
    backend: str, nats_server: NatsServer, tmp_path: Path
) -> None:
    config = config_for(backend, tmp_path, nats_server.url_of("analytics"))
    chance = random.Random(20)
    async with ledger(nats_server.url) as stream:
        await stream.create()
        writing = asyncio.create_task(append_for_ever(stream, random.Random(7)))
        progress = []
        for _ in range(KILLS):
            with child(config) as role:
                await role.ready()
                await asyncio.sleep(chance.uniform(0.0, 1.5))
                role.kill()
            progress.append(await stream.acked())
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        last = (await stream.js.stream_info(subjects.LEDGER)).state.last_seq
        assert 0 < progress[-1] < last, "the kills did not fall into the work"

        async def caught_up() -> bool:
            return await stream.acked() == last

        with child(config) as role:
            await until(caught_up)
            assert await role.terminate() == 0
        async with warehouse(config) as house:
            await compare(house, nats_server.url, last)
    await drop(config)
