"""The ingress role: every door of the HTTP surface, wired to the bus.

The way of a call starts here: `ingress/chat.py` takes it to the work queue and relays its frames;
`workers/run.py` is the other half.
"""

import asyncio
import logging
import socket
from collections.abc import Callable

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Route

from analytics.client import Analytics
from ingress import catalog_routes, insights, live, openapi, status
from ingress.admission import Admission
from ingress.auth import Keys
from ingress.body import ClientLeft
from ingress.cancel import Canceller
from ingress.chat import ChatCompletions, Gateway
from ingress.pools import Pools
from ingress.replies import Replies
from ingress.routing import Router
from ingress.server import server
from ingress.tail import Tail
from ledger.beats import Beats
from ledger.blobs import Blobs
from ledger.connection import Connection
from ledger.log import Ledger
from ledger.publisher import Publisher
from ledger.streams import ensure
from schemas.catalog import Catalog
from schemas.config import Config
from schemas.errors import ErrorInfo, Internal, InvalidRequest, NexusError
from schemas.ids import Clock

log = logging.getLogger("nexus.ingress")

PREFIXES = ("/v1", "/ai/v1", "/api/v1")
CHAT_PATHS = [f"{prefix}/chat/completions" for prefix in PREFIXES]
PROXY_PATH = "/proxy/{model}"


def create_app(
    gateway: Gateway, connection: Connection, publisher: Publisher, tail: Tail
) -> FastAPI:
    """All routes of one ingress; hot ones are plain ASGI endpoints without framework work."""
    app = FastAPI(
        title="Nexus",
        version=openapi.VERSION,
        description=openapi.DESCRIPTION,
        redoc_url=None,
    )
    chat = ChatCompletions(gateway)
    for path in CHAT_PATHS:
        app.router.routes.append(Route(path, chat, methods=["POST"]))
    app.router.routes.append(Route("/proxy/{model:path}", chat, methods=["POST"]))
    app.include_router(catalog_routes.router(gateway.router, gateway.keys, PREFIXES))
    app.include_router(insights.router(gateway.keys, Analytics(connection), gateway.config.limits))
    app.include_router(live.router(tail, publisher, gateway.keys, gateway.config, gateway.clock))
    app.include_router(status.router(connection, gateway.keys, gateway.config, gateway.clock))
    openapi.describe(app, [*CHAT_PATHS, PROXY_PATH])
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
    """Serve HTTP until SIGTERM or SIGINT, then let running calls finish and return."""

    def fatal(reason: str) -> None:
        log.critical("the bus forbids what an ingress needs", extra={"reason": reason})
        http.should_exit = True

    connection = await Connection.connect(config.bus, name="ingress", clock=clock, on_fatal=fatal)
    await ensure(connection, config)
    publisher = Publisher(connection, clock)
    ledger = Ledger(publisher, "ingress")
    blobs = Blobs(connection, publisher)
    replies = Replies(connection, clock.new_token(), config.limits.stream_buffer_bytes)
    canceller = Canceller(connection, ledger, replies, clock)
    beats = Beats(connection, "ingress", clock, lambda: len(replies))
    gateway = Gateway(
        config=config,
        clock=clock,
        keys=Keys(config),
        router=Router(config, Catalog.load(), clock),
        admission=Admission(ledger, publisher, blobs, Pools(connection, clock), clock),
        replies=replies,
        canceller=canceller,
        blobs=blobs,
        count_refusal=beats.count_refusal,
    )

    def listening() -> None:
        log.info("ingress ready", extra={"ingress": replies.ingress})
        if on_ready is not None:
            on_ready()

    tail = Tail(connection)
    app = create_app(gateway, connection, publisher, tail)
    http = server(app, config, clock, listening, tail.close)
    beating = asyncio.create_task(beats.run())
    try:
        await http.serve(sockets)
    finally:
        beating.cancel()
        # Calls that were cut short need one turn of the loop to say so and to cancel themselves.
        await asyncio.sleep(0)
        await canceller.drain()
        await connection.drain()
