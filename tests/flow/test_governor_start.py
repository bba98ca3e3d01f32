"""A governor that has lost its checkpoint: it begins with what the database knows, as if it had
folded the whole ledger; where that cannot be, it folds what there is, or waits."""

import asyncio
import logging
import random
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nats.js.errors import NotFoundError

from compose.nats_server import NatsServer
from compose.verify import verify
from ledger import checkpoint, starting
from ledger.budgets.messages import StateAsk, decode_states, encode
from ledger.checkpoint import Checkpoint, digest_of, unpack
from ledger.connection import Connection
from ledger.fold import Fold
from ledger.log import last_sequence
from ledger.reader import read_at, read_subject
from ledger.starting import Start
from schemas import subjects
from schemas.access import Budget
from schemas.budget_events import BudgetReset
from schemas.config import BusConfig, Config
from schemas.ids import Clock
from tests import sample_events as sample
from tests.budget_history import ACCOUNTS, History
from tests.governed_bus import Bus, bus_at, governing, until
from tests.warehouse import Child, Ledger, child, ledger, new_id

BUDGETS = (
    Budget(scope="project", id="shop", period="total", limit_nano=10**9),
    Budget(scope="user", id="*", period="total", limit_nano=10**9),
)
SHOP, ANA = "project:shop:total@all.1", "user:ana:total@all.0"


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[Bus]:
    async with bus_at(nats_url) as bus:
        yield bus


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def projecting(stack: AsyncExitStack, server: NatsServer, tmp_path: Path) -> Child:
    config = Config(data_dir=str(tmp_path / "data"), bus=BusConfig(url=server.url_of("analytics")))
    role = stack.enter_context(child(config))
    await role.ready()
    return role


async def append(bus: Bus, events: Sequence[Any]) -> int:
    """One after the other, also what comes twice."""
    seq = 0
    for event in events:
        seq = await bus.append(event, message_id=new_id())
    return seq


async def projected(server: NatsServer, seq: int) -> None:
    async with ledger(server.url) as stream:

        async def reached() -> bool:
            try:
                return await stream.acked() >= seq
            except NotFoundError:
                return False

        await until(reached, 60)


async def drop_head(server: NatsServer, kept: int) -> None:
    """Leave only the newest events, as an archive would."""
    async with ledger(server.url) as stream:
        await trim(stream, kept)
        await trim(stream, -1)


async def trim(stream: Ledger, most: int) -> None:
    info = await stream.js.stream_info(subjects.LEDGER)
    config = info.config.as_dict()
    answer = await stream.connection.request(
        subjects.api("STREAM.UPDATE", subjects.LEDGER),
        msgspec.json.encode({**config, "max_msgs": most}),
    )
    assert "error" not in msgspec.json.decode(answer.data)


async def find(bus: Bus, **options: Any) -> Checkpoint | None:
    return await Start(bus.connection, 0, asyncio.Event(), **options).find()


async def told(bus: Bus, start: Checkpoint) -> dict[str, Any]:
    """What a fold from there on knows once it has read the ledger."""
    fold = Fold(start)
    for record in await read_subject(
        bus.connection, subjects.LEDGER, ">", from_seq=start.fold_from
    ):
        fold.take(record)
    book, state = fold.book, fold.book.snapshot()
    return {
        "seq": fold.seq,
        "settled": {one: book.settled(one) for one in ACCOUNTS},
        "free": {one: book.free(one) for one in ACCOUNTS},
        "held": {one: book.held(one) for one in ACCOUNTS},
        "of": {one: dict(book.free_of(one)) for one in book.holders() if book.free_of(one)},
        "calls": {one.call_id: (one.accounts, one.nano) for one in state.calls},
        "epochs": state.epochs,
        "warned": set(fold.alerts.warned),
        "open": {one.start.call_id for one in fold.open_calls},
    }


async def spent(bus: Bus) -> dict[str, int]:
    found: dict[str, int] = {}

    async def answered() -> bool:
        answer = await bus.connection.request(subjects.GOVERNOR_BUDGETS, encode(StateAsk()))
        found.update((one.account, one.spent_nano) for one in decode_states(answer.data).budgets)
        return True

    await until(answered)
    return found


