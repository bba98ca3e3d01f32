"""`/events`: the ledger as it grows, for dashboards and scripts, as SSE and as WebSocket."""

import asyncio
import contextlib
import ipaddress
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import msgspec
from fastapi import APIRouter, Request, WebSocket, WebSocketDisconnect
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from ingress.auth import Authenticator, Principal
from ingress.tail import Ahead, Closed, Heard, Listener, Tail, TooSlow, Wanted
from ingress.tickets import LIFETIME, Tickets
from ledger.publisher import Publisher
from schemas.config import Config
from schemas.errors import ErrorInfo, InvalidRequest, NexusError, Unauthenticated, Unavailable
from schemas.ids import Clock

log = logging.getLogger("nexus.ingress")

_SILENCE = 15.0
_SEND_WITHIN = 30.0
_LOOK_EVERY = 0.3
_LAST_WORD_WITHIN = 0.3
_LONGEST_PATTERN = 200
_MOST_PATTERNS = 20
_KEY_PROTOCOL = "nexus.key."
_TRY_AGAIN_LATER = 1013
_SERVICE_RESTART = 1012
_POLICY_VIOLATION = 1008
# A comment without the blank line after it: some SSE readers take that for an empty event.
_KEEP_ALIVE = b": keep-alive\n"


def router(
    tail: Tail, publisher: Publisher, keys: Authenticator, config: Config, clock: Clock
) -> APIRouter:
    """`GET /events` in both forms and `POST /events/ticket`."""
    door = LiveEvents(tail, publisher, keys, config, clock)
    api = APIRouter(tags=["events"])
    api.add_api_route(
        "/events",
        door.stream,
        methods=["GET"],
        response_model=None,
        summary="Events of the ledger as they happen",
        description="Server-sent events; `id` is the ledger sequence. `Last-Event-ID` or `?since=`"
        " first replays what came after it, `?type=` filters by a pattern such as"
        " `model.request.*`. The same path is a WebSocket.",
        responses={200: {"content": {"text/event-stream": {}}}},
    )
    api.add_api_websocket_route("/events", door.socket)
    api.add_api_route(
        "/events/ticket",
        door.ticket,
        methods=["POST"],
        response_model=None,
        summary="A one-time credential for /events?ticket=",
    )
    return api


