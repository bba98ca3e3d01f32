"""The life of one call: from a job of the work queue to its one end.

    receive → (taken over?) → attempt → frames … → Finish | Failure → terminal event → ack

How the end goes out is told in `workers/endings.py`, what a job means that another worker had
before in `workers/redelivery.py`.
"""

import asyncio
import logging
import random
from contextlib import aclosing

import msgspec

from ledger.blobs import BlobGone, Blobs
from ledger.connection import Connection
from ledger.log import Ledger
from ledger.publisher import Publisher, Refused, Unresolved
from ledger.reader import Unreadable
from schemas import subjects
from schemas.call import Call, decode_call
from schemas.config import QueueConfig
from schemas.errors import ErrorInfo
from schemas.frames import End, Failure, Finish, Timings, encode_parts
from schemas.ids import Clock
from schemas.usage import Cost, Usage
from workers.causes import (
    ADMISSION_EXPIRED,
    BUG,
    CANCELLED,
    DEADLINE,
    STOPPING,
    body_gone,
    queue_full,
    unknown_provider,
)
from workers.client_keys import ClientKeys, KeyUnusable
from workers.costs import cost_at
from workers.endings import Endings
from workers.holding import HoldRefused, Holds, charges_budgets
from workers.moving import hand_back, move
from workers.providers.base import Ask, AttemptFailed, Provider, StreamEnd, estimate_usage
from workers.puller import Job
from workers.recording import Recorder
from workers.redelivery import LOOK_AGAIN, Takeover, expired
from workers.retry import MAX_TRIES_OF_NETWORK, backoff, fits, tries
from workers.running import Running, RunningCalls

log = logging.getLogger("nexus.worker")


class LostOwnership(Exception):
    """Too long since the queue last heard of us: the job may be another worker's by now.

    `asked` when a provider is at work for us, whose bill has to be recorded.
    """

    def __init__(self, *, asked: bool) -> None:
        super().__init__("the job may be another worker's")
        self.asked = asked


