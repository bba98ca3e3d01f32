"""One gateway for all tests of chat completions."""

from collections.abc import Iterator

import pytest

from tests.flow.gateway import Gateway, running_gateway


@pytest.fixture(scope="package")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("chat")) as gateway:
        yield gateway
