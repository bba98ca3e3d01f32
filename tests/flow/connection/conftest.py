"""A connection to a server of each test's own."""

from collections.abc import AsyncIterator

import pytest

from ledger.connection import Connection
from tests.flow.connection.servers import connected


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[Connection]:
    async with connected(nats_url) as connection:
        yield connection
