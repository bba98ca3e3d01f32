"""The governor against a real bus: it closes what nobody ended, once, and survives being killed."""

import asyncio
import hashlib
import json
import shutil
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import nats
import pytest

from compose.nats_server import NatsServer
from ledger import checkpoint, closer
from ledger.beats import Beats
from ledger.budgets.book import Book
from ledger.checkpoint import Checkpoint, digest_of, pack, unpack
from ledger.closer import Closer
from ledger.connection import NoResponders, RequestTimeout
from ledger.fenced import Fenced
from ledger.governor import Governor
from ledger.log import Follower, Truncated
from ledger.reader import read_at, read_subject
from schemas import subjects
from schemas.event import Event
from schemas.events import RequestLost
from schemas.ids import Clock
from tests import sample_events as sample
from tests.governed_bus import Bus, bus_at, governing, running, until
from tests.sample_events import SECOND


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[Bus]:
    async with bus_at(nats_url) as bus:
        yield bus


async def caught_up(bus: Bus, seq: int) -> None:
    async def reached() -> bool:
        return bool((await bus.state())["seq"] >= seq)

    await until(reached)


async def open_calls(role: Governor, count: int) -> None:
    async def reached() -> bool:
        return role.state().open_calls == count

    await until(reached)


async def lost_count(bus: Bus, count: int) -> None:
    async def reached() -> bool:
        return len(await bus.lost()) >= count

    await until(reached)


def overdue_start(call_id: str) -> Event:
    now = time.time_ns()
    return sample.start(call_id, now - 20 * SECOND, now - 10 * SECOND, project="p1")


def running_start(call_id: str) -> Event:
    return sample.start(call_id, time.time_ns())


async def test_a_call_that_nobody_ended_is_ended_as_lost(bus: Bus, nats_server: NatsServer) -> None:
    await bus.append(overdue_start("gone"), running_start("runs"), overdue_start("done"))
    await bus.append(sample.complete("done", time.time_ns()))
    async with governing(nats_server):
        await lost_count(bus, 1)
        [event] = [event for event in await bus.events() if isinstance(event, RequestLost)]
        assert (event.call_id, event.model, event.project) == ("gone", "gpt-4o", "p1")
        assert event.cost_nano is None
        await caught_up(bus, 6)
        assert (await bus.state())["open_calls"] == 1


async def test_two_governors_end_a_call_once(bus: Bus, nats_server: NatsServer) -> None:
    async with governing(nats_server), governing(nats_server):
        seq = await bus.append(*(overdue_start(f"gone-{n}") for n in range(20)))
        await lost_count(bus, 20)
        await caught_up(bus, seq + 20)
    assert sorted(await bus.lost()) == sorted(f"gone-{n}" for n in range(20))


async def test_a_killed_governor_leaves_a_successor_what_it_needs(
    bus: Bus, nats_server: NatsServer
) -> None:
    await bus.append(running_start("stays"), sample.rejected("no"))
    await bus.append(running_start("late"), sample.complete("late", time.time_ns()))
    async with governing(nats_server) as first:
        await caught_up(bus, 5)
        assert await first.ends_with(signal.SIGTERM) == 0
    kept = await checkpoint.load(bus.connection)
    assert (kept.fold_from, kept.seq) == (1, 5)
    async with governing(nats_server) as second:
        await bus.append(sample.complete("stays", time.time_ns()), overdue_start("gone"))
        await lost_count(bus, 1)
        assert await second.ends_with(signal.SIGKILL) == -signal.SIGKILL
    async with governing(nats_server):
        await caught_up(bus, 9)
        assert await bus.lost() == ["gone"]
        lines = await bus.metrics()
        counted = 'nexus_ai_requests_total{model="gpt-4o",provider="openai",status='
        assert f'{counted}"complete"}} 2.0' in lines
        assert f'{counted}"rejected"}} 1.0' in lines
        assert f'{counted}"lost"}} 1.0' in lines
        assert "nexus_ai_open_calls 0.0" in lines


async def test_a_checkpoint_of_another_ledger_is_not_believed(
    bus: Bus, nats_server: NatsServer
) -> None:
    await bus.append(overdue_start("gone"))
    foreign = Checkpoint(fold_from=2, seq=1, digest="of another event")
    await checkpoint.save(bus.publisher, foreign, Clock())
    async with governing(nats_server):
        await lost_count(bus, 1)


