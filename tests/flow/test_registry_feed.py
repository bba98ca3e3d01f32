"""The key registry of several processes on one real bus: it follows, survives, and never forks."""

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from compose.nats_server import NatsServer
from ledger.access.changes import Changes
from ledger.access.feed import Feed
from ledger.access.registry import Registry
from ledger.access.snapshot import Snapshots
from ledger.connection import Connection
from ledger.log import Ledger
from ledger.publisher import Publisher
from ledger.reader import read_last, read_subject
from ledger.secret import ServerSecret
from ledger.streams import streams
from schemas import subjects
from schemas.access import Project
from schemas.access_events import AccessEvent
from schemas.config import BusConfig, Config
from schemas.errors import InvalidRequest, Unavailable
from schemas.ids import Clock
from tests import sample_events as sample
from tests.cable import Cable
from tests.governed_bus import Bus, bus_at, governing, running, until
from tests.many_keys import append_keys
from tests.sample_events import a_key, digest_of_text

CLOCK = Clock()
HEAD = subjects.setting("access.snapshot")
SECRET = ServerSecret(("a secret only for tests",))


@dataclass
class Member:
    """What a process has that follows the registry and changes it."""

    connection: Connection
    registry: Registry
    feed: Feed
    changes: Changes

    async def make(self, event: AccessEvent) -> AccessEvent:
        return await self.changes.make(lambda _: event)

    async def knows(self, key_id: str, seconds: float = 10.0) -> None:
        async def known() -> bool:
            return self.registry.key(key_id) is not None

        await until(known, seconds)


@asynccontextmanager
async def member(url: str) -> AsyncIterator[Member]:
    connection = Connection.begin(BusConfig(url=url), name="ingress")
    registry = Registry()
    feed = Feed(connection, registry, CLOCK)
    ledger = Ledger(Publisher(connection), "ingress")
    async with running(feed.run()):
        yield Member(connection, registry, feed, Changes(ledger, registry, feed, CLOCK))
    await connection.close()


@asynccontextmanager
async def loaded(url: str) -> AsyncIterator[Member]:
    async with member(url) as one:
        async with asyncio.timeout(10):
            await one.feed.wait_loaded()
        yield one


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[Bus]:
    """Closed when it is back from whatever a test did to the server."""
    async with bus_at(nats_url) as bus:
        yield bus

        async def back() -> bool:
            return bus.connection.connected

        await until(back)


@pytest.fixture
def ingress_url(nats_server: NatsServer) -> str:
    """With no more than the permissions of an ingress."""
    return nats_server.url_of("ingress")


@pytest.fixture
async def cable(nats_server: NatsServer) -> AsyncIterator[Cable]:
    cable = Cable(nats_server.port)
    await cable.open()
    yield cable
    await cable.close()


def through(cable: Cable, server: NatsServer) -> str:
    return server.url_of("ingress").replace(f":{server.port}", f":{cable.port}")


def setting_up(project_id: str) -> Callable[[Registry], AccessEvent]:
    """Sets up a project that is not there yet."""

    def decide(registry: Registry) -> AccessEvent:
        if registry.project(project_id) is not None:
            raise InvalidRequest("It is there already.", code="already_exists")
        event = sample.project_set(Project(id=project_id))
        return msgspec.structs.replace(event, event_id=CLOCK.new_id())

    return decide


async def set_up(who: Member, project_id: str) -> bool:
    """Whether it was this call that set it up."""
    try:
        await who.changes.make(setting_up(project_id))
    except InvalidRequest:
        return False
    return True


def same(registries: list[Registry]) -> bool:
    return len({(one.seq, one.digest, tuple(sorted(one.projects))) for one in registries}) == 1


async def until_same(*members: Member) -> None:
    async def all_same() -> bool:
        return same([one.registry for one in members])

    await until(all_same)


async def told(caplog: pytest.LogCaptureFixture, text: str) -> None:
    async def said() -> bool:
        return text in caplog.messages

    await until(said)


# Following


async def test_a_change_arrives_everywhere_within_a_second(bus: Bus, ingress_url: str) -> None:
    async with loaded(ingress_url) as a, loaded(ingress_url) as b, loaded(ingress_url) as c:
        await a.make(sample.key_created(a_key()))
        assert a.registry.key("key_a") == a_key()
        for one in (b, c):
            assert await one.feed.reach(a.registry.seq)
            assert one.registry.owner(digest_of_text("key_a")) is not None
        await b.make(sample.key_revoked(a_key()))
        for one in (a, c):
            assert await one.feed.reach(b.registry.seq)
            key = one.registry.key("key_a")
            assert key is not None and key.revoked_at is not None


