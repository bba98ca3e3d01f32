"""Fixtures that every kind of test may need: a real nats-server, own or shared."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import uvloop
from hypothesis import HealthCheck, settings

from compose.nats_server import NatsServer

# How long an example takes says more of a machine that is shared than of the code.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")

_ON_BOTH_LOOPS = {"connection", "test_publisher.py"}


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """What is written against transports is tested on both event loops, all else on one."""
    if _ON_BOTH_LOOPS.intersection(item.path.parts[-2:]):
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    """A started server on a store of its own, for tests that kill it or count what it holds."""
    server = NatsServer(tmp_path / "nats")
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def nats_url(nats_server: NatsServer) -> str:
    return nats_server.url


@pytest.fixture(scope="session")
def shared_nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One server for the whole session: only for tests that use names nobody else uses."""
    server = NatsServer(tmp_path_factory.mktemp("shared-nats"))
    server.start()
    try:
        yield server.url
    finally:
        server.stop()
