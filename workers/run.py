"""The life of one call: from a job of the work queue to its one end.

    receive → (taken over?) → attempt → frames … → Finish | Failure → terminal event → ack

The end goes out in this order on one connection: the last frame (kept in RESP), the terminal event
(kept in the ledger), and only after both are stored the ack of the job. Killed anywhere in between,
the next worker finds the end in RESP and completes it without asking the provider again.
"""

import asyncio
import logging
import random
from contextlib import aclosing

import msgspec

from ledger.blobs import BlobGone, Blobs
from ledger.connection import Connection
from ledger.log import Ledger
from ledger.publisher import PubAck, Publisher, Refused, Unresolved
from ledger.reader import Unreadable, read_at
from ledger.work import submit
from schemas import events, subjects
from schemas.call import Call, Target, decode_call
from schemas.config import QueueConfig
from schemas.errors import ErrorInfo
from schemas.events import (
    AttemptLate,
    Outcome,
    StreamingStart,
    decode_event,
    message_id_of_attempt,
    message_id_of_end,
    of_call,
    of_money,
    terminal_event,
)
from schemas.frames import Failure, Fence, Finish, Moved, Timings, encode_frame
from schemas.ids import Clock, rfc3339
from schemas.usage import Cost, Usage, cost_of
from workers.providers.base import Answer, Ask, AttemptFailed, Deltas, Provider, estimate_usage
from workers.puller import Job
from workers.redelivery import Takeover
from workers.retry import MAX_TRIES, backoff
from workers.running import Running, RunningCalls

log = logging.getLogger("nexus.worker")

_GRACE = 2.0
_CANCELLED = ErrorInfo(
    status=499,
    type="invalid_request_error",
    code="client_disconnect",
    message="The client closed the connection before the answer was complete.",
)
_DEADLINE = ErrorInfo(
    status=504,
    type="provider_error",
    code="timeout",
    message="The call did not finish before its deadline. Ask for less or raise the deadline.",
)


class LostOwnership(Exception):
    """Too long since the queue last heard of us: the job may be another worker's by now."""


