"""A bus of each test's own with a lessor at work."""

from collections.abc import AsyncIterator

import pytest

from ledger.connection import Connection
from schemas.config import BusConfig
from tests.flow.budgeting.stage import Stage, budget
from tests.lessor import Lessor


@pytest.fixture
async def stage(nats_url: str) -> AsyncIterator[Stage]:
    connection = await Connection.connect(BusConfig(url=nats_url), name="governor")
    lessor = Lessor(connection, budget())
    await connection.flush()
    try:
        yield Stage(nats_url, lessor)
    finally:
        await connection.close()
