"""A bus of each test's own, what an ingress may reach of it, and a cable to cut."""

from collections.abc import AsyncIterator

import pytest

from compose.nats_server import NatsServer
from tests.cable import Cable
from tests.governed_bus import Bus, bus_at, until


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