async def test_changes_arrive_without_any_news(bus: Bus, ingress_url: str) -> None:
    """Nothing but the regular look is left when nobody republishes."""
    stream = next(one for one in streams(Config()) if one.pop("republish", None))
    await bus.connection.request(
        subjects.api("STREAM.UPDATE", subjects.LEDGER), msgspec.json.encode(stream)
    )
    async with loaded(ingress_url) as one:
        await bus.append(sample.key_created(a_key()))
        await one.knows("key_a", 1.0)


async def test_changes_go_on_arriving_after_the_bus_was_killed(
    bus: Bus, nats_server: NatsServer
) -> None:
    async with (
        loaded(nats_server.url_of("ingress")) as a,
        loaded(nats_server.url_of("ingress")) as b,
    ):
        await a.make(sample.key_created(a_key("key_a")))
        nats_server.kill()
        nats_server.start()
        await a.make(sample.key_created(a_key("key_b")))
        assert await b.feed.reach(a.registry.seq)
        assert [b.registry.key(id) for id in ("key_a", "key_b")] == [a_key("key_a"), a_key("key_b")]


async def test_what_was_changed_while_a_process_was_cut_off_is_there_after_its_return(
    bus: Bus, nats_server: NatsServer, cable: Cable
) -> None:
    async with loaded(through(cable, nats_server)) as one:
        await bus.append(sample.key_created(a_key("key_a")))
        await one.knows("key_a")
        cable.cut()
        await bus.append(sample.key_revoked(a_key("key_a")), sample.key_created(a_key("key_b")))
        assert not await one.feed.reach(3, timeout=0.1)
        cable.mend()
        await one.knows("key_b")
        key = one.registry.key("key_a")
        assert key is not None and key.revoked_at is not None


async def test_a_read_that_the_bus_left_unanswered_delays_nothing(
    bus: Bus, nats_server: NatsServer, cable: Cable
) -> None:
    async with loaded(through(cable, nats_server)) as one:
        cable.deafen(after=b"next_by_subj")
        await bus.append(sample.key_created(a_key()))
        await cable.deaf.wait()
        cable.mend()
        await one.knows("key_a", 1.0)


async def test_without_the_bus_it_serves_what_is_known_and_says_so(
    bus: Bus, nats_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "nexus.access")
    async with loaded(nats_server.url_of("ingress")) as one:
        await one.make(sample.key_created(a_key()))
        assert one.feed.fresh
        nats_server.kill()

        async def stale() -> bool:
            return not one.feed.fresh

        await until(stale)
        await told(caplog, "key registry not up to date")
        assert one.feed.loaded
        assert one.registry.key("key_a") == a_key()
        nats_server.start()

        async def fresh() -> bool:
            return one.feed.fresh

        await until(fresh)
    assert [text for text in caplog.messages if text.startswith("key registry")] == [
        "key registry not up to date",
        "key registry up to date again",
    ]


async def test_a_process_that_starts_before_its_bus_loads_when_it_comes(
    nats_server: NatsServer,
) -> None:
    async with bus_at(nats_server.url) as bus:
        await bus.append(sample.key_created(a_key()))
    nats_server.stop()
    async with member(nats_server.url_of("ingress")) as one:
        with pytest.raises(Unavailable) as refused:
            await one.make(sample.key_created(a_key("key_b")))
        assert refused.value.info.code == "key_store_away"
        assert refused.value.info.retry_after is not None
        assert not one.feed.loaded and not one.feed.fresh
        nats_server.start()
        async with asyncio.timeout(10):
            await one.feed.wait_loaded()
        assert one.registry.key("key_a") == a_key()


async def test_other_events_between_the_changes_are_not_read(bus: Bus, ingress_url: str) -> None:
    await bus.append(sample.start("call"), sample.key_created(a_key()), sample.complete("call"))
    async with loaded(ingress_url) as one:
        assert (one.registry.seq, one.registry.version) == (2, 1)
        await bus.append(sample.start("other"), sample.key_created(a_key("key_b")))
        assert await one.feed.reach(5)
        assert one.registry.version == 2


# A ledger that lost its end


