"""A bus of each test's own and an ingress with the doors of live events."""

from collections.abc import AsyncIterator

import pytest

from tests.flow.live.listeners import CONFIG
from tests.governed_bus import Bus, bus_at
from tests.ingress_doors import Doors, doors


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[Bus]:
    async with bus_at(nats_url) as bus:
        yield bus


@pytest.fixture
async def ingress(bus: Bus) -> AsyncIterator[Doors]:
    async with doors(bus, CONFIG) as ingress:
        yield ingress