class Runner:
    """Runs the calls of this worker; one instance for all pools of the process."""

    def __init__(
        self,
        connection: Connection,
        publisher: Publisher,
        providers: dict[str, Provider],
        keys: ClientKeys,
        queue: QueueConfig,
        clock: Clock,
    ) -> None:
        self._connection = connection
        self._publisher = publisher
        ledger = Ledger(publisher, "worker")
        self._blobs = Blobs(connection, publisher)
        self._providers = providers
        self._keys = keys
        self._queue = queue
        self._clock = clock
        self.calls = RunningCalls(connection, queue, clock)
        self._endings = Endings(connection, publisher, ledger, self.calls, clock)
        self._recorder = Recorder(ledger, clock)
        self._holds = Holds(connection, ledger, clock)
        self._takeover = Takeover(
            connection, publisher, ledger, self._recorder, clock, self._endings.end
        )
        self._cancelled: dict[str, float] = {}

    async def run(self, job: Job) -> None:
        """One delivery of a job: returns when the call ended, moved on, or is not ours."""
        running = self._received(job)
        if running is None:
            return
        current = self.calls.get(running.call.id)
        if current is not None:
            self._adopt(current, job)
            return
        if not self.calls.owns(running):
            return
        self.calls.add(running)
        try:
            await self._run(running)
        except (Unresolved, Unreadable) as error:
            log.error(
                "call left to redelivery", extra={"call_id": running.call.id, "reason": str(error)}
            )
        finally:
            self.calls.remove(running)

    def _received(self, job: Job) -> Running | None:
        """The call of a job, to be run by this task; None when it cannot be read, for ever."""
        try:
            call = decode_call(job.data)
        except msgspec.DecodeError as error:
            log.error("unreadable job", extra={"work_seq": job.seq, "reason": str(error)})
            self._connection.publish(job.reply, b"+TERM")
            return None
        task = asyncio.current_task()
        assert task is not None
        return Running(call, job, self._queue.ack_wait, task)

    def cancel(self, call_id: str) -> None:
        """The client of a call went away: stop it here, or remember it for when it comes."""
        now = self._clock.monotonic()
        self._cancelled[call_id] = now
        running = self.calls.get(call_id)
        if running is not None and not running.cancelled and not running.ending:
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
        if job.delivery <= current.job.delivery + 1 and self.calls.owns(current):
            current.renew(job, self._queue.ack_wait)
        else:
            self._connection.publish(job.reply, LOOK_AGAIN)

    async def _run(self, running: Running) -> None:
        if self._takeover.concerns(running.job) and not await self._takeover.goes_on(running):
            return
        try:
            end = await self._outcome(running)
        except asyncio.CancelledError:
            if not running.cancelled:
                await self._hand_back(running)
                raise
            running.task.uncancel()
            end = self._failure(running, CANCELLED)
        if end is not None:
            running.ending = True
            await self._endings.end(running, end)

    async def _outcome(self, running: Running) -> End | None:
        """How the call ends, within its deadline; None when another worker or pool has it now."""
        call = running.call
        if call.id in self._cancelled:
            return self._failure(running, CANCELLED)
        if expired(call, running.job):
            return self._failure(running, ADMISSION_EXPIRED)
        left = (call.deadline_ns - self._clock.now_ns()) / 1e9
        try:
            async with asyncio.timeout(left):
                if call.body_ref:
                    running.body = await self._blobs.get(call.body_ref)
                return await self._follow_plan(running)
        except TimeoutError:
            late = msgspec.structs.replace(DEADLINE, provider=running.call.target.provider)
            return self._failure(running, late, cost_known=not running.asking)
        except LostOwnership as lost:
            return self._failure(running, DEADLINE, cost_known=False) if lost.asked else None
        except BlobGone as gone:
            return self._failure(running, body_gone(gone))
        except (KeyUnusable, HoldRefused) as refused:
            return self._failure(running, refused.info)
        except (Unresolved, Unreadable):
            raise
        except Exception:
            # Given back to the queue, it would fail the same way at every delivery.
            log.exception("call failed inside the worker", extra={"call_id": call.id})
            return self._failure(running, BUG, cost_known=False)

    async def _follow_plan(self, running: Running) -> End | None:
        """Tries the targets in order, each a few times, until one ends the call."""
        for at in range(running.call.at, len(running.call.plan)):
            if running.call.plan[at].pool != running.call.target.pool:
                return await self._move(running, at)
            end = await self._try_target(running, at)
            if end is not None:
                return end
        raise AssertionError("the last target of a plan always gives an end")

    async def _try_target(self, running: Running, at: int) -> End | None:
        """An end, good or bad; None when the next target of the plan may do better."""
        is_last = at == len(running.call.plan) - 1
        for attempt in range(1, MAX_TRIES_OF_NETWORK + 1):
            if not self.calls.owns(running):
                raise LostOwnership(asked=False)
            await self._hold(running, at)
            running.next_attempt(at)
            try:
                return await self._attempt(running)
            except AttemptFailed as failed:
                wait = backoff(attempt, failed.retry_after, random.random())
                left = tries(network=failed.network) - attempt
                again = failed.retryable and left > 0 and self._fits(running, wait)
                if running.index or not (again or (failed.falls_back and not is_last)):
                    return self._failure(running, failed.info, cost_known=failed.cost_known)
                await self._recorder.failed(running, failed)
                may_have_cost = not failed.cost_known and charges_budgets(running.call)
                running.attempt_recorded(may_have_cost=may_have_cost)
                if not again:
                    break
                await asyncio.sleep(wait)
        return None

    async def _hold(self, running: Running, at: int) -> None:
        """Takes the hold of a further attempt at target `at`, where the last may be used up."""
        call = msgspec.structs.replace(running.call, at=at)
        if not (call.hold_used and charges_budgets(call)):
            return
        running.next_attempt(at, counted=False)
        await self._holds.take(running.call, running.fence)
        running.call = msgspec.structs.replace(running.call, hold_used=False)
        if not self.calls.owns(running):
            raise LostOwnership(asked=False)

    def _fits(self, running: Running, wait: float) -> bool:
        return fits(wait, (running.call.deadline_ns - self._clock.now_ns()) / 1e9)

    async def _attempt(self, running: Running) -> Finish:
        call = running.call
        provider = self._providers.get(call.target.provider)
        if provider is None:
            raise AttemptFailed(unknown_provider(call.target), retryable=False, reached=False)
        ask = Ask(
            call_id=call.id,
            model=call.model,
            engine=call.target.engine,
            body=running.body,
            stream=call.stream,
            created=call.received_ns // 1_000_000_000,
            headers=call.headers,
            timeouts=call.target.timeouts,
            credential=self._keys.of_target(call),
        )
        running.asking = True
        if call.stream:
            return await self._stream(running, provider, ask)
        run = provider.embed if call.operation == "embeddings" else provider.complete
        answer = await run(ask)
        timings = self._timings(call, answer.first_byte, answer.sent)
        return await self._finish(running, answer.usage, answer.finish_reason, answer.body, timings)

    async def _stream(self, running: Running, provider: Provider, ask: Ask) -> Finish:
        """Relays deltas as they come; what arrived together leaves together."""
        call = running.call
        subject = subjects.resp(call.ingress, call.id)
        timings = Timings(total=0.0)
        async with aclosing(provider.stream(ask)) as pieces:
            async for piece in pieces:
                if isinstance(piece, StreamEnd):
                    total = self._recorder.since_received(call)
                    timings = msgspec.structs.replace(timings, total=total)
                    return await self._finish(
                        running, piece.usage, piece.finish_reason, piece.last, timings
                    )
                if not self.calls.owns(running):
                    running.text_bytes += piece.text_bytes
                    raise LostOwnership(asked=True)
                if timings.first_byte is None:
                    timings = self._timings(call, piece.first_byte, piece.sent)
                    self._recorder.streaming(running, timings)
                if sum(map(len, piece.parts)) > self._blobs.inline_limit:
                    parts_ref = await self._put(running, encode_parts(piece.parts))
                    self._connection.publish(subject, running.chunk(piece, parts_ref))
                elif piece.parts:
                    self._connection.publish(subject, running.chunk(piece))
        raise AssertionError("a provider's stream ends with StreamEnd or raises")

    async def _finish(
        self, running: Running, usage: Usage, finish_reason: str, body: bytes, timings: Timings
    ) -> Finish:
        call, reference = running.call, ""
        if len(body) > self._blobs.inline_limit:
            reference, body = await self._put(running, body), b""
        cost, price_id = cost_at(call.target, usage)
        return Finish(
            fence=running.fence,
            index=running.next_index(),
            event_id=self._clock.new_id(),
            time_ns=self._clock.now_ns(),
            provider=call.target.provider,
            engine=call.target.engine,
            usage=usage,
            cost=cost,
            price_id=price_id,
            timings=timings,
            attempts=call.attempts,
            finish_reason=finish_reason,
            body=body,
            body_ref=reference,
        )

    async def _put(self, running: Running, content: bytes) -> str:
        """Stores what the next frame cannot hold, apart from what other attempts have stored."""
        fence = running.fence
        name = f"{running.call.id}-{fence.job}-{fence.delivery}-{fence.attempt}-{running.index + 1}"
        return await self._blobs.put(name, content)

    def _failure(
        self,
        running: Running,
        info: ErrorInfo,
        *,
        cost_known: bool = True,
    ) -> Failure:
        """A bad end. What was streamed, or asked and then cancelled, is estimated; what a provider
        may have done without our seeing it has an unknown cost."""
        call = running.call
        usage: Usage | None = None
        cost: Cost | None = Cost() if cost_known else None
        price_id = ""
        if running.text_bytes or (running.cancelled and running.asking):
            usage = estimate_usage(running.body, running.text_bytes)
            cost, price_id = cost_at(call.target, usage)
        return Failure(
            fence=running.fence,
            index=running.next_index(),
            event_id=self._clock.new_id(),
            time_ns=self._clock.now_ns(),
            error=info,
            timings=Timings(total=self._recorder.since_received(call)),
            attempts=call.attempts,
            provider=call.target.provider,
            engine=call.target.engine,
            usage=usage,
            cost=cost,
            price_id=price_id,
            cancelled=info is CANCELLED,
        )

    async def _hand_back(self, running: Running) -> None:
        """This worker stops: a call that has shown nothing goes to another, a stream ends here."""
        if running.index:
            end = self._failure(running, STOPPING, cost_known=not running.asking)
            await self._endings.end(running, end)
        elif self.calls.owns(running):
            await self._return(running, all_recorded=not running.asking)

    async def give_back(self, job: Job) -> None:
        """A job that comes when it cannot be begun. What another worker may have done with it
        before stays unknown."""
        running = self._received(job)
        if running is not None:
            await self._return(running, all_recorded=not self._takeover.concerns(job))

    async def _return(self, running: Running, *, all_recorded: bool) -> None:
        await hand_back(self._connection, self._publisher, running, all_recorded=all_recorded)

    async def _move(self, running: Running, at: int) -> End | None:
        """The plan goes on in another pool; an end where that one takes no more."""
        if not self.calls.owns(running):
            raise LostOwnership(asked=False)
        try:
            await move(self._connection, self._publisher, running, at)
        except Refused as refused:
            running.next_attempt(at, counted=False)
            return self._failure(running, queue_full(running.call.target, refused))
        return None

    def _timings(self, call: Call, first_byte: float, sent: float) -> Timings:
        total = self._recorder.since_received(call)
        after_first = (self._clock.monotonic() - first_byte) * 1e3
        return Timings(
            total=total,
            first_byte=round(max(0.0, total - after_first), 3),
            network=round((first_byte - sent) * 1e3, 3),
        )