@pytest.mark.parametrize("after", ["nothing", "other events", "other changes"])
async def test_a_ledger_that_lost_its_end_is_noticed_and_read_anew(
    nats_server: NatsServer, tmp_path: Path, after: str, caplog: pytest.LogCaptureFixture
) -> None:
    store, copy = tmp_path / "nats", tmp_path / "copy"
    async with bus_at(nats_server.url) as bus:
        await bus.append(sample.key_created(a_key("key_a")))
    nats_server.stop()
    shutil.copytree(store, copy)
    nats_server.start()
    async with bus_at(nats_server.url) as bus, loaded(nats_server.url_of("ingress")) as one:
        await bus.append(sample.key_created(a_key("key_lost")), sample.key_revoked(a_key("key_a")))
        await one.knows("key_lost")
        nats_server.stop()
        shutil.rmtree(store)
        shutil.copytree(copy, store)
        nats_server.start()
        if after == "other events":
            await bus.append(*(sample.start(f"call-{n}") for n in range(5)))
        elif after == "other changes":
            await bus.append(*(sample.key_created(a_key(f"key_{n}")) for n in range(5)))

        async def anew() -> bool:
            return one.registry.key("key_lost") is None

        await until(anew)
        assert one.registry.key("key_a") == a_key("key_a")
        assert "ledger.truncated" in caplog.messages
        await one.make(sample.key_created(a_key("key_new")))
        assert one.registry.key("key_new") == a_key("key_new")
        assert one.registry.key_count == (7 if after == "other changes" else 2)


# Changing


async def test_two_processes_never_set_up_the_same_project_and_lose_no_change(
    bus: Bus, nats_server: NatsServer
) -> None:
    names = [f"project-{number}" for number in range(40)]
    async with (
        loaded(nats_server.url_of("ingress")) as a,
        loaded(nats_server.url_of("ingress")) as b,
    ):

        async def crash() -> None:
            await until_count(a, 20)
            nats_server.kill()
            nats_server.start()

        *made, _ = await asyncio.gather(
            *(set_up(one, name) for name in names for one in (a, b)), crash()
        )
        assert made.count(True) == len(names)
        await until_same(a, b)
        assert set(a.registry.projects) == set(names)
    stored = [event for event in await bus.events() if isinstance(event, AccessEvent)]
    assert sorted(event.project for event in stored) == sorted(names)


async def until_count(who: Member, count: int) -> None:
    async def reached() -> bool:
        return len(who.registry.projects) >= count

    await until(reached)


async def test_a_change_whose_ack_was_lost_is_made_once(
    bus: Bus, nats_server: NatsServer, cable: Cable
) -> None:
    """Sent again, it is refused by the ledger: the last event that it expects is not the last."""
    async with loaded(through(cable, nats_server)) as one:
        cable.deafen()
        change = asyncio.create_task(set_up(one, "shop"))

        async def stored() -> bool:
            return len(await bus.events()) == 1

        await until(stored)
        await bus.append(sample.key_created(a_key()))
        cable.mend()
        assert await change
        assert one.registry.project("shop") is not None
    assert len(await bus.events()) == 2


async def test_what_the_decision_raises_is_raised_and_nothing_is_stored(
    bus: Bus, ingress_url: str
) -> None:
    async with loaded(ingress_url) as one:
        assert await set_up(one, "shop")
        with pytest.raises(InvalidRequest) as refused:
            await one.changes.make(setting_up("shop"))
        assert refused.value.info.code == "already_exists"
    assert len(await bus.events()) == 1


async def test_changes_without_the_bus_are_refused_in_a_few_seconds(
    bus: Bus, nats_server: NatsServer
) -> None:
    async with loaded(nats_server.url_of("ingress")) as one:
        nats_server.kill()
        async with asyncio.timeout(8):
            refused = await asyncio.gather(
                *(one.changes.make(setting_up(f"p{n}")) for n in range(3)), return_exceptions=True
            )
        for error in refused:
            assert isinstance(error, Unavailable)
            assert error.info.code == "bus_away"
            assert error.info.retry_after is not None
        nats_server.start()
        assert await set_up(one, "later")


async def test_whoever_is_always_too_late_is_told_so(bus: Bus, ingress_url: str) -> None:
    async with loaded(ingress_url) as one:
        rival = Ledger(Publisher(one.connection), "ingress")

        def decide(registry: Registry) -> AccessEvent:
            faster = sample.project_set(Project(id="rival"))
            rival.append_nowait(msgspec.structs.replace(faster, event_id=CLOCK.new_id()))
            return setting_up("shop")(registry)

        with pytest.raises(Unavailable) as refused:
            await one.changes.make(decide)
        assert refused.value.info.code == "conflict"
        assert one.registry.project("shop") is None


# Starting from a snapshot


async def write_snapshot(bus: Bus, who: Member) -> None:
    await Snapshots(bus.connection, bus.publisher, who.registry, CLOCK).write()


async def generations(bus: Bus) -> set[str]:
    pieces = await read_subject(bus.connection, subjects.SNAPSHOTS, subjects.SNAPSHOT_SUBJECTS)
    return {piece.subject.rpartition(".")[2] for piece in pieces}


async def head_of(bus: Bus) -> dict[str, object]:
    head = await read_last(bus.connection, subjects.SETTINGS, HEAD)
    assert head is not None
    fields: dict[str, object] = msgspec.json.decode(head.data)
    return fields