def history(seed: int, count: int) -> list[Any]:
    made = History(random.Random(seed))
    while len(made.events) < count:
        made.grow()
    return made.events


async def test_it_begins_with_the_database_as_if_it_had_folded_all(
    bus: Bus, nats_server: NatsServer, stack: AsyncExitStack, tmp_path: Path
) -> None:
    events = history(3, 240)
    await projecting(stack, nats_server, tmp_path)
    await projected(nats_server, await append(bus, events[:160]))
    start = await find(bus, worth=0)
    assert start is not None
    assert (start.seq, unpack(start.book).seq) == (160, 160)
    assert 1 < start.fold_from <= 160
    assert await told(bus, start) == await told(bus, Checkpoint())
    await append(bus, events[160:])
    whole = await told(bus, Checkpoint())
    assert await told(bus, start) == whole
    assert whole["epochs"] and whole["warned"] and whole["calls"] and whole["of"]


async def test_it_begins_with_the_database_also_where_the_ledger_has_lost_its_head(
    bus: Bus, nats_server: NatsServer, stack: AsyncExitStack, tmp_path: Path
) -> None:
    events = history(5, 200)
    role = await projecting(stack, nats_server, tmp_path)
    await projected(nats_server, await append(bus, events[:150]))
    await role.terminate()
    await append(bus, events[150:])
    whole = await told(bus, Checkpoint())
    opens = [seq for seq, one in enumerate(events, 1) if one.call_id in whole["open"]]
    kept = 200 - min([100, *opens]) + 1
    await drop_head(nats_server, kept)
    role = await projecting(stack, nats_server, tmp_path)
    start = await find(bus)
    assert start is not None and start.seq >= 150
    assert await told(bus, start) == whole


async def test_a_ledger_that_is_soon_folded_is_folded(
    bus: Bus, nats_server: NatsServer, stack: AsyncExitStack, tmp_path: Path
) -> None:
    await projecting(stack, nats_server, tmp_path)
    await projected(nats_server, await append(bus, history(1, 20)))
    assert await find(bus) == Checkpoint()
    assert await find(bus, worth=20) == Checkpoint()


