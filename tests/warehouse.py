"""A migrated analytics database and a ledger to project into it, on each backend there is."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec
import nats
import pytest
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext

from analytics import migrate
from analytics.projection import Projection
from analytics.rows import Record
from analytics.store import READING, WRITING, Database, Store
from schemas import subjects
from schemas.config import BusConfig, Config
from schemas.event import Event, type_of
from schemas.events import encode_event
from schemas.ids import Clock
from tests.sample_events import NOON, writer_of

SERVER = os.environ.get("NEXUS_TEST_CLICKHOUSE_URL", "")
BACKENDS = (
    "embedded",
    pytest.param(
        "server",
        marks=pytest.mark.skipif(
            not SERVER, reason="NEXUS_TEST_CLICKHOUSE_URL names no ClickHouse server"
        ),
    ),
)
on_every_backend = pytest.mark.parametrize("backend", BACKENDS)
new_id = Clock().new_id


def config_for(backend: str, directory: Path, bus_url: str = "") -> Config:
    """A configuration of its own: an embedded directory, or a fresh database on the server."""
    url = ""
    if backend == "server":
        url = urlunsplit(urlsplit(SERVER)._replace(path=f"/nexus_test_{Clock().new_token()}"))
    return Config(data_dir=str(directory), clickhouse_url=url, bus=BusConfig(url=bus_url))


@dataclass
class Warehouse:
    """An open database with its writing side; `rows` reads with a client of its own."""

    config: Config
    database: Database
    writer: Store
    reader: Store
    projection: Projection

    async def rows(self, sql: str, parameters: dict[str, Any] | None = None) -> list[Sequence[Any]]:
        return (await self.reader.query(sql, parameters)).rows

    async def one(self, sql: str) -> Any:
        return (await self.rows(sql))[0][0]


@asynccontextmanager
async def warehouse(config: Config) -> AsyncIterator[Warehouse]:
    """Open what `config` names, migrated; closed, but not emptied, at the end."""
    database = Database.of(config)
    await asyncio.to_thread(database.open)
    writer, reader = Store(database, WRITING), Store(database, READING)
    try:
        await migrate.apply(writer)
        yield Warehouse(config, database, writer, reader, Projection(writer))
    finally:
        await writer.close()
        await reader.close()
        await asyncio.to_thread(database.close)


async def drop(config: Config) -> None:
    """Remove a test's database from the server; embedded ones go with their directory."""
    if config.clickhouse_url:
        database = Database.of(config)
        await asyncio.to_thread(database.open)
        store = Store(database, WRITING)
        await store.command(f"drop database `{database.name}`")
        await store.close()


def record(seq: int, event: Event, stored_us: int = NOON // 1000) -> Record:
    """An event as the ledger would keep it at a sequence."""
    subject = subjects.ledger(writer_of(event), event.project, type_of(event))
    return Record(seq, subject, stored_us, encode_event(event))


class Ledger:
    """The stream LEDGER, spoken to as the roles do."""

    def __init__(self, connection: Client) -> None:
        self.connection = connection
        self.js: JetStreamContext = connection.jetstream(timeout=2)
        self.on_reconnect: Callable[[], None] = lambda: None

    async def create(self) -> None:
        await self.js.add_stream(
            name=subjects.LEDGER,
            subjects=[subjects.LEDGER_SUBJECTS],
            deny_delete=True,
            deny_purge=True,
            allow_direct=True,
            duplicate_window=120,
        )

    async def append(self, *events: Event) -> int:
        """Append in order; the sequence of the last one."""
        waiting = [
            await self.js.publish_async(
                subjects.ledger(writer_of(event), event.project, type_of(event)),
                encode_event(event),
            )
            for event in events
        ]
        return max(ack.seq for ack in await asyncio.gather(*waiting))

    async def is_reached(self) -> bool:
        """Whether the server answers again; a socket that is dead may still look open."""
        try:
            await self.connection.flush(timeout=1)
        except (NatsError, OSError):
            return False
        return True

    async def acked(self) -> int:
        """The sequence up to which the projector has acknowledged everything."""
        info = await self.js.consumer_info(subjects.LEDGER, "analytics")
        return info.ack_floor.stream_seq if info.ack_floor else 0


@asynccontextmanager
async def ledger(url: str) -> AsyncIterator[Ledger]:
    """A connection that survives restarts of the server, quiet about them."""

    async def quiet(_: Exception) -> None:
        pass

    async def reconnected() -> None:
        stream.on_reconnect()

    connection = await nats.connect(
        url,
        error_cb=quiet,
        reconnected_cb=reconnected,
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.05,
    )
    stream = Ledger(connection)
    try:
        yield stream
    finally:
        await connection.close()


class Child:
    """The analytics role as a real process."""

    def __init__(self, config: Config) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.analytics_child", msgspec.json.encode(config).decode()],
            stdout=subprocess.PIPE,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ready(self) -> None:
        """Return when it follows the ledger."""
        assert self._process.stdout is not None
        line = await asyncio.to_thread(self._process.stdout.readline)
        assert line == b"ready\n", "the analytics role ended before it was ready"

    def kill(self) -> None:
        self._process.kill()
        self._end()

    async def terminate(self) -> int:
        """SIGTERM; the exit code."""
        self._process.terminate()
        await asyncio.to_thread(self._process.wait)
        return self._end()

    def _end(self) -> int:
        code = self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        return code


@contextlib.contextmanager
def child(config: Config) -> Iterator[Child]:
    """A child that is gone at the end, however the test ends."""
    one = Child(config)
    try:
        yield one
    finally:
        one.kill()


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 30.0) -> None:
    """Wait until an async condition holds."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
