"""The ingress role: every door of the HTTP surface, wired to the bus.

The way of a call starts here: `ingress/calls.py` takes it to the work queue and relays its frames;
`workers/run.py` is the other half.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Route

from analytics.client import Analytics
from ingress import (
    admin,
    budget_pages,
    catalog_routes,
    insights,
    live,
    openapi,
    route_pages,
    status,
)
from ingress.admission import Admission
from ingress.auth import Authenticator
from ingress.balancing import Loads
from ingress.body import ClientLeft
from ingress.budgeting import Budgeting
from ingress.calibration import Ratios
from ingress.calls import Gateway, ModelCalls
from ingress.cancel import Canceller
from ingress.dialects.embeddings import EMBEDDINGS
from ingress.dialects.openai import CHAT
from ingress.gate import Gate
from ingress.governor_client import GovernorClient
from ingress.lease_client import LeaseClient
from ingress.limits import Applying
from ingress.measured import Measured
from ingress.pools import Pools
from ingress.rating import Rating
from ingress.replies import Replies
from ingress.routing import Router
from ingress.server import Server, server
from ingress.tail import Tail
from ingress.target_states import HeardStates
from ingress.target_statistics import TargetStatistics
from ingress.tokens import Tokens
from ledger.access.changes import Changes
from ledger.access.configured import configured
from ledger.access.feed import Feed
from ledger.access.registry import Registry
from ledger.beats import Beats
from ledger.blobs import Blobs
from ledger.connection import BusRefused, Connection, Disconnected
from ledger.log import Ledger
from ledger.publisher import Publisher
from ledger.secret import ServerSecret
from ledger.streams import ensure
from ledger.target_states import StateFeed, TargetStates
from schemas.budget_events import BudgetExceeded
from schemas.catalog import Catalog
from schemas.config import Config
from schemas.errors import ErrorInfo, Internal, InvalidRequest, NexusError
from schemas.ids import Clock

log = logging.getLogger("nexus.ingress")

PREFIXES = ("/v1", "/ai/v1", "/api/v1")
CHAT_PATHS = [f"{prefix}/chat/completions" for prefix in PREFIXES]
EMBEDDINGS_PATHS = [f"{prefix}/embeddings" for prefix in PREFIXES]
PROXY_PATH = "/proxy/{model}"


_SERVE_ANYWAY_AFTER = 5.0


def create_app(
    gateway: Gateway,
    connection: Connection,
    publisher: Publisher,
    tail: Tail,
    registry: Registry,
    feed: Feed,
    changes: Changes,
    heard: HeardStates,
) -> FastAPI:
    """All routes of one ingress; hot ones are plain ASGI endpoints without framework work."""
    app = FastAPI(
        title="Nexus",
        version=openapi.VERSION,
        description=openapi.DESCRIPTION,
        redoc_url=None,
    )
    chat, embeddings = ModelCalls(gateway, CHAT), ModelCalls(gateway, EMBEDDINGS)
    for paths, endpoint in ((CHAT_PATHS, chat), (EMBEDDINGS_PATHS, embeddings)):
        for path in paths:
            app.router.routes.append(Route(path, endpoint, methods=["POST"]))
    app.router.routes.append(Route("/proxy/{model:path}", chat, methods=["POST"]))
    app.include_router(catalog_routes.router(gateway.router, gateway.keys, PREFIXES))
    analytics = Analytics(connection)
    app.include_router(insights.router(gateway.keys, analytics, gateway.config.limits))
    app.include_router(live.router(tail, publisher, gateway.keys, gateway.config, gateway.clock))
    app.include_router(
        status.router(connection, gateway.keys, heard, gateway.config, gateway.clock)
    )
    governor = GovernorClient(connection, gateway.clock)
    app.include_router(
        budget_pages.router(
            gateway.keys, registry, governor, analytics, gateway.config, gateway.clock
        )
    )
    app.include_router(
        admin.router(
            gateway.keys,
            changes,
            registry,
            feed,
            gateway.secret,
            gateway.config,
            gateway.clock,
            governor,
        )
    )
    planner = gateway.gate.planner
    app.include_router(route_pages.router(gateway.keys, planner, gateway.config.limits))
    openapi.describe(app, [*CHAT_PATHS, PROXY_PATH], EMBEDDINGS_PATHS)
    _use_one_error_shape(app, gateway)
    return app


def _use_one_error_shape(app: FastAPI, gateway: Gateway) -> None:
    """Whatever goes wrong in any route leaves in the shape of `schemas/errors.py`."""

    def answer(info: ErrorInfo) -> Response:
        request_id = f"req_{gateway.clock.new_id()}"
        gateway.count_refusal(info.type)
        return Response(
            msgspec.json.encode(info.body(request_id)),
            status_code=info.status,
            media_type="application/json",
            headers={**info.headers(), "x-request-id": request_id},
        )

    async def on_nexus(_: Request, error: Exception) -> Response:
        assert isinstance(error, NexusError)
        return answer(error.info)

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        what = {
            404: f"There is nothing at {request.url.path[:200]}. See /docs for what there is.",
            405: f"{request.method} is not allowed at {request.url.path[:200]}.",
        }
        response = answer(
            ErrorInfo(
                status=error.status_code,
                type="not_found_error" if error.status_code == 404 else "invalid_request_error",
                code={404: "unknown_path", 405: "method_not_allowed"}.get(error.status_code),
                message=what.get(error.status_code, str(error.detail)),
            )
        )
        response.headers.update(error.headers or {})
        return response

    async def on_invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = str(first["loc"][-1]) if first["loc"] else None
        message = f"{where}: {first['msg']}"
        return answer(InvalidRequest(message, param=where, code="invalid_value").info)

    async def on_left(_: Request, error: Exception) -> Response:
        return Response(status_code=499)

    async def on_bug(request: Request, error: Exception) -> Response:
        log.error("request failed", extra={"path": request.url.path}, exc_info=error)
        return answer(Internal("The gateway failed; its log says why.").info)

    app.add_exception_handler(NexusError, on_nexus)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(ClientLeft, on_left)
    app.add_exception_handler(Exception, on_bug)


async def run_ingress(
    config: Config,
    sockets: list[socket.socket] | None = None,
    *,
    clock: Clock = Clock(),  # noqa: B008
    on_ready: Callable[[], None] | None = None,
) -> None:
    """Serve HTTP until SIGTERM or SIGINT, then let running calls finish and return.

    Without a bus it serves all the same, after a few seconds of waiting for it: who asks then
    hears what is wrong. Raises BusRefused, BusNotReady when the bus will not have us.
    """
    refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def fatal(reason: str) -> None:
        if not refused.done():
            refused.set_exception(BusRefused(reason))

    connection = Connection.begin(config.bus, name="ingress", clock=clock, on_fatal=fatal)
    publisher = Publisher(connection, clock)
    ledger = Ledger(publisher, "ingress")
    blobs = Blobs(connection, publisher)
    replies = Replies(connection, clock.new_token(), config.limits.stream_buffer_bytes)
    canceller = Canceller(connection, ledger, replies, clock)
    secret = ServerSecret(config.secret)
    registry = Registry(configured(config))
    feed = Feed(connection, registry, clock)
    tokens = Tokens(config.jwt, config.tiers, clock) if config.jwt.enabled else None
    keys = Authenticator(config, registry, feed, secret, tokens, clock)
    catalog = Catalog.load(clock)
    catalog.follow(config.price_file)
    states = TargetStates()
    heard = HeardStates(states, clock)
    statistics, loads = TargetStatistics(clock), Loads(clock)
    statistics.listen(connection)
    conditions = Measured(statistics, loads, heard)
    router = Router(config, catalog, clock, conditions)
    leases = LeaseClient(connection, clock)
    budgeting = Budgeting(leases, config.budget_zone, clock, partial(_append, ledger))
    applying = Applying(config, registry)
    rating = Rating(applying, leases, clock)
    beats = Beats(connection, "ingress", clock, lambda: len(replies), lambda: rating.let_through)
    ratios = Ratios()
    ratios.listen(connection)
    pools = Pools(connection, clock)
    gateway = Gateway(
        config=config,
        clock=clock,
        keys=keys,
        secret=secret,
        router=router,
        gate=Gate(
            config,
            keys,
            registry,
            secret,
            router,
            applying,
            rating,
            budgeting,
            ratios,
            replies.ingress,
            clock,
            conditions,
        ),
        admission=Admission(ledger, publisher, blobs, pools, budgeting, clock),
        replies=replies,
        canceller=canceller,
        blobs=blobs,
        loads=loads,
        count_refusal=beats.count_refusal,
    )
    changes = Changes(ledger, registry, feed, clock)
    tail = Tail(connection)
    app = create_app(gateway, connection, publisher, tail, registry, feed, changes, heard)

    def listening() -> None:
        log.info("ingress ready", extra={"ingress": replies.ingress})
        if on_ready is not None:
            on_ready()

    http = server(app, config, clock, listening, tail.close)
    begun = asyncio.create_task(_begin(connection, config, feed))
    background = [
        begun,
        asyncio.create_task(beats.run()),
        asyncio.create_task(feed.run()),
        asyncio.create_task(leases.run()),
        asyncio.create_task(StateFeed(connection, states, clock).run()),
    ]
    if tokens is not None:
        tokens.start()
    try:
        await asyncio.wait(
            {begun, refused}, timeout=_SERVE_ANYWAY_AFTER, return_when=asyncio.FIRST_COMPLETED
        )
        for trouble in (begun, refused):
            trouble.add_done_callback(partial(_stop_if_failed, http))
        await http.serve(sockets)
    finally:
        for task in background:
            task.cancel()
        # Calls that were cut short need one turn of the loop to say so and to cancel themselves.
        await asyncio.sleep(0)
        if tokens is not None:
            await tokens.close()
        await canceller.drain()
        await leases.close()
        await connection.drain()
    for trouble in (refused, begun):
        if trouble.done() and not trouble.cancelled():
            trouble.result()


def _append(ledger: Ledger, event: BudgetExceeded) -> None:
    """Told as soon as the bus is there, and not waited for."""
    with suppress(Disconnected):
        ack = ledger.append_nowait(event)
        ack.add_done_callback(lambda done: done.cancelled() or done.exception())


async def _begin(connection: Connection, config: Config, feed: Feed) -> None:
    """Returns once the bus is there and set up, and all keys are known. Raises BusNotReady."""
    while True:
        try:
            if await connection.reached(_SERVE_ANYWAY_AFTER):
                await ensure(connection, config)
                await feed.wait_loaded()
                return
        except Disconnected:
            pass
        log.warning("the bus is away")


def _stop_if_failed(http: Server, done: "asyncio.Future[None]") -> None:
    if not done.cancelled() and done.exception() is not None:
        http.should_exit = True