class Runner:
    """Runs the calls of this worker; one instance for all pools of the process."""

    def __init__(
        self,
        connection: Connection,
        publisher: Publisher,
        providers: dict[str, Provider],
        queue: QueueConfig,
        clock: Clock,
    ) -> None:
        self._connection = connection
        self._publisher = publisher
        self._ledger = Ledger(publisher, "worker")
        self._blobs = Blobs(connection, publisher)
        self._providers = providers
        self._queue = queue
        self._clock = clock
        self.calls = RunningCalls(connection, queue, clock)
        self._takeover = Takeover(connection, publisher, self._ledger, clock, self._end)
        self._cancelled: dict[str, float] = {}

    async def run(self, job: Job) -> None:
        """One delivery of a job: returns when the call ended, moved on, or is not ours."""
        try:
            call = decode_call(job.data)
        except msgspec.DecodeError as error:
            log.error("unreadable job", extra={"work_seq": job.seq, "reason": str(error)})
            self._connection.publish(job.reply, b"+TERM")
            return
        current = self.calls.get(call.id)
        if current is not None:
            self._adopt(current, job)
            return
        task = asyncio.current_task()
        assert task is not None
        running = Running(call, job, self._queue.ack_wait, task)
        if not self.calls.owns(running):
            return
        self.calls.add(running)
        try:
            await self._run(running)
        except (Unresolved, Unreadable) as error:
            log.error("call left to redelivery", extra={"call_id": call.id, "reason": str(error)})
        finally:
            self.calls.remove(running)

    def cancel(self, call_id: str) -> None:
        """The client of a call went away: stop it here, or remember it for when it comes."""
        now = self._clock.monotonic()
        self._cancelled[call_id] = now
        running = self.calls.get(call_id)
        if running is not None and not running.cancelled:
            running.cancelled = True
            running.task.cancel()
        while self._cancelled:
            oldest = next(iter(self._cancelled))
            if now - self._cancelled[oldest] < 900.0:
                break
            del self._cancelled[oldest]

    def _adopt(self, current: Running, job: Job) -> None:
        """The queue delivered again what still runs here (it restarted, or an in-progress was
        lost): when nobody had the job in between, the new delivery only renews the ownership."""
        if job.delivery == current.job.delivery + 1 and self.calls.owns(current):
            current.job = job
            current.owned_until = max(
                current.owned_until, job.received + 0.8 * self._queue.ack_wait
            )
        else:
            self._connection.publish(job.reply, b'-NAK {"delay": 2000000000}')

    async def _run(self, running: Running) -> None:
        job, call = running.job, running.call
        if job.delivery > 1 and not await self._takeover.goes_on(running):
            return
        left = (call.deadline_ns - self._clock.now_ns()) / 1e9
        try:
            if call.id in self._cancelled:
                running.cancelled = True
                raise asyncio.CancelledError
            async with asyncio.timeout(left):
                await self._follow_plan(running)
        except TimeoutError:
            await self._fail(running, call.target, _DEADLINE)
        except BlobGone as gone:
            await self._fail(running, call.target, _body_gone(gone))
        except LostOwnership:
            await self._close_late(running, self._failure(running, call.target, _DEADLINE))
        except asyncio.CancelledError:
            if not running.cancelled:
                await self._hand_back(running)
                raise
            asyncio.current_task().uncancel()  # type: ignore[union-attr]
            await self._fail(running, call.target, _CANCELLED, cancelled=True)

    async def _follow_plan(self, running: Running) -> None:
        """Tries the targets in order, each a few times, until one ends the call."""
        call = running.call
        if call.body_ref:
            running.body = await self._blobs.get(call.body_ref)
        attempts = call.attempts
        for at in range(call.at, len(call.plan)):
            target = call.plan[at]
            if target.pool != call.target.pool:
                await self._move(running, at, attempts)
                return
            for attempt in range(1, MAX_TRIES + 1):
                attempts += 1
                running.next_attempt()
                running.call = call = msgspec.structs.replace(call, at=at, attempts=attempts)
                try:
                    await self._attempt(running, target)
                    return
                except AttemptFailed as failed:
                    last = at == len(call.plan) - 1
                    again = failed.retryable and attempt < MAX_TRIES
                    wait = backoff(attempt, failed.retry_after, random.random())
                    if again and wait > (call.deadline_ns - self._clock.now_ns()) / 1e9:
                        again = False
                    if running.index or not (again or (failed.falls_back and not last)):
                        await self._fail(running, target, failed.info)
                        return
                    await self._record_failed(running, target, failed)
                    if not again:
                        break
                    await asyncio.sleep(wait)

    async def _attempt(self, running: Running, target: Target) -> None:
        call = running.call
        provider = self._providers.get(target.provider)
        if provider is None:
            raise AttemptFailed(
                ErrorInfo(
                    status=502,
                    type="provider_error",
                    code="provider_unknown",
                    message=f"This worker has no provider '{target.provider}' configured.",
                    provider=target.provider,
                ),
                retryable=False,
                reached=False,
            )
        ask = Ask(
            call_id=call.id,
            model=call.model,
            engine=target.engine,
            body=running.body,
            stream=call.stream,
            created=call.received_ns // 1_000_000_000,
            headers=call.headers,
            timeouts=target.timeouts,
        )
        if call.stream:
            await self._stream(running, target, provider, ask)
        else:
            await self._complete(running, target, await provider.complete(ask))

    async def _complete(self, running: Running, target: Target, answer: Answer) -> None:
        timings = self._timings(running.call, answer.first_byte, answer.sent)
        await self._finish(
            running, target, answer.usage, answer.finish_reason, answer.body, timings
        )

    async def _stream(self, running: Running, target: Target, provider: Provider, ask: Ask) -> None:
        """Relays deltas as they come; what arrived together leaves together."""
        subject = subjects.resp(running.call.ingress, running.call.id)
        timings = Timings(total=0.0)
        async with aclosing(provider.stream(ask)) as pieces:
            async for piece in pieces:
                if not self.calls.owns(running):
                    raise LostOwnership
                if isinstance(piece, Deltas):
                    if timings.first_byte is None:
                        timings = self._timings(running.call, piece.first_byte, piece.sent)
                        self._record_streaming(running, target, timings)
                    if piece.parts:
                        self._connection.publish(subject, running.chunk(piece))
                else:
                    timings = msgspec.structs.replace(
                        timings, total=self._since_received(running.call)
                    )
                    await self._finish(
                        running, target, piece.usage, piece.finish_reason, piece.last, timings
                    )

    async def _finish(
        self,
        running: Running,
        target: Target,
        usage: Usage,
        finish_reason: str,
        body: bytes,
        timings: Timings,
    ) -> None:
        call, reference = running.call, ""
        if len(body) > self._blobs.inline_limit:
            reference, body = await self._blobs.put(f"{call.id}-answer", body), b""
        cost, price_id = _cost(usage, target)
        await self._end(
            running,
            Finish(
                fence=running.fence,
                index=running.next_index(),
                event_id=self._clock.new_id(),
                time_ns=self._clock.now_ns(),
                provider=target.provider,
                engine=target.engine,
                usage=usage,
                cost=cost,
                price_id=price_id,
                timings=timings,
                attempts=call.attempts,
                finish_reason=finish_reason,
                body=body,
                body_ref=reference,
            ),
        )

    async def _fail(
        self, running: Running, target: Target, info: ErrorInfo, *, cancelled: bool = False
    ) -> None:
        await self._end(running, self._failure(running, target, info, cancelled=cancelled))

    def _failure(
        self, running: Running, target: Target, info: ErrorInfo, *, cancelled: bool = False
    ) -> Failure:
        """A bad end; what was already streamed, or asked and not answered, is estimated."""
        usage: Usage | None = None
        cost: Cost | None = Cost()
        price_id = ""
        if running.text_bytes or cancelled:
            usage = estimate_usage(running.body, running.text_bytes)
            cost, price_id = _cost(usage, target)
        return Failure(
            fence=running.fence,
            index=running.next_index(),
            event_id=self._clock.new_id(),
            time_ns=self._clock.now_ns(),
            error=info,
            timings=Timings(total=self._since_received(running.call)),
            attempts=running.call.attempts,
            provider=target.provider,
            engine=target.engine,
            usage=usage,
            cost=cost,
            price_id=price_id,
            cancelled=cancelled,
        )

    async def _end(self, running: Running, end: Finish | Failure) -> None:
        """The order of the end. Not ours any more, or past the deadline: only a late attempt."""
        call = running.call
        overdue = (self._clock.now_ns() - call.deadline_ns) / 1e9 > _GRACE
        if overdue or not self.calls.owns(running):
            await self._close_late(running, end)
            return
        event = terminal_event(call, end)
        shown = self._publisher.publish_nowait(
            subjects.resp(call.ingress, call.id),
            encode_frame(end),
            msg_id=_frame_id(call, end.fence),
        )
        ended = self._ledger.append_nowait(event, message_id_of_end(call.id))
        await asyncio.shield(asyncio.gather(shown, ended))
        self._connection.publish(running.job.reply, b"+ACK")
        ack = ended.result()
        if ack.duplicate and not await self._is_ours(ack, event.event_id):
            await self._close_late(running, end)

    async def _is_ours(self, ack: PubAck, event_id: str) -> bool:
        """A duplicate is ours when our own first try was stored and only its ack was lost."""
        kept = await read_at(self._connection, subjects.LEDGER, ack.seq)
        event = decode_event(kept.data) if kept else None
        return event is not None and event.event_id == event_id

    async def _close_late(self, running: Running, end: Finish | Failure) -> None:
        """The attempt ended after it had lost its call: its cost still counts, exactly once.

        Was it recorded as abandoned with an estimate, the late event carries the difference.
        """
        call = running.call
        late = AttemptLate(
            event_id=self._clock.new_id(),
            time=rfc3339(self._clock.now_ns()),
            v=1,
            **of_call(call),
            provider=end.provider,
            engine=end.engine,
            fence=end.fence,
            attempts=end.attempts,
            stream=call.stream,
            operation=call.operation,
            latency_ms=end.timings.total,
            **of_money(end.usage, end.cost, end.price_id),
        )
        ack = await self._ledger.append(late, message_id_of_attempt(call.id, end.fence))
        if not ack.duplicate:
            return
        kept = await read_at(self._connection, subjects.LEDGER, ack.seq)
        known = decode_event(kept.data) if kept else None
        if isinstance(known, Outcome) and not isinstance(known, AttemptLate):
            correction = _difference(late, known, ack.seq)
            await self._ledger.append(correction, f"{call.id}.late{ack.seq}")

    async def _hand_back(self, running: Running) -> None:
        """This worker stops: a call that has shown nothing goes to another, a stream ends here."""
        if running.index:
            await self._fail(running, running.call.target, _stopping(running.call.target))
        elif self.calls.owns(running):
            self._connection.publish(running.job.reply, b"-NAK")

    async def _move(self, running: Running, at: int, attempts: int) -> None:
        """The plan goes on in another pool: say so in RESP, queue the job there, let go of ours."""
        call = msgspec.structs.replace(running.call, at=at, attempts=attempts)
        running.next_attempt()
        moved = Moved(fence=running.fence, index=running.next_index(), at=at, attempts=attempts)
        await self._publisher.publish(
            subjects.resp(call.ingress, call.id),
            encode_frame(moved),
            msg_id=_frame_id(call, running.fence),
        )
        try:
            await submit(self._publisher, call)
        except Refused as refused:
            info = ErrorInfo(
                status=429,
                type="rate_limit_error",
                code="queue_full",
                message=f"The queue of '{call.target.pool}' is full: {refused}. Try again later.",
                provider=call.target.provider,
                retry_after=1.0,
            )
            await self._fail(running, call.target, info)
            return
        self._connection.publish(running.job.reply, b"+ACK")

    async def _record_failed(self, running: Running, target: Target, failed: AttemptFailed) -> None:
        call = running.call
        event = events.AttemptFailed(
            event_id=self._clock.new_id(),
            time=rfc3339(self._clock.now_ns()),
            v=1,
            **of_call(call),
            provider=target.provider,
            engine=target.engine,
            fence=running.fence,
            attempts=call.attempts,
            stream=call.stream,
            operation=call.operation,
            latency_ms=self._since_received(call),
            cost_nano=None if failed.info.code == "timeout" else 0,
            error=failed.info,
        )
        await self._ledger.append(event, message_id_of_attempt(call.id, running.fence))

    def _record_streaming(self, running: Running, target: Target, timings: Timings) -> None:
        call = running.call
        event = StreamingStart(
            event_id=self._clock.new_id(),
            time=rfc3339(self._clock.now_ns()),
            v=1,
            **of_call(call),
            provider=target.provider,
            engine=target.engine,
            fence=running.fence,
            ttfb_ms=timings.first_byte or 0.0,
        )
        self._ledger.append_nowait(event).add_done_callback(_note_unresolved)

    def _since_received(self, call: Call) -> float:
        return round(max(0, self._clock.now_ns() - call.received_ns) / 1e6, 3)

    def _timings(self, call: Call, first_byte: float, sent: float) -> Timings:
        total = self._since_received(call)
        after_first = (self._clock.monotonic() - first_byte) * 1e3
        return Timings(
            total=total,
            first_byte=round(max(0.0, total - after_first), 3),
            network=round((first_byte - sent) * 1e3, 3),
        )