async def test_without_the_database_a_whole_ledger_is_folded(
    bus: Bus, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(starting, "_PATIENCE", 0.5)
    await append(bus, history(1, 20))
    assert await find(bus, worth=0) == Checkpoint()
    assert "folding the ledger from its beginning" in caplog.text


async def test_a_governor_that_may_not_ask_folds_a_whole_ledger(
    bus: Bus,
    nats_server: NatsServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As where the users of a bus were given their rights before there was such a question."""
    monkeypatch.setattr(starting, "_PATIENCE", 0.5)
    monkeypatch.setattr(subjects, "OPENING", "ask.for_more")
    await append(bus, history(1, 20))
    troubles: list[str] = []
    connection = await Connection.connect(
        BusConfig(url=nats_server.url_of("governor")), name="governor", on_fatal=troubles.append
    )
    try:
        assert await Start(connection, 0, asyncio.Event(), 0).find() == Checkpoint()
    finally:
        await connection.close()
    assert troubles == []
    [record] = [one for one in caplog.records if one.message.startswith("folding the ledger")]
    assert "may not ask" in record.__dict__["reason"]


async def test_a_database_of_another_ledger_is_not_believed(
    bus: Bus,
    nats_server: NatsServer,
    stack: AsyncExitStack,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It has an event at the same sequence, and it is another one."""
    monkeypatch.setattr(starting, "_PATIENCE", 0.5)
    await append(bus, history(1, 20))

    def answer(message: Any) -> None:
        ok = {"through": 5, "digest": "of another", "read_from": 2}
        bus.connection.publish(message.reply, msgspec.json.encode({"ok": ok}))

    bus.connection.subscribe(subjects.OPENING, answer)
    assert await find(bus, worth=0) == Checkpoint()
    assert "folding the ledger from its beginning" in caplog.text


async def test_without_its_head_and_without_the_database_nothing_is_governed_until_there_is_one(
    bus: Bus,
    nats_server: NatsServer,
    stack: AsyncExitStack,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    role = await projecting(stack, nats_server, tmp_path)
    events = [
        sample.complete(f"c{number}", event_id=new_id(), accounts=(SHOP,), cost_nano=7)
        for number in range(30)
    ]
    await projected(nats_server, await append(bus, events))
    await role.terminate()
    await drop_head(nats_server, 10)
    ending = asyncio.Event()
    waiting = Start(bus.connection, 0, ending)
    given_up = asyncio.create_task(waiting.find())
    with caplog.at_level(logging.ERROR):

        async def said() -> bool:
            return "the ledger begins at sequence 21" in caplog.text

        await until(said)
    assert "start `nexus analytics`" in caplog.text
    assert not given_up.done()
    ending.set()
    assert await given_up is None
    found = asyncio.create_task(find(bus))
    await projecting(stack, nats_server, tmp_path)
    start = await found
    assert start is not None
    fold = Fold(start)
    assert fold.book.settled(SHOP) == 30 * 7


async def test_who_waits_for_the_database_goes_on_from_the_checkpoint_of_one_that_leads(
    bus: Bus, nats_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    last = await append(
        bus, [sample.complete(f"c{number}", event_id=new_id()) for number in range(30)]
    )
    await drop_head(nats_server, 10)
    finding = asyncio.create_task(find(bus))
    with caplog.at_level(logging.ERROR):

        async def said() -> bool:
            return "the ledger begins at sequence 21" in caplog.text

        await until(said)
    newest = await read_at(bus.connection, subjects.LEDGER, last)
    assert newest is not None
    saved = Checkpoint(fold_from=last + 1, seq=last, digest=digest_of(newest))
    await checkpoint.save(bus.publisher, saved, Clock())
    async with asyncio.timeout(10):
        assert await finding == saved


async def test_a_database_without_the_head_does_not_count_as_one_that_knows_it(
    bus: Bus, nats_server: NatsServer, stack: AsyncExitStack, tmp_path: Path
) -> None:
    events = [
        sample.complete(f"c{number}", event_id=new_id(), accounts=(SHOP,), cost_nano=7)
        for number in range(30)
    ]
    last = await append(bus, events)
    await drop_head(nats_server, 10)
    await projecting(stack, nats_server, tmp_path)
    await projected(nats_server, last)
    asked: asyncio.Queue[Any] = asyncio.Queue()
    bus.connection.subscribe(subjects.OPENING, asked.put_nowait)
    async with governing(nats_server, is_ready=False) as role:
        for _ in range(3):
            async with asyncio.timeout(30):
                await asked.get()
        assert await last_sequence(bus.connection) == last
        assert await role.ends_with(signal.SIGTERM) == 0


async def test_a_governor_that_began_so_agrees_with_ledger_and_database(
    bus: Bus, nats_server: NatsServer, stack: AsyncExitStack, tmp_path: Path
) -> None:
    await append(bus, [sample.budget_set(one, event_id=new_id()) for one in BUDGETS])
    fields: dict[str, Any] = {"event_id": new_id(), "time": "2026-09-21T12:00:00Z", "v": 1}
    await append(bus, [BudgetReset(**fields, budget="project:shop:total", epoch=1)])
    last = 0
    for number in range(40):
        call, accounts = f"c{number}", (SHOP, ANA)
        await append(bus, [sample.start(call, accounts=accounts, holder="h", hold_nano=90)])
        end = sample.complete(call, event_id=new_id(), accounts=accounts, cost_nano=number)
        last = await append(bus, [end, end] if number % 7 == 0 else [end])
    await projecting(stack, nats_server, tmp_path)
    await projected(nats_server, last)
    async with governing(nats_server, worth_asking=0):
        await bus.governed()
        states = await spent(bus)
        assert (states[SHOP], states[ANA]) == (780, 780)
        # Its counters begin anew: it has not read what came before.
        counted = [line for line in await bus.metrics() if 'status="complete"' in line]
        assert counted == []
        code = await asyncio.to_thread(verify, BusConfig(url=nats_server.url), 30.0, False)
        assert code == 0
