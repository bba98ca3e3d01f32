"""Users of a bus in tests: connections that know what was forbidden them, and what is stored."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from compose.nats_server import NatsServer
from ledger.connection import Connection
from schemas import subjects
from schemas.config import BusConfig, Config, ProviderConfig

PROVIDERS = {"mock": ProviderConfig(dialect="mock")}
JOB = subjects.work("mock", "interactive")
ACCESS = "ledger.ingress.=.access.team.set"


def config_at(url: str) -> Config:
    return Config(bus=BusConfig(url=url), providers=PROVIDERS)


class User:
    """One user's connection and what the bus has forbidden it; that a monitor has no inbox for
    answers does not count."""

    def __init__(self, server: NatsServer, name: str) -> None:
        self.name = name
        self.forbidden: list[str] = []
        self._url = server.url_of(name)

    def _hear(self, reason: str) -> None:
        if "to subscribe to _INBOX_monitor." not in reason:
            self.forbidden.append(reason)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Connection]:
        connection = await Connection.connect(
            BusConfig(url=self._url), name=self.name, on_fatal=self._hear
        )
        try:
            yield connection
        finally:
            await connection.close()


@asynccontextmanager
async def as_user(server: NatsServer, name: str) -> AsyncIterator[Connection]:
    """A connection to which nothing is forbidden that is done with it."""
    user = User(server, name)
    async with user.connected() as connection:
        yield connection
        await connection.flush()
    assert user.forbidden == []


async def messages(server: NatsServer) -> dict[str, int]:
    """How many messages each stream holds."""
    async with as_user(server, "operator") as operator:
        found: dict[str, int] = {}
        listing = json.loads((await operator.request(subjects.api("STREAM.LIST"))).data)
        for stream in listing["streams"]:
            found[stream["config"]["name"]] = stream["state"]["messages"]
        return found


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
