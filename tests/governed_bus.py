"""A governor in a process of its own, and a test's way to the bus it is on."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from compose.nats_server import NatsServer
from ledger.connection import Connection, NoResponders, RequestTimeout
from ledger.log import Ledger
from ledger.publisher import Publisher
from ledger.reader import read_last, read_subject
from ledger.starting import WORTH_ASKING
from ledger.streams import ensure
from schemas import subjects
from schemas.budget_events import GovernorStarted
from schemas.config import BusConfig, Config
from schemas.event import Event, type_of
from schemas.events import RequestLost, decode_event
from tests.sample_events import writer_of

STARTED = type_of(GovernorStarted)
ROLE = """
import sys
import time
import msgspec
import uvloop
from ledger.governor import run_governor
from schemas.config import Config
from schemas.ids import Clock
shift = int(sys.argv[4])
uvloop.run(
    run_governor(
        msgspec.json.decode(sys.argv[1], type=Config),
        Clock(now_ns=lambda: time.time_ns() + shift),
        lambda: print("ready", flush=True),
        close_after=float(sys.argv[2]),
        expire_after=float(sys.argv[3]),
        worth_asking=int(sys.argv[5]),
    )
)
"""


class Bus:
    """A test's own way to the bus: events in the name of any role, questions, what is stored."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.publisher = Publisher(connection)

    async def append(self, *events: Event, message_id: str = "") -> int:
        seq = 0
        for event in events:
            ledger = Ledger(self.publisher, writer_of(event))
            seq = (await ledger.append(event, message_id)).seq
        return seq

    async def events(self) -> list[Any]:
        stored = await read_subject(self.connection, subjects.LEDGER, ">")
        return [decode_event(record.data) for record in stored]

    async def governed(self) -> int:
        """The sequence by which a governor says that it leads, once there is one."""
        async with asyncio.timeout(15):
            while True:
                found = await read_last(
                    self.connection, subjects.LEDGER, subjects.ledger("governor", "", STARTED)
                )
                if found is not None:
                    return found.seq
                await asyncio.sleep(0.02)

    async def lost(self) -> list[str]:
        return [event.call_id for event in await self.events() if isinstance(event, RequestLost)]

    async def state(self) -> dict[str, Any]:
        answer = await self.connection.request(subjects.GOVERNOR_STATE, timeout=2.0)
        state: dict[str, Any] = msgspec.json.decode(answer.data)
        return state

    async def metrics(self, patience: float = 2.0) -> list[str]:
        answer = await self.connection.request(subjects.GOVERNOR_METRICS, timeout=patience)
        return answer.data.decode().splitlines()


@asynccontextmanager
async def bus_at(url: str) -> AsyncIterator[Bus]:
    config = Config(bus=BusConfig(url=url))
    connection = await Connection.connect(config.bus, name="test")
    await ensure(connection, config)
    try:
        yield Bus(connection)
    finally:
        await connection.close()


class Role:
    """A governor in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def send(self, signal: signal.Signals) -> None:
        self._process.send_signal(signal)

    async def ends(self) -> int:
        async with asyncio.timeout(10):
            return await self._process.wait()

    async def ends_with(self, how: signal.Signals) -> int:
        if self._process.returncode is None:
            self._process.send_signal(how)
        return await self.ends()


@asynccontextmanager
async def governing(
    server: NatsServer,
    close_after: float = 0.2,
    *,
    config: Config = Config(),  # noqa: B008
    expire_after: float = 20.0,
    shift_ns: int = 0,
    worth_asking: int = WORTH_ASKING,
    is_ready: bool = True,
) -> AsyncIterator[Role]:
    """`shift_ns` is how far the clock of this governor is ahead; `is_ready` waits until it is."""
    async with bus_at(server.url):
        url = server.url_of("governor")
    config = msgspec.structs.replace(config, bus=BusConfig(url=url))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        ROLE,
        msgspec.json.encode(config).decode(),
        str(close_after),
        str(expire_after),
        str(shift_ns),
        str(worth_asking),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    role = Role(process)
    try:
        if is_ready:
            async with asyncio.timeout(20):
                assert await process.stdout.readline() == b"ready\n"
        yield role
    finally:
        await role.ends_with(signal.SIGKILL)


@asynccontextmanager
async def running(*works: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Work that goes on beside a test and ends with it."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 15.0) -> None:
    async with asyncio.timeout(seconds):
        while True:
            try:
                if await condition():
                    return
            except (NoResponders, RequestTimeout):
                pass
            await asyncio.sleep(0.02)
