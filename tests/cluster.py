"""A gateway of real processes for tests that kill them: bus, ingresses, workers, governor.

    async with Cluster(tmp_path, workers=2) as cluster:
        cluster.upstream.script(chat_stream("a", "b"))
        stream = cluster.stream("hello", app="one")
        await cluster.runner(await cluster.upstream.request()).kill()
        await stream.end()
        events = await cluster.settled()

A call may be named by `app`, which its events carry.
"""

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import httpx
import yaml

from compose import settings as configuration
from compose.child import Child
from compose.nats_server import NatsServer
from ledger.connection import Connection, Disconnected, NoResponders, RequestTimeout
from ledger.reader import Unreadable, read_subject
from ledger.streams import ensure
from schemas import subjects
from schemas.config import BusConfig, Config
from schemas.events import LedgerEvent, decode_event
from tests.ledger_facts import one_end, open_calls
from tests.streaming import Stream
from tests.upstream import Recorded, Upstream

ROOT = Path(__file__).parents[1]
KEY = "chaos-key"
ADMIN = "chaos-admin-token"
SECRET = "the same secret for all roles"
ACK_WAIT = 2.0

_FOREIGN = ("NEXUS_", "GATEWAY_", "UNIFIED_GATEWAY_", "ADMIN_", "HMAC_", "CONFIG_PATH", "PORT")
_FOREIGN_ENDS = ("_API_KEY", "_BASE_URL", "_API_BASE", "_ENDPOINT")
_START_WITHIN = 40.0
_AWAY = (NoResponders, RequestTimeout, Disconnected, Unreadable)

_T = TypeVar("_T")


async def until(
    condition: Callable[[], _T | Coroutine[Any, Any, _T | None] | None],
    seconds: float = 20.0,
    what: str = "",
) -> _T:
    """Wait until a condition, plain or to be awaited, gives something true; the result is that."""
    give_up = time.monotonic() + seconds
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found  # type: ignore[return-value]
        assert time.monotonic() < give_up, f"waited {seconds:g} s in vain {what}"
        await asyncio.sleep(0.01)


class Role:
    """One process of a role, which can be started again after its end."""

    def __init__(self, name: str, argv: Sequence[str], environ: Mapping[str, str]) -> None:
        self.name = name
        self._child = Child(name, argv, lambda: environ)

    @property
    def pid(self) -> int:
        assert self._child.pid is not None
        return self._child.pid

    async def start(self) -> None:
        """Start it and return once it says that it is ready."""
        loop = asyncio.get_running_loop()
        said: asyncio.Future[bytes] = loop.create_future()
        descriptor = self._child.start()
        loop.add_reader(descriptor, lambda: said.done() or said.set_result(os.read(descriptor, 8)))
        try:
            async with asyncio.timeout(_START_WITHIN):
                assert await said, f"{self.name} ended before it was ready"
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)

    async def kill(self) -> None:
        """End it as a crash would, also when it is paused."""
        self._child.kill()
        await self.ended()

    def terminate(self) -> None:
        """Ask it to finish and go."""
        self._child.terminate()

    async def ended(self, seconds: float = 30.0) -> int:
        """Its exit code, once it has one."""
        await until(lambda: self._child.exit_code() is not None, seconds, f"for {self.name}")
        code = self._child.exit_code()
        assert code is not None
        return code

    async def pause(self) -> None:
        """Stop its time; returns when it stands still."""
        os.kill(self.pid, signal.SIGSTOP)
        stat = Path(f"/proc/{self.pid}/stat")
        await until(lambda: stat.read_text().rpartition(") ")[2][0] == "T")

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


