"""A bus that is set up: one for all who leave nothing behind, one of a test's own."""

from collections.abc import Iterator

import pytest

from compose import setup
from compose.nats_server import NatsServer
from tests.flow.bus_permissions.users import config_at


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A bus that is set up, for all tests here that leave nothing behind."""
    one = NatsServer(tmp_path_factory.mktemp("permissions"))
    one.start()
    try:
        setup.prepare(config_at(one.url))
        yield one
    finally:
        one.stop()


@pytest.fixture
def set_up(nats_server: NatsServer) -> NatsServer:
    """A bus of the test's own that is set up."""
    setup.prepare(config_at(nats_server.url))
    return nats_server
