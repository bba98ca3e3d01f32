"""Changes by several processes at once: none is lost, none is made twice, none forks."""

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from compose.nats_server import NatsServer
from ledger.access.registry import Registry
from ledger.log import Ledger
from ledger.publisher import Publisher
from schemas.access import Project
from schemas.access_events import AccessEvent
from schemas.errors import InvalidRequest, Unavailable
from tests import sample_events as sample
from tests.cable import Cable
from tests.flow.registry_feed.members import CLOCK, Member, loaded, through
from tests.governed_bus import Bus, until
from tests.sample_events import a_key


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
