"""A start from a snapshot reads only what came after, and one of no use is ignored."""

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from compose.nats_server import NatsServer
from ledger.access.registry import Registry
from ledger.access.snapshot import Snapshots
from ledger.reader import read_last, read_subject
from ledger.secret import ServerSecret
from schemas import subjects
from schemas.access import Project
from tests import sample_events as sample
from tests.flow.registry_feed.members import CLOCK, Member, loaded
from tests.governed_bus import Bus, governing, until
from tests.many_keys import append_keys
from tests.sample_events import a_key

HEAD = subjects.setting("access.snapshot")
SECRET = ServerSecret(("a secret only for tests",))


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
