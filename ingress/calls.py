"""Calls of models, from the first byte of the request to the last byte of the answer.

    who? → read body → parse → gate → admit → relay frames

A plain ASGI endpoint: this is the hot path, nothing of a framework runs per call but the routing.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NamedTuple

import msgspec

from ingress.admission import Admission
from ingress.auth import Authenticator, Headers
from ingress.balancing import Loads, Running
from ingress.body import ClientLeft, read_body
from ingress.cancel import Canceller
from ingress.gate import Entered, Gate
from ingress.replies import Gap, Replies, Reply
from ingress.request import Dialect
from ingress.routing import Router
from ingress.sequencer import Interrupted
from ledger.blobs import BlobGone, Blobs
from ledger.reader import Unreadable
from ledger.secret import ServerSecret
from schemas.call import Call
from schemas.config import Config
from schemas.errors import ErrorInfo, Internal, NexusError, ProviderFailed, Unavailable
from schemas.frames import Chunk, Failure, Finish, decode_parts
from schemas.ids import Clock
from schemas.money import usd
from schemas.usage import Usage

log = logging.getLogger("nexus.ingress")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_SILENCE = 15.0
_AFTER_DEADLINE = 5.0
_JSON = (b"content-type", b"application/json")
_SSE = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)


class Gateway(NamedTuple):
    """What the endpoints need, built once per process by `ingress/app.py`."""

    config: Config
    clock: Clock
    keys: Authenticator
    secret: ServerSecret
    router: Router
    gate: Gate
    admission: Admission
    replies: Replies
    canceller: Canceller
    blobs: Blobs
    loads: Loads
    count_refusal: Callable[[str], None]


class Outcome(NamedTuple):
    """What the log line of a call says at its end; `runs_on` when only the client's part ended."""

    status: int
    provider: str = ""
    cost_nano: int | None = None
    code: str | None = None
    runs_on: bool = False


class ModelCalls:
    """The ASGI endpoint of all paths whose POST is one call of a model, in one dialect."""

    def __init__(self, gateway: Gateway, dialect: Dialect) -> None:
        self._gateway = gateway
        self._dialect = dialect

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway = self._gateway
        received_ns = gateway.clock.now_ns()
        call_id = gateway.clock.new_id()
        answer = Answer(send, call_id)
        model = key_id = ""
        ledgered = False
        try:
            principal = await gateway.keys.authenticate(scope["headers"])
            key_id = principal.tenant.key_id
            body = await read_body(scope, receive, gateway.config.limits)
            request = self._dialect.parse(body, _model_of_path(scope))
            model = request.model
            entered = await gateway.gate.enter(
                principal, request, scope["headers"], call_id, received_ns
            )
            model = entered.call.model
            answer.headers = entered.rated.headers
            ledgered = True
            outcome = await self._run(entered, receive, answer)
        except NexusError as error:
            if not ledgered:
                gateway.count_refusal(error.info.type)
            outcome = await answer.fail(error.info)
        except ClientLeft:
            outcome = Outcome(status=499, code="client_disconnect")
        except Exception:
            log.exception("call failed inside the gateway", extra={"call_id": call_id})
            outcome = await answer.fail(Internal("The gateway failed; its log says why.").info)
        _log_call(outcome, call_id, model, key_id, gateway.clock.now_ns() - received_ns)

    async def _run(self, entered: Entered, receive: Receive, answer: "Answer") -> Outcome:
        """From admission to the end; the client's going away is watched all the time."""
        gateway, call = self._gateway, entered.call
        is_admitted = False
        reply = gateway.replies.open(call.id)
        running = gateway.loads.begin(call.target)
        watch = asyncio.ensure_future(_disconnected(receive))
        watch.add_done_callback(lambda _: reply.leave())
        try:
            job_seq = await gateway.admission.admit(call, entered.taken)
            is_admitted = True
            try:
                outcome = await self._relay(entered, reply, running, answer)
            except asyncio.CancelledError:
                # This process stops, and its patience with running calls is over.
                gateway.canceller.cancel(call, job_seq)
                return await answer.fail(_stopping().info)
            if outcome.runs_on and not (reply.gone and entered.principal.on_disconnect != "cancel"):
                gateway.canceller.cancel(call, job_seq)
            return outcome
        finally:
            entered.rated.release(None if is_admitted else 0)
            watch.cancel()
            gateway.loads.end(running)
            gateway.replies.close(reply)

    async def _relay(
        self, entered: Entered, reply: Reply, running: Running, answer: "Answer"
    ) -> Outcome:
        """Frames to the client until the end, or until nobody will see it any more."""
        call, clock = entered.call, self._gateway.clock
        overdue_ns = call.deadline_ns + int(_AFTER_DEADLINE * 1e9)
        try:
            while not reply.gone:
                left = (overdue_ns - clock.now_ns()) / 1e9
                frame = await reply.next(min(_SILENCE, max(left, 0.0)))
                if isinstance(frame, Chunk):
                    if frame.parts_ref:
                        stored = await self._gateway.blobs.get(frame.parts_ref)
                        frame = msgspec.structs.replace(frame, parts=decode_parts(stored))
                    await answer.stream(self._dialect.chunks(frame))
                elif isinstance(frame, Finish):
                    # Before the last bytes go out: the client's next call may follow at once.
                    entered.rated.release(_tokens(frame.usage))
                    self._gateway.loads.end(running, frame)
                    return await self._finish(entered, frame, answer)
                elif isinstance(frame, Failure):
                    entered.rated.release(_tokens(frame.usage))
                    self._gateway.loads.end(running)
                    return await answer.fail(frame.error)
                elif clock.now_ns() > overdue_ns:
                    return _running_on(await answer.fail(_overdue(call).info))
                elif answer.started:
                    await answer.stream(self._dialect.keep_alive)
        except Interrupted:
            return _running_on(await answer.fail(_broken("was taken over midway").info))
        except (Gap, BlobGone, Unreadable):
            return _running_on(await answer.fail(_broken("lost a part on the way").info))
        return Outcome(status=499, code="client_disconnect", runs_on=True)

    async def _finish(self, entered: Entered, finish: Finish, answer: "Answer") -> Outcome:
        request, routing = entered.request, entered.choice.told(finish)
        try:
            body = finish.body
            if finish.body_ref:
                body = await self._gateway.blobs.get(finish.body_ref)
        except (BlobGone, Unreadable) as error:
            return await answer.fail(Unavailable(str(error), retry_after=1.0).info)
        if request.stream:
            end = self._dialect.last_chunks(finish, body, request, routing, entered.call.id)
            await answer.end_stream(end)
        else:
            await answer.whole(self._dialect.answer(finish, body, request, routing))
        cost = finish.cost.total if finish.cost else None
        return Outcome(status=200, provider=finish.provider, cost_nano=cost)


