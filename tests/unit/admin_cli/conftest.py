"""An admin API of each test's own."""

from collections.abc import Iterator

import pytest

from tests.unit.admin_cli.scripted_api import Server


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.stop()