async def replace_head(bus: Bus, **fields: object) -> None:
    head = msgspec.json.encode({**await head_of(bus), **fields})
    await bus.publisher.publish(HEAD, head, msg_id=CLOCK.new_id())


def everything(registry: Registry) -> dict[str, object]:
    keys = registry.keys()
    return {
        "keys": {key.id: key for key in keys},
        "projects": dict(registry.projects),
        "teams": dict(registry.teams),
        "budgets": dict(registry.budgets),
        "position": (registry.seq, registry.digest),
    }


async def test_a_start_reads_the_snapshot_and_only_what_came_after(
    bus: Bus, ingress_url: str
) -> None:
    texts = await append_keys(bus.connection, SECRET, 3000)
    await bus.append(sample.project_set(Project(id="shop")), sample.key_revoked(a_key()))
    async with loaded(ingress_url) as first:
        await write_snapshot(bus, first)
        assert first.registry.version == 3002
        await bus.append(sample.start("call"), sample.key_created(a_key("key_b")))
        assert await first.feed.reach(3004)
        async with loaded(ingress_url) as second:
            assert second.registry.version == 1
            assert everything(second.registry) == everything(first.registry)
            for text in (texts[0], texts[-1]):
                digest = SECRET.digest(text.encode())
                assert second.registry.owner(digest) == first.registry.owner(digest) is not None
            await second.make(sample.key_created(a_key("key_c")))
            assert await first.feed.reach(second.registry.seq)


async def test_a_snapshot_shows_no_key(bus: Bus, ingress_url: str) -> None:
    [text] = await append_keys(bus.connection, SECRET, 1)
    async with loaded(ingress_url) as one:
        await write_snapshot(bus, one)
    pieces = await read_subject(bus.connection, subjects.SNAPSHOTS, subjects.SNAPSHOT_SUBJECTS)
    assert pieces and not any(text[7:-4].encode() in piece.data for piece in pieces)


async def spoil_piece(bus: Bus) -> None:
    """The pieces are all there, and one of them is not what it was."""
    generation = CLOCK.new_token()
    ack = await bus.publisher.publish(
        subjects.snapshot("access", generation), b"\x93\x01", msg_id=generation
    )
    await replace_head(bus, generation=generation, pieces=1, first_seq=ack.seq)


async def lose_pieces(bus: Bus) -> None:
    await bus.connection.request(subjects.api("STREAM.PURGE", subjects.SNAPSHOTS), b"{}")


async def another_ledger(bus: Bus) -> None:
    await replace_head(bus, digest="0" * 64)


async def longer_ledger(bus: Bus) -> None:
    await replace_head(bus, seq=1000)


async def another_format(bus: Bus) -> None:
    await replace_head(bus, format="0" * 16)


async def fewer_entries(bus: Bus) -> None:
    await replace_head(bus, entries=1)


async def no_head(bus: Bus) -> None:
    await bus.publisher.publish(HEAD, b"\xff", msg_id=CLOCK.new_id())


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_piece,
        lose_pieces,
        another_ledger,
        longer_ledger,
        another_format,
        fewer_entries,
        no_head,
    ],
)
async def test_a_snapshot_that_is_of_no_use_is_ignored(
    bus: Bus, ingress_url: str, spoil: Callable[[Bus], asyncio.Future[None]]
) -> None:
    await append_keys(bus.connection, SECRET, 30)
    async with loaded(ingress_url) as first:
        await write_snapshot(bus, first)
        await spoil(bus)
        async with loaded(ingress_url) as second:
            assert second.registry.version == 30
            assert everything(second.registry) == everything(first.registry)


async def test_only_the_newest_two_snapshots_are_kept(bus: Bus, ingress_url: str) -> None:
    seen: list[object] = []
    async with loaded(ingress_url) as one:
        for number in range(4):
            await one.make(sample.key_created(a_key(f"key_{number}")))
            await write_snapshot(bus, one)
            seen.append((await head_of(bus))["generation"])
            assert await generations(bus) == set(seen[-2:])


async def test_a_governor_writes_a_snapshot_when_enough_has_changed(
    bus: Bus, nats_server: NatsServer
) -> None:
    async with governing(nats_server):
        await append_keys(bus.connection, SECRET, 1000)

        async def written() -> bool:
            return bool(await generations(bus))

        await until(written)

        async def headed() -> bool:
            head = await read_last(bus.connection, subjects.SETTINGS, HEAD)
            return head is not None

        await until(headed)
    async with loaded(nats_server.url_of("ingress")) as one:
        assert one.registry.key_count == 1000
        assert one.registry.version < 1000
