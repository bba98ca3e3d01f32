"""A registry follows the ledger: at once, without news, through outages, and after a loss."""

import asyncio
import logging
import shutil
from pathlib import Path

import msgspec
import pytest

from compose.nats_server import NatsServer
from ledger.streams import streams
from schemas import subjects
from schemas.config import Config
from schemas.errors import Unavailable
from tests import sample_events as sample
from tests.cable import Cable
from tests.flow.registry_feed.members import loaded, member, through
from tests.governed_bus import Bus, bus_at, until
from tests.sample_events import a_key, digest_of_text


async def told(caplog: pytest.LogCaptureFixture, text: str) -> None:
    async def said() -> bool:
        return text in caplog.messages

    await until(said)


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
