"""One gateway and one kept connection to it, which everything bad goes through."""

from collections.abc import Iterator

import httpx
import pytest

from tests.flow.gateway import KEY, Gateway, running_gateway
from tests.upstream import chat_answer, json_reply


@pytest.fixture(scope="package")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("bad")) as gateway:
        gateway.up.script(json_reply(chat_answer()))
        yield gateway


@pytest.fixture(scope="package")
def client(gateway: Gateway) -> Iterator[httpx.Client]:
    """One connection, kept alive, with the key of the tests."""
    with httpx.Client(
        base_url=gateway.url,
        headers={"Authorization": f"Bearer {KEY}"},
        timeout=10,
        limits=httpx.Limits(max_connections=1),
    ) as client:
        yield client