class Answer:
    """One HTTP response: whole, streamed, or an error in whichever of the two was begun.

    `headers` go with whatever is sent.
    """

    __slots__ = ("_call_id", "_send", "headers", "started")

    def __init__(self, send: Send, call_id: str) -> None:
        self.headers: Headers = []
        self._send = send
        self._call_id = call_id
        self.started = False

    async def whole(self, body: bytes, status: int = 200, headers: Headers | None = None) -> None:
        self.started = True
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [
                    _JSON,
                    (b"content-length", b"%d" % len(body)),
                    (b"x-request-id", b"req_" + self._call_id.encode()),
                    *self.headers,
                    *(headers or ()),
                ],
            }
        )
        await self._send({"type": "http.response.body", "body": body})

    async def stream(self, events: bytes) -> None:
        """Server-sent events; waits while the client reads more slowly than they come."""
        if not self.started:
            await self._start_stream()
        await self._send({"type": "http.response.body", "body": events, "more_body": True})

    async def end_stream(self, events: bytes) -> None:
        if not self.started:
            await self._start_stream()
        await self._send({"type": "http.response.body", "body": events})

    async def _start_stream(self) -> None:
        self.started = True
        headers = [*_SSE, (b"x-request-id", b"req_" + self._call_id.encode()), *self.headers]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def fail(self, info: ErrorInfo) -> Outcome:
        """The error in the one shape; after a stream began it is its last event, without [DONE]."""
        body = msgspec.json.encode(info.body(f"req_{self._call_id}"))
        if self.started:
            await self.end_stream(b"data: %b\n\n" % body)
        else:
            extra = [(k.lower().encode(), v.encode()) for k, v in info.headers().items()]
            await self.whole(body, info.status, extra)
        return Outcome(status=info.status, provider=info.provider or "", code=info.code)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _model_of_path(scope: Scope) -> str | None:
    model: str | None = scope["path_params"].get("model")
    return model


def _tokens(usage: Usage | None) -> int | None:
    """All of them; None where nobody has counted."""
    if usage is None or usage.status == "unknown":
        return None
    return usage.prompt + usage.completion


def _running_on(outcome: Outcome) -> Outcome:
    return outcome._replace(runs_on=True)


def _overdue(call: Call) -> NexusError:
    return ProviderFailed(
        "The call did not end before its deadline.",
        status=504,
        code="timeout",
        provider=call.target.provider,
    )


def _stopping() -> NexusError:
    return Unavailable(
        "The gateway stopped before the answer was complete: send the request again.",
        code="gateway_stopped",
        retry_after=1.0,
    )


def _broken(how: str) -> NexusError:
    return ProviderFailed(
        f"The stream {how}. What was sent before is all there is: send the request again.",
        code="stream_broken",
    )


def _log_call(outcome: Outcome, call_id: str, model: str, key_id: str, elapsed_ns: int) -> None:
    log.info(
        "call",
        extra={
            "request_id": f"req_{call_id}",
            "key_id": key_id,
            "model": model[:200],
            "provider": outcome.provider,
            "status": outcome.status,
            "code": outcome.code,
            "ms": round(elapsed_ns / 1e6, 1),
            "usd": usd(outcome.cost_nano) if outcome.cost_nano is not None else None,
        },
    )