class Cluster:
    """The processes, an upstream, a client and an eye on the bus; an async context manager.

    `settings` are laid over the configuration, by sections. `via` gives the bus address that the
    first worker is told, for a proxy in between; the bus has been started when it is called.
    """

    def __init__(
        self,
        folder: Path,
        *,
        workers: int = 1,
        ingresses: int = 1,
        concurrency: int = 256,
        settings: Mapping[str, Any] | None = None,
        via: Callable[[NatsServer], Coroutine[Any, Any, str]] | None = None,
    ) -> None:
        self.bus = NatsServer(folder / "nats")
        self.upstream = Upstream()
        self.workers: list[Role] = []
        self.ingresses: list[Role] = []
        self.urls: list[str] = []
        self._folder = folder
        self._counts = workers, ingresses
        self._concurrency = concurrency
        self._settings = dict(settings or {})
        self._via = via
        self._stack = AsyncExitStack()
        self._roles: list[Role] = []

    async def __aenter__(self) -> "Cluster":
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.upstream)
            self.bus.start()
            stack.callback(self.bus.stop)
            self.connection = await Connection.connect(BusConfig(url=self.bus.url), name="test")
            stack.push_async_callback(self.connection.close)
            self.client = await stack.enter_async_context(
                httpx.AsyncClient(
                    timeout=60.0,
                    headers={"Authorization": f"Bearer {KEY}"},
                    limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
                )
            )
            stack.push_async_callback(self._kill_all)
            self.config.write_text(yaml.safe_dump(self._configuration()))
            await ensure(self.connection, self._loaded())
            workers, ingresses = self._counts
            for number in range(workers):
                address = await self._via(self.bus) if self._via and not number else ""
                self.workers.append(self.role("worker", f"worker-{number}", bus=address))
            for number in range(ingresses):
                port = _free_port()
                self.urls.append(f"http://127.0.0.1:{port}/v1/chat/completions")
                self.ingresses.append(self.role("ingress", f"ingress-{number}", port=port))
            await asyncio.gather(*(role.start() for role in self.workers + self.ingresses))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def config(self) -> Path:
        """The file that every role reads."""
        return self._folder / "nexus.yaml"

    def role(self, command: str, name: str, *, bus: str = "", port: int = 0) -> Role:
        """A process of a role, not started yet; it is killed at the end if it still runs."""
        argv = [sys.executable, "-P", "-m", "compose.cli", command, "--config", str(self.config)]
        if port:
            argv += ["--port", str(port)]
        return self.process(name, argv, bus=bus or self.bus.url_of(command))

    def governor(self, close_after: float, expire_after: float = 20.0) -> Role:
        """A governor with another patience than the minute and a half it has by itself for calls
        without an end, and the 20 s for silent holders."""
        script = (
            "import os, uvloop\n"
            "from compose import roles, settings\n"
            "from ledger.governor import run_governor\n"
            f"config = settings.load({str(self.config)!r}, os.environ, {{}}).config\n"
            "uvloop.run(run_governor("
            f"config, on_ready=roles.ready, close_after={close_after}, expire_after={expire_after}"
            "))\n"
        )
        argv = [sys.executable, "-P", "-c", script]
        return self.process("governor", argv, bus=self.bus.url_of("governor"))

    def process(self, name: str, argv: Sequence[str], *, bus: str) -> Role:
        """Any process that finds the bus and this code; it says that it is ready as a role does."""
        role = Role(name, argv, self._environment(name, bus))
        self._roles.append(role)
        return role

    def runner(self, request: Recorded) -> Role:
        """The worker that sent a request to the upstream."""
        return next(one for one in self._roles if one.name == request.headers["X-Worker"])

    async def _kill_all(self) -> None:
        for role in self._roles:
            role._child.kill()
        for role in self._roles:
            if role._child.pid is not None:
                await role.ended()

    def _loaded(self) -> Config:
        """The configuration as the roles see it."""
        environ = self._environment("test", self.bus.url)
        return configuration.load(str(self.config), environ, {}).config

    def _environment(self, name: str, bus: str) -> dict[str, str]:
        """What a process is told; a secret in the settings is not to be outdone by a variable."""
        own = {} if "secret" in self._settings else {"NEXUS_SECRET": SECRET}
        return {**_environment(bus), **own, "ROLE_NAME": name}

    def _configuration(self) -> dict[str, Any]:
        queue = {"ack_wait": ACK_WAIT, "in_progress_every": 0.4}
        return {
            "call_deadline": 60,
            "log_level": "info",
            "providers": {
                "up": {
                    "dialect": "openai",
                    "base_url": f"{self.upstream.url}/v1",
                    "concurrency": self._concurrency,
                    "headers": {"X-Worker": "${ROLE_NAME}"},
                },
            },
            "models": {
                "chat": {"provider": "up", "input_cost": 0.000001, "output_cost": 0.000002},
            },
            **self._settings,
            "queue": {**queue, **self._settings.get("queue", {})},
        }

    # What a client does.

    def request(self, text: str, app: str, stream: bool) -> tuple[dict[str, Any], dict[str, str]]:
        """The body and the headers of a call."""
        body = {
            "model": "chat",
            "messages": [{"role": "user", "content": text}],
            "stream": stream,
        }
        return body, {"X-Nexus-App": app}

    async def ask(self, text: str, *, app: str = "", ingress: int = 0) -> httpx.Response:
        """One call, answered as a whole."""
        body, headers = self.request(text, app, stream=False)
        return await self.client.post(self.urls[ingress], json=body, headers=headers)

    def stream(self, text: str, *, app: str = "", ingress: int = 0) -> Stream:
        """One call, answered as a stream, which begins to be read at once."""
        body, headers = self.request(text, app, stream=True)
        return Stream(self.client, self.urls[ingress], body, headers)

    # What the bus holds.

    async def events(self, app: str = "") -> list[LedgerEvent]:
        """The events of the ledger in their order, of one app or all."""
        records = await self._patiently(
            lambda: read_subject(self.connection, subjects.LEDGER, ">", timeout=5.0)
        )
        found = [decode_event(record.data) for record in records]
        return [event for event in found if event is not None and app in ("", event.app)]

    async def jobs(self) -> int:
        """How many jobs the work queue holds, running ones among them."""
        state = (await self.api(f"STREAM.INFO.{subjects.WORK}"))["state"]
        return int(state["messages"])

    async def waiting(self, pool: str = "up") -> int:
        """How many interactive jobs of a pool no worker has."""
        name = subjects.consumer(pool, "interactive")
        info = await self.api(f"CONSUMER.INFO.{subjects.WORK}.{name}")
        return int(info["num_pending"])

    async def api(self, call: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The answer of JetStream to an API call; asks again while the bus is away."""
        request = json.dumps(body or {}).encode()
        reply = await self._patiently(
            lambda: self.connection.request(f"$JS.API.{call}", request, timeout=5.0)
        )
        answer: dict[str, Any] = json.loads(reply.data)
        assert "error" not in answer, answer
        return answer

    async def settled(self, seconds: float = 20.0) -> list[LedgerEvent]:
        """The events of calls once each has its one end and the queue is empty."""

        async def is_settled() -> list[LedgerEvent] | None:
            if await self.jobs():
                return None
            events = [event for event in await self.events() if event.call_id]
            return events if events and not open_calls(events) else None

        try:
            events = await until(is_settled, seconds)
        except AssertionError:
            events = await self.events()
            raise AssertionError(
                f"not settled: {await self.jobs()} jobs, open: {open_calls(events)}"
            ) from None
        for call_id in {event.call_id for event in events}:
            one_end(events, call_id)
        return events

    async def _patiently(self, ask: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        give_up = time.monotonic() + 30.0
        while True:
            try:
                return await ask()
            except _AWAY:
                assert time.monotonic() < give_up, "the bus stayed away"
                await asyncio.sleep(0.05)


def _environment(bus: str) -> dict[str, str]:
    """This environment without what would configure a gateway."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_FOREIGN) and not name.endswith(_FOREIGN_ENDS)
    }
    return {
        **kept,
        "PYTHONPATH": str(ROOT),
        "NEXUS_NATS_URL": bus,
        "GATEWAY_API_KEYS": KEY,
        "GATEWAY_RATE_LIMIT_PER_MINUTE": "0",
        "ADMIN_TOKEN": ADMIN,
    }


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
