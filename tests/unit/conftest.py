"""A migrated database of each test's own, on each backend there is."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.warehouse import BACKENDS, Warehouse, config_for, drop, warehouse


@pytest.fixture(params=BACKENDS)
async def house(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Warehouse]:
    config = config_for(request.param, tmp_path)
    async with warehouse(config) as house:
        yield house
    await drop(config)
