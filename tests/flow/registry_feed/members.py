"""Processes that follow the registry of one bus and change it, and how tests wait for them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from compose.nats_server import NatsServer
from ledger.access.changes import Changes
from ledger.access.feed import Feed
from ledger.access.registry import Registry
from ledger.connection import Connection
from ledger.log import Ledger
from ledger.publisher import Publisher
from schemas.access_events import AccessEvent
from schemas.config import BusConfig
from schemas.ids import Clock
from tests.cable import Cable
from tests.governed_bus import running, until

CLOCK = Clock()


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


def through(cable: Cable, server: NatsServer) -> str:
    return server.url_of("ingress").replace(f":{server.port}", f":{cable.port}")