async def test_a_checkpoint_of_many_accounts_lies_in_pieces_and_old_ones_go(bus: Bus) -> None:
    book = Book()
    for number in range(10_000):
        account = f"user:{hashlib.sha256(b'%d' % number).hexdigest()}:total@all.0"
        book.fold(number + 1, sample.complete("c", cost_nano=number, accounts=(account,)))
    seq = await bus.append(running_start("a"))
    newest = await read_at(bus.connection, subjects.LEDGER, seq)
    assert newest is not None
    kept = Checkpoint(seq=seq, digest=digest_of(newest), book=pack(book.snapshot()))
    for _ in range(2):
        await checkpoint.save(bus.publisher, kept, Clock())
    lies = await checkpoint.save(bus.publisher, kept, Clock())
    assert lies is not None and lies.pieces > 1
    loaded = await checkpoint.load(bus.connection)
    assert unpack(loaded.book) == book.snapshot()
    await checkpoint.purge_before(bus.connection, lies)
    pieces = await read_subject(bus.connection, subjects.SNAPSHOTS, "snapshot.book.*")
    assert pieces[0].seq == lies.first_seq
    assert len(pieces) == lies.pieces
    assert unpack((await checkpoint.load(bus.connection)).book) == book.snapshot()


async def test_the_closer_waits_while_the_fold_is_behind(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closer, "_CHECK_EVERY", 0.01)
    monkeypatch.setattr(closer, "_CATCH_UP_WITHIN", 0.05)
    role = Governor(bus.connection, bus.publisher, Checkpoint(), Clock())
    ledger = Fenced(bus.connection, bus.publisher)
    closing = Closer(bus.connection, ledger, role.fold, 0.0, Clock())
    await bus.append(overdue_start("gone"))
    async with running(role.follow()):
        await open_calls(role, 1)
    # An end whose message id the ledger has forgotten: only a fold that has it prevents a second.
    await bus.append(sample.complete("gone", time.time_ns()), message_id="forgotten")
    async with running(closing.run()):
        await asyncio.sleep(0.5)
        assert await bus.lost() == []
        async with running(role.follow()):
            await open_calls(role, 0)
        assert await bus.lost() == []


async def test_the_closer_closes_while_events_keep_coming(
    bus: Bus, nats_server: NatsServer
) -> None:
    async with governing(nats_server):
        await bus.append(overdue_start("gone"))
        async with asyncio.timeout(15):
            while not await bus.lost():
                for _ in range(20):
                    await bus.append(sample.first_token("other"))
    assert await bus.lost() == ["gone"]


async def test_events_that_no_one_here_knows_are_parked_and_passed_over(
    bus: Bus, nats_server: NatsServer
) -> None:
    for subject, data in (
        ("ledger.worker.=.model.request.dreamt", b'{"event_type":"model.request.dreamt"}'),
        ("ledger.worker.=.model.request.start", msgspec.json.encode(running_start("forged"))),
        ("ledger.ingress.=.model.request.start", b"no json"),
        ("ledger.ingress", b"{}"),
    ):
        await bus.publisher.publish(subject, data, msg_id=subject)
    seq = await bus.append(running_start("real"))
    async with governing(nats_server):
        await caught_up(bus, seq)
        assert (await bus.state())["open_calls"] == 1
        assert 'nexus_ai_events_total{type="parked"} 4.0' in await bus.metrics()


async def test_the_state_names_the_providers_and_the_sequence(
    bus: Bus, nats_server: NatsServer
) -> None:
    await bus.append(running_start("a"), sample.complete("a", time.time_ns()))
    async with governing(nats_server):
        await caught_up(bus, 3)
        assert await bus.state() == {
            "seq": 3,
            "open_calls": 0,
            "providers": {
                "openai": {
                    "status": "healthy",
                    "latency_ms": 200.0,
                    "error_rate": 0.0,
                    "recent_attempts": 1,
                }
            },
        }


async def test_any_nats_client_can_ask_for_the_metrics(bus: Bus, nats_server: NatsServer) -> None:
    async with governing(nats_server):
        client = await nats.connect(nats_server.url)
        try:
            answer = await client.request(subjects.GOVERNOR_METRICS, b"", timeout=5)
        finally:
            await client.close()
    assert b"# TYPE nexus_ai_requests_total counter" in answer.data