def _cost(usage: Usage, target: Target) -> tuple[Cost | None, str]:
    if target.price is None or usage.status == "unknown":
        return None, target.price.id if target.price else ""
    return cost_of(usage, target.price), target.price.id


def _frame_id(call: Call, fence: Fence) -> str:
    return f"{call.id}.f{fence.job}.{fence.delivery}.{fence.attempt}"


def _body_gone(gone: BlobGone) -> ErrorInfo:
    return ErrorInfo(
        status=503, type="server_error", code="body_gone", message=str(gone), retry_after=1.0
    )


def _stopping(target: Target) -> ErrorInfo:
    return ErrorInfo(
        status=503,
        type="server_error",
        code="worker_stopped",
        message="The worker stopped before this stream was complete. Send the request again.",
        provider=target.provider,
        retry_after=1.0,
    )


def _note_unresolved(ack: "asyncio.Future[PubAck]") -> None:
    if not ack.cancelled() and ack.exception() is not None:
        log.warning("streaming start not recorded", extra={"reason": str(ack.exception())})


def _difference(late: AttemptLate, known: Outcome, seq: int) -> AttemptLate:
    """What the truth adds to the record at `seq`; money and tokens may be negative."""
    if late.cost_nano is None or known.cost_nano is None:
        return msgspec.structs.replace(late, corrects=seq)
    before, now = known.usage or Usage(), late.usage or Usage()
    tokens = {
        field: getattr(now, field) - getattr(before, field)
        for field in Usage.__struct_fields__
        if field != "status"
    }
    cost = Cost(
        input=(late.input_cost_nano or 0) - (known.input_cost_nano or 0),
        output=(late.output_cost_nano or 0) - (known.output_cost_nano or 0),
        cache_savings=late.cache_savings_nano - known.cache_savings_nano,
    )
    money = of_money(Usage(**tokens, status=now.status), cost, late.price_id)
    return msgspec.structs.replace(late, corrects=seq, **money)
