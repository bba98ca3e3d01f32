"""The live events and status doors of an ingress on a real socket, and clients that use them."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import httpx
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse

from ingress import live, status
from ingress.auth import Authenticator, Feed
from ingress.server import server
from ingress.tail import Tail
from ingress.target_states import HeardStates
from ingress.tokens import Tokens
from ledger.access.configured import configured
from ledger.access.registry import Registry
from ledger.publisher import Publisher
from ledger.secret import ServerSecret
from ledger.target_states import TargetStates
from schemas.config import Config
from schemas.errors import NexusError
from schemas.ids import Clock
from tests.governed_bus import Bus

ADMIN = "nx-admin-token"
KEY_A = "nx-key-a"
KEY_B = "nx-key-b"


class Known(NamedTuple):
    """Says of a registry that a test fills by itself how complete it is."""

    loaded: bool = True
    fresh: bool = True


def authenticator(
    config: Config,
    registry: Registry | None = None,
    feed: Feed = Known(),  # noqa: B008
    tokens: Tokens | None = None,
    clock: Clock | None = None,
) -> Authenticator:
    """Who may enter by a configuration, and by what the registry holds beside it."""
    return Authenticator(
        config,
        registry or Registry(configured(config)),
        feed,
        ServerSecret(config.secret),
        tokens,
        clock or Clock(),
    )


class Doors(NamedTuple):
    """Where an ingress serves, its tail, and the keys it knows."""

    url: str
    tail: Tail
    registry: Registry

    @property
    def socket_url(self) -> str:
        return self.url.replace("http", "ws", 1)


@asynccontextmanager
async def doors(bus: Bus, config: Config, clock: Clock | None = None) -> AsyncIterator[Doors]:
    """An ingress with nothing but these doors, on a port of its own."""
    clock = clock or Clock()
    registry = Registry(configured(config))
    keys = authenticator(config, registry, clock=clock)
    tail = Tail(bus.connection)
    app = FastAPI()
    app.include_router(live.router(tail, Publisher(bus.connection), keys, config, clock))
    heard = HeardStates(TargetStates(), clock)
    app.include_router(status.router(bus.connection, keys, heard, config, clock))

    async def refuse(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, NexusError)
        return JSONResponse(error.info.body("req_test"), error.info.status, error.info.headers())

    app.add_exception_handler(NexusError, refuse)
    listening = asyncio.Event()
    http = server(app, config, clock, listening.set, tail.close)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        serving = asyncio.create_task(http.serve([sock]))
        await listening.wait()
        try:
            yield Doors(f"http://127.0.0.1:{sock.getsockname()[1]}", tail, registry)
        finally:
            http.should_exit = True
            await serving


class Sent(NamedTuple):
    """One server-sent event as a browser would show it."""

    id: str
    type: str
    data: Any


class EventSource:
    """Reads server-sent events as a browser does: a blank line ends one, comments are skipped."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()

    async def next(self) -> Sent:
        fields: dict[str, str] = {}
        async with asyncio.timeout(20):
            async for line in self._lines:
                if not line and fields:
                    data = json.loads(fields["data"])
                    return Sent(fields.get("id", ""), fields["event"], data)
                if line and not line.startswith(":"):
                    name, _, text = line.partition(": ")
                    fields[name] = text
        raise EOFError("the stream ended")

    async def take(self, count: int) -> list[Sent]:
        return [await self.next() for _ in range(count)]


@asynccontextmanager
async def event_source(
    url: str, key: str = ADMIN, headers: dict[str, str] | None = None
) -> AsyncIterator[EventSource]:
    """An open event stream, `url` with path and query."""
    credentials = {"authorization": f"Bearer {key}"} if key else {}
    async with (
        httpx.AsyncClient(timeout=20) as client,
        client.stream("GET", url, headers={**credentials, **(headers or {})}) as response,
    ):
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield EventSource(response)