class LiveEvents:
    """The endpoints. Who may hear what is decided here when a client comes, and for as long as it
    stays: its connection ends with its credential."""

    def __init__(
        self, tail: Tail, publisher: Publisher, keys: Authenticator, config: Config, clock: Clock
    ) -> None:
        self._tail = tail
        self._tickets = Tickets(publisher, keys, config.admin_token, clock)
        self._keys = keys
        self._clock = clock
        self._keyless = config.api_keys == ("dev-key",)

    async def ticket(self, request: Request) -> Response:
        """`{"ticket", "expires_in"}` for the caller's own key; seconds."""
        principal = await self._keys.authenticate(request.scope["headers"])
        return JSONResponse(
            {"ticket": self._tickets.issue(principal), "expires_in": LIFETIME},
            headers={"cache-control": "no-store"},
        )

    async def stream(self, request: Request) -> Response:
        """Server-sent events."""
        principal, _ = await self._authenticate(request)
        since = request.headers.get("last-event-id") or request.query_params.get("since")
        listener = await self._listen(request, principal, since)
        return _EventStream(
            listener, partial(self._credential_ended, principal), f"req_{self._clock.new_id()}"
        )

    async def socket(self, socket: WebSocket) -> None:
        """WebSocket: one text frame per event, its JSON and nothing else."""
        try:
            principal, protocol = await self._authenticate(socket)
            listener = await self._listen(socket, principal, socket.query_params.get("since"))
        except NexusError as error:
            body = error.info.body(f"req_{self._clock.new_id()}")
            refusal = JSONResponse(body, error.info.status, error.info.headers())
            await socket.send_denial_response(refusal)
            return
        try:
            await socket.accept(protocol)
            ended = await _serve(
                _serve_socket(socket, listener),
                _socket_closed(socket),
                self._credential_ended(principal),
            )
            if ended is not None:
                async with asyncio.timeout(_LAST_WORD_WITHIN):
                    await socket.close(_POLICY_VIOLATION, ended.message)
        except (WebSocketDisconnect, TimeoutError):
            pass
        finally:
            listener.close()

    async def _listen(
        self, request: HTTPConnection, principal: Principal, since: str | None
    ) -> Listener:
        types = request.query_params.getlist("type")
        if len(types) > _MOST_PATTERNS or any(len(text) > _LONGEST_PATTERN for text in types):
            raise InvalidRequest(
                f"type: at most {_MOST_PATTERNS} patterns of {_LONGEST_PATTERN} characters",
                param="type",
            )
        key_id = None if principal.admin else principal.tenant.key_id
        try:
            return await self._tail.listen(Wanted(key_id, tuple(types)), _sequence(since))
        except Ahead as error:
            raise _beyond(error) from error
        except Closed as error:
            raise Unavailable(f"No events: {error}.", retry_after=1.0) from error

    async def _credential_ended(self, principal: Principal) -> ErrorInfo:
        """Waits until the listener would be refused if it came now, and says why."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            ended = self._keys.end_of(principal)
            if ended is not None:
                return ended.info

    async def _authenticate(self, request: HTTPConnection) -> tuple[Principal, str | None]:
        """Who listens, and the WebSocket subprotocol that said so.

        Raises Unauthenticated, Unavailable.
        """
        try:
            return await self._keys.authenticate(request.scope["headers"]), None
        except Unauthenticated as error:
            refusal = error
        for protocol in request.scope.get("subprotocols", ()):
            if protocol.startswith(_KEY_PROTOCOL):
                key = protocol.removeprefix(_KEY_PROTOCOL)
                return await self._of_key(key), protocol
        ticket = request.query_params.get("ticket")
        if ticket:
            return await self._tickets.redeem(ticket), None
        nothing_sent = refusal.info.code == "missing_api_key"
        if nothing_sent and self._keyless and _from_this_machine(request):
            return await self._of_key("dev-key"), None
        raise refusal

    async def _of_key(self, key: str) -> Principal:
        return await self._keys.authenticate([(b"x-api-key", key.encode())])


class _EventStream(Response):
    """The SSE response: sends what the listener hears until one of the two ends, or the
    credential does."""

    def __init__(
        self,
        listener: Listener,
        ended: Callable[[], Coroutine[Any, Any, ErrorInfo]],
        request_id: str,
    ) -> None:
        self._listener = listener
        self._ended = ended
        self._request_id = request_id
        headers = {
            "cache-control": "no-cache",
            "x-accel-buffering": "no",
            "x-request-id": request_id,
        }
        super().__init__(headers=headers, media_type="text/event-stream")
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            ended = await _serve(self._serve(send), _http_closed(receive), self._ended())
            if ended is not None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LAST_WORD_WITHIN):
                        await self._write(send, self._error(ended), more=False)
        finally:
            self._listener.close()

    async def _serve(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await self._write(send, _KEEP_ALIVE)
        try:
            while True:
                batch = await self._listener.next(_SILENCE)
                await self._write(send, b"".join(map(_frame, batch)) or _KEEP_ALIVE)
        except TooSlow as error:
            last_word = self._error(
                Unavailable(f"Closed: {error}. Go on with Last-Event-ID.", code="too_slow").info
            )
        except Ahead as error:
            last_word = self._error(_beyond(error).info)
        except Closed:
            last_word = b""
        await self._write(send, last_word, more=False)

    async def _write(self, send: Send, data: bytes, more: bool = True) -> None:
        await send({"type": "http.response.body", "body": data, "more_body": more})

    def _error(self, error: ErrorInfo) -> bytes:
        body = msgspec.json.encode(error.body(self._request_id))
        return b"event: error\ndata: %b\n\n" % body


async def _serve_socket(socket: WebSocket, listener: Listener) -> None:
    """A client that takes nothing for half a minute is given up."""
    last = 0
    try:
        while True:
            for heard in await listener.next(_SILENCE):
                async with asyncio.timeout(_SEND_WITHIN):
                    await socket.send_text(heard.data.decode())
                last = heard.seq
    except TooSlow as error:
        await socket.close(_TRY_AGAIN_LATER, f"{error}; go on with ?since={last}")
    except Ahead as error:
        await socket.close(_POLICY_VIOLATION, str(error))
    except Closed as error:
        await socket.close(_SERVICE_RESTART, str(error))
    except TimeoutError:
        log.info("a listener took nothing for %s s", _SEND_WITHIN)


async def _serve(
    serving: Coroutine[Any, Any, None],
    gone: Coroutine[Any, Any, None],
    ended: Coroutine[Any, Any, ErrorInfo],
) -> ErrorInfo | None:
    """Serve until that ends, the client has gone away, or its credential has ended: why, then."""
    ending = asyncio.create_task(ended)
    tasks = [asyncio.create_task(serving), asyncio.create_task(gone), ending]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result
    return ending.result() if done == {ending} else None


async def _http_closed(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _socket_closed(socket: WebSocket) -> None:
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass


def _frame(heard: Heard) -> bytes:
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (heard.seq, heard.type.encode(), heard.data)


def _sequence(text: str | None) -> int | None:
    """A ledger sequence as a client sends it back. Raises InvalidRequest."""
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise InvalidRequest(
            "Last-Event-ID and since are ledger sequences: the `id` of the last event you have.",
            code="invalid_event_id",
            param="since",
        )
    return int(text)


def _beyond(error: Ahead) -> InvalidRequest:
    return InvalidRequest(
        f"There is no such event: {error}. Begin without Last-Event-ID.",
        code="invalid_event_id",
        param="since",
    )


def _from_this_machine(request: HTTPConnection) -> bool:
    """Whether a request without credentials may be a local one: from here, to here by a local
    name, through no proxy, and from no page of another site."""
    headers = request.headers
    if request.client is None or "x-forwarded-for" in headers or "forwarded" in headers:
        return False
    named = [f"//{host}" for host in headers.getlist("host")]
    places = [request.client.host, *map(_host, (*named, *headers.getlist("origin")))]
    return bool(named) and all(map(_is_loopback, places))


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