async def test_refusals_of_a_process_that_went_away_stay_counted(
    bus: Bus, nats_server: NatsServer
) -> None:
    refused = 'nexus_ai_errors_total{provider="",type="authentication_error"} '
    async with governing(nats_server):
        beats = Beats(bus.connection, "ingress", Clock(), in_flight=lambda: 7)
        async with running(beats.run()):
            await asyncio.sleep(0)
            for _ in range(3):
                beats.count_refusal("authentication_error")

        async def counted() -> bool:
            return f"{refused}3.0" in await bus.metrics()

        await until(counted)
        lines = await bus.metrics()
        assert f'nexus_ai_in_flight_calls{{id="{beats.id}",role="ingress"}} 7.0' in lines
        assert any(line.startswith("nexus_ai_resident_memory_bytes{") for line in lines)
        bus.connection.publish(subjects.GOVERNOR_BEAT, b"not a beat")
        other = json.dumps({"role": "worker", "id": "w", "refusals": {"authentication_error": 1}})
        bus.connection.publish(subjects.GOVERNOR_BEAT, other.encode())

        async def counted_both() -> bool:
            return f"{refused}4.0" in await bus.metrics()

        await until(counted_both)


async def test_no_number_goes_down_while_one_governor_follows_another(
    bus: Bus, nats_server: NatsServer
) -> None:
    """The second is killed and leaves most of what it counted to be folded again."""
    shown: list[float] = []

    async def scrape() -> None:
        while True:
            try:
                lines = await bus.metrics(patience=0.1)
            except (NoResponders, RequestTimeout):
                continue
            names = (
                'nexus_ai_errors_total{provider="",',
                'nexus_ai_events_total{type="model.streaming.start"',
            )
            shown.append(sum(float(line.split()[-1]) for line in lines if line.startswith(names)))

    async def shows(number: float) -> None:
        async def reached() -> bool:
            return bool(shown) and shown[-1] == number

        await until(reached)

    async def happen(events: int) -> None:
        for _ in range(0, events, 200):
            await asyncio.gather(*(bus.append(sample.first_token("c")) for _ in range(200)))

    beats = Beats(bus.connection, "ingress", Clock())
    async with running(beats.run(), scrape()):
        async with governing(nats_server) as first:
            beats.count_refusal("authentication_error")
            await happen(200)
            await shows(201)
            assert await first.ends_with(signal.SIGTERM) == 0
        async with governing(nats_server) as second:
            beats.count_refusal("authentication_error")
            await happen(4_000)
            await shows(4_202)
            assert await second.ends_with(signal.SIGKILL) == -signal.SIGKILL
        before = len(shown)
        async with governing(nats_server):
            await happen(200)
            await shows(4_402)
    assert len(shown) > before
    assert shown == sorted(shown)


async def test_the_governor_goes_on_after_the_bus_was_restarted(nats_server: NatsServer) -> None:
    async with governing(nats_server), bus_at(nats_server.url) as bus:
        await bus.append(running_start("a"))
        nats_server.kill()
        nats_server.start()
        await bus.append(overdue_start("gone"))
        await lost_count(bus, 1)
        await caught_up(bus, 3)


async def test_the_governor_stops_in_order_while_the_bus_is_away(nats_server: NatsServer) -> None:
    async with governing(nats_server) as role:
        async with bus_at(nats_server.url) as bus:
            await caught_up(bus, await bus.append(running_start("a")))
        nats_server.kill()
        started = time.monotonic()
        assert await role.ends_with(signal.SIGTERM) == 0
        assert time.monotonic() - started < 5


async def test_a_ledger_that_lost_its_end_is_noticed_and_folded_anew(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    """As after a power cut: the store is put back to what it was some events ago."""
    store, earlier = tmp_path / "nats" / "store", tmp_path / "earlier"
    async with bus_at(nats_server.url) as bus:
        await bus.append(running_start("a"))
        nats_server.stop()
        shutil.copytree(store, earlier)
        nats_server.start()
        await bus.append(running_start("b"), running_start("c"))
        records = Follower(bus.connection, 1).records()
        assert [(await anext(records)).seq for _ in range(3)] == [1, 2, 3]
        async with governing(nats_server) as role:
            await caught_up(bus, 4)
            assert (await anext(records)).seq == 4
            nats_server.kill()
            shutil.rmtree(store)
            shutil.copytree(earlier, store)
            nats_server.start()
            with pytest.raises(Truncated):
                await anext(records)
            assert await role.ends() == 1
        async with governing(nats_server):
            await caught_up(bus, await bus.append(running_start("d")))
            assert (await bus.state())["open_calls"] == 2
