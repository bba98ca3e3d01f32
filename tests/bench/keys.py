"""A hundred thousand virtual keys: what an ingress needs for them, how soon it serves with them,
what a look-up costs, and how soon a revoked key is refused everywhere."""

import asyncio
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import msgspec

from compose.nats_server import NatsServer
from compose.settings import load
from ingress.auth import Authenticator
from ledger.access.configured import configured
from ledger.access.feed import Feed
from ledger.access.registry import Registry
from ledger.connection import Connection
from ledger.reader import read_last
from ledger.secret import ServerSecret
from ledger.streams import ensure
from schemas import subjects
from schemas.config import BusConfig, Config
from schemas.ids import Clock
from tests.bench import services
from tests.bench.meter import Meter
from tests.many_keys import append_keys

COUNT = 100_000
INGRESSES = 4
_SECRET = "a secret of the benchmark only"
_ADMIN = "bench-admin-token"
_LOOK_UPS = 20_000
_REMEMBERED = 900
_REVOKED = 10
_SNAPSHOT_WITHIN = 60.0
_READY_WITHIN = 30.0


class Keys(msgspec.Struct):
    """What was found, over the ingresses or the keys: seconds from the start of the process to the
    first accepted key, resident bytes, processor time of one look-up in ns by whether its key was
    asked for before, and milliseconds from the answer to a revocation to the last acceptance."""

    count: int
    ready_s: list[float]
    rss: list[int]
    cold_ns: float
    warm_ns: float
    revoked_ms: list[float]


def measure(directory: Path, count: int = COUNT) -> Keys:
    """Fill a ledger with keys, let the governor take its snapshot, then start ingresses on it."""
    with ExitStack() as stack:
        server = NatsServer(directory / "nats")
        server.start()
        stack.callback(server.stop)
        texts = asyncio.run(_fill(server.url, count))
        stack.enter_context(_role("governor", directory, server))
        asyncio.run(_snapshot_taken(server.url))
        urls, ready, rss = [], [], []
        for number in range(INGRESSES):
            port = services.free_port()
            begun = time.monotonic()
            pid = stack.enter_context(
                _role("ingress", directory, server, f"-{number}", "--port", str(port))
            )
            urls.append(f"http://127.0.0.1:{port}")
            _first_accepted(urls[-1], random.choice(texts))
            ready.append(time.monotonic() - begun)
            rss.append(Meter({pid: "ingress"}).memory()["ingress"].rss)
        revoked = [_revoke(urls) for _ in range(_REVOKED)]
        cold, warm = asyncio.run(_look_up(server.url, texts))
    return Keys(count, ready, rss, cold, warm, revoked)


async def _fill(url: str, count: int) -> list[str]:
    config = load(None, services.environment(), {"bus.url": url}).config
    connection = await Connection.connect(config.bus, name="bench")
    try:
        await ensure(connection, config)
        return await append_keys(connection, ServerSecret((_SECRET,)), count)
    finally:
        await connection.close()


async def _snapshot_taken(url: str) -> None:
    connection = await Connection.connect(BusConfig(url=url), name="bench")
    stream, head = f"KV_{subjects.SETTINGS_BUCKET}", subjects.setting("access.snapshot")
    try:
        async with asyncio.timeout(_SNAPSHOT_WITHIN):
            while await read_last(connection, stream, head) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    finally:
        await connection.close()


@contextmanager
def _role(
    role: str, directory: Path, server: NatsServer, suffix: str = "", *arguments: str
) -> Iterator[int]:
    environment = {
        **services.environment(),
        "NEXUS_NATS_URL": server.url_of(role),
        "NEXUS_SECRET": _SECRET,
        "ADMIN_TOKEN": _ADMIN,
    }
    command = [sys.executable, "-m", "compose.cli", role, *arguments]
    with (directory / f"{role}{suffix}.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=services.ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _first_accepted(url: str, key: str) -> None:
    until = time.monotonic() + _READY_WITHIN
    with httpx.Client(base_url=url, timeout=5) as client:
        while time.monotonic() < until:
            try:
                if _accepts(client, key):
                    return
            except httpx.TransportError:
                time.sleep(0.01)
    raise RuntimeError(f"the ingress at {url} did not accept a key within {_READY_WITHIN:g} s")


def _revoke(urls: list[str]) -> float:
    """Make a key, use it everywhere, revoke it: milliseconds until no ingress accepts it."""
    with ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(base_url=url, timeout=5)) for url in urls]
        made = clients[0].post("/admin/keys", headers=_bearer(_ADMIN), json={}).json()
        for client in clients:
            while not _accepts(client, made["key"]):
                time.sleep(0.001)
        clients[0].post(f"/admin/keys/{made['id']}/revoke", headers=_bearer(_ADMIN))
        begun = time.monotonic()
        for client in clients:
            while _accepts(client, made["key"]):
                time.sleep(0.001)
        return (time.monotonic() - begun) * 1e3


def _accepts(client: httpx.Client, key: str) -> bool:
    """Whether the key opens anything: one that is known may still not be allowed this model."""
    return client.get("/v1/models/mock", headers=_bearer(key)).status_code in (200, 403)


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def _look_up(url: str, texts: list[str]) -> tuple[float, float]:
    """Processor time of a look-up in ns: of keys never asked for before, and of the same again."""
    config = Config(bus=BusConfig(url=url), secret=(_SECRET,))
    clock, secret = Clock(), ServerSecret(config.secret)
    connection = await Connection.connect(config.bus, name="bench")
    registry = Registry(configured(config))
    feed = Feed(connection, registry, clock)
    following = asyncio.create_task(feed.run())
    try:
        await feed.wait_loaded()
        door = Authenticator(config, registry, feed, secret, None, clock)
        asked = [
            [(b"authorization", f"Bearer {text}".encode())]
            for text in random.sample(texts, min(_LOOK_UPS, len(texts)))
        ]
        return await _timed(door, asked), await _timed(door, asked[-_REMEMBERED:])
    finally:
        following.cancel()
        await connection.close()


async def _timed(door: Authenticator, asked: list[list[tuple[bytes, bytes]]]) -> float:
    before = time.process_time_ns()
    for headers in asked:
        await door.authenticate(headers)
    return (time.process_time_ns() - before) / len(asked)
