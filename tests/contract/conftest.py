"""What the tests of providers share: the workers' event loop, a scripted server, a client."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import uvloop

from schemas.config import ProviderConfig
from schemas.ids import Clock
from tests.contract.openai_stage import KEY
from tests.plugin import Plugins
from tests.upstream import Upstream
from workers.http import Http
from workers.providers import make
from workers.providers.base import Provider


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream() as server:
        yield server


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    client = Http(Clock(), limit=100)
    yield client
    await client.close()


@pytest.fixture
def provider(upstream: Upstream, http: Http) -> Provider:
    """The openai adapter, at the scripted server."""
    config = ProviderConfig(base_url=upstream.url, api_key=KEY, headers={"X-Org": "ours"})
    return make("acme", config, http, Clock())


@pytest.fixture
async def plugins(tmp_path: Path, http: Http) -> AsyncIterator[Plugins]:
    async with Plugins(tmp_path, http) as plugins:
        yield plugins
