"""The pages about budgets, served by one ingress on a bus, and the calls of Ana."""

import asyncio
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse

from analytics.client import Analytics
from compose.nats_server import NatsServer
from ingress import admin, budget_pages
from ingress.governor_client import GovernorClient
from ingress.server import server
from ledger.access.changes import Changes
from ledger.access.configured import configured
from ledger.access.feed import Feed
from ledger.access.registry import Registry
from ledger.budgets.windows import window_at
from ledger.connection import Connection
from ledger.log import Ledger
from ledger.publisher import Publisher
from ledger.secret import ServerSecret
from schemas.access import BudgetSettings
from schemas.config import BusConfig, Config, KeyConfig
from schemas.errors import NexusError
from schemas.ids import Clock
from tests.governed_bus import Bus, bus_at, governing, running, until
from tests.ingress_doors import ADMIN, authenticator
from tests.sample_events import complete, start
from tests.warehouse import new_id

ANA_KEY = "the-key-of-ana-in-the-shop"
BOB_KEY = "the-key-of-bob-elsewhere"
ZONE = "Asia/Kolkata"
CONFIG = Config(
    admin_token=ADMIN,
    budget_zone=ZONE,
    keys={
        "ana": KeyConfig(key=ANA_KEY, project="shop", team="retail", user="ana@example.com"),
        "bob": KeyConfig(key=BOB_KEY, user="bob"),
    },
    budgets=(
        BudgetSettings(scope="global", period="day", limit_usd=20),
        BudgetSettings(scope="project", id="shop", period="total", limit_usd=3, hard_stop=False),
        BudgetSettings(scope="user", id="*", period="month", limit_usd=1),
        BudgetSettings(scope="team", id="other", period="week", limit_usd=7),
    ),
)


class Pages:
    """The pages of one ingress as a client sees them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = httpx.AsyncClient(base_url=url, timeout=20)

    async def ask(self, method: str, path: str, key: str = ADMIN, **more: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {key}"}
        return await self._http.request(method, path, headers=headers, **more)

    async def get(self, path: str, key: str = ADMIN) -> Any:
        response = await self.ask("GET", path, key)
        assert response.status_code == 200, response.text
        assert response.headers["cache-control"] == "no-store"
        return response.json()

    async def close(self) -> None:
        await self._http.aclose()


@asynccontextmanager
async def pages_at(nats: NatsServer) -> AsyncIterator[Pages]:
    """An ingress with these pages only, on the bus as its own user."""
    clock = Clock()
    async with bus_at(nats.url):
        pass
    connection = await Connection.connect(BusConfig(url=nats.url_of("ingress")), name="ingress")
    registry = Registry(configured(CONFIG))
    feed = Feed(connection, registry, clock)
    keys = authenticator(CONFIG, registry, feed)
    governor = GovernorClient(connection, clock)
    changes = Changes(Ledger(Publisher(connection), "ingress"), registry, feed, clock)
    app = FastAPI()
    app.include_router(
        budget_pages.router(keys, registry, governor, Analytics(connection), CONFIG, clock)
    )
    secret = ServerSecret(CONFIG.secret)
    app.include_router(admin.router(keys, changes, registry, feed, secret, CONFIG, clock, governor))

    async def refuse(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, NexusError)
        return JSONResponse(error.info.body("req_test"), error.info.status, error.info.headers())

    app.add_exception_handler(NexusError, refuse)
    listening = asyncio.Event()
    http = server(app, CONFIG, clock, listening.set, lambda: None)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        serving = asyncio.create_task(http.serve([sock]))
        pages = Pages(f"http://127.0.0.1:{sock.getsockname()[1]}")
        try:
            async with running(feed.run()):
                await listening.wait()
                await feed.wait_loaded()
                yield pages
        finally:
            await pages.close()
            http.should_exit = True
            await serving
            await connection.close()


@asynccontextmanager
async def governed_pages(server: NatsServer) -> AsyncIterator[tuple[Pages, Bus]]:
    """The pages beside a governor that leads, and the bus between the two."""
    async with (
        governing(server, config=CONFIG),
        pages_at(server) as pages,
        bus_at(server.url) as bus,
    ):
        yield pages, bus


def account(budget: str, period: Any, epoch: int = 0) -> str:
    return f"{budget}@{window_at(period, time.time_ns(), ZONE).label}.{epoch}"


def accounts_of_ana() -> tuple[str, ...]:
    return (
        account("global:day", "day"),
        account("project:shop:total", "total"),
        account("user:ana@example.com:month", "month"),
    )


async def spend(bus: Bus, usd: float, call_id: str = "c") -> int:
    """A call of Ana that has ended, and one that is still open."""
    of_call: dict[str, Any] = {"accounts": accounts_of_ana(), "at_ns": time.time_ns()}
    seq = await bus.append(
        start(call_id, event_id=new_id(), **of_call, holder="h", hold_nano=2 * 10**9),
        complete(call_id, event_id=new_id(), **of_call, cost_nano=int(usd * 10**9)),
        start(f"{call_id}-open", event_id=new_id(), **of_call, holder="h", hold_nano=10**8),
    )

    async def folded() -> bool:
        return bool((await bus.state())["seq"] >= seq)

    await until(folded)
    return seq


async def nexus(pages: Pages, *arguments: str) -> str:
    """What `nexus budget` prints, asked of these pages."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "compose.cli", "budget", *arguments),
        env={**os.environ, "NEXUS_URL": pages.url, "NEXUS_TOKEN": ADMIN},
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()
