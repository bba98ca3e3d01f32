"""The life of one call: from a job of the work queue to its one end.

    receive → (taken over?) → attempt → frames … → Finish | Failure → terminal event → ack

What an attempt does is told in `workers/attempts.py`, when a target is passed over in
`workers/circuits.py`, how the end goes out in `workers/endings.py`, what a job means that another
worker had before in `workers/redelivery.py`.
"""

import asyncio
import logging
import random
from collections.abc import Mapping

import msgspec

from ledger.blobs import BlobGone, Blobs
from ledger.connection import Connection
from ledger.log import Ledger
from ledger.publisher import Publisher, Refused, Unresolved
from ledger.reader import Unreadable
from schemas.call import Call, decode_call
from schemas.config import QueueConfig
from schemas.errors import ErrorInfo
from schemas.frames import End, Failure, Timings
from schemas.ids import Clock
from schemas.usage import Cost, Usage
from workers.attempts import Attempts, LostOwnership
from workers.breakers import Passage
from workers.causes import (
    ADMISSION_EXPIRED,
    BUG,
    CANCELLED,
    DEADLINE,
    STOPPING,
    body_gone,
    queue_full,
    target_unavailable,
)
from workers.circuits import Circuits, Visit
from workers.client_keys import ClientKeys, KeyUnusable
from workers.costs import cost_at
from workers.endings import Endings
from workers.holding import HoldRefused, Holds, charges_budgets
from workers.moving import hand_back, move
from workers.providers.base import AttemptFailed, Provider, estimate_usage
from workers.puller import Job
from workers.recording import Recorder
from workers.redelivery import LOOK_AGAIN, Takeover, expired
from workers.retry import MAX_TRIES_OF_NETWORK, backoff, fits, tries
from workers.running import Running, RunningCalls
from workers.slots import Slots

log = logging.getLogger("nexus.worker")

_TIMERS_ARE_EARLY_NS = 20_000_000


class Runner:
    """Runs the calls of this worker; one instance for all pools of the process."""

    def __init__(
        self,
        connection: Connection,
        publisher: Publisher,
        providers: dict[str, Provider],
        keys: ClientKeys,
        circuits: Circuits,
        slots: Mapping[str, Slots],
        queue: QueueConfig,
        clock: Clock,
    ) -> None:
        self._connection = connection
        self._publisher = publisher
        ledger = Ledger(publisher, "worker")
        self._blobs = Blobs(connection, publisher)
        self._circuits = circuits
        self._slots = slots
        self._queue = queue
        self._clock = clock
        self.calls = RunningCalls(connection, queue, clock)
        self._endings = Endings(connection, publisher, ledger, self.calls, clock)
        self._recorder = Recorder(ledger, clock)
        self._holds = Holds(connection, ledger, clock)
        self._attempts = Attempts(
            connection, self._blobs, providers, keys, self.calls, self._recorder, clock
        )
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
        """Tries the targets in order, each a few times, until one ends the call; those that are
        left alone now are passed over."""
        plan = running.call.plan
        shut: list[tuple[int, Passage]] = []
        for at in range(running.call.at, len(plan)):
            passage = self._circuits.passage(running.call, plan[at])
            if not passage.seconds:
                if plan[at].pool != running.call.target.pool:
                    return await self._move(running, at)
                visit = await self._circuits.enter(running.call, plan[at])
                if isinstance(visit, Visit):
                    with visit:
                        end = await self._try_target(running, at, visit)
                    if end is not None:
                        return end
                    continue
                passage = visit
            shut.append((at, passage))
        at, passage = min(shut, key=lambda one: one[1].seconds)
        running.next_attempt(at, counted=False)
        unavailable = target_unavailable(plan[at], passage.reason, passage.seconds)
        return self._failure(running, unavailable)

    async def _try_target(self, running: Running, at: int, visit: Visit) -> End | None:
        """An end, good or bad; None when a further target of the plan may do better."""
        for attempt in range(1, MAX_TRIES_OF_NETWORK + 1):
            if not self.calls.owns(running):
                raise LostOwnership(asked=False)
            await self._hold(running, at)
            running.next_attempt(at)
            began = self._clock.monotonic()
            try:
                end = await self._attempts.make(running, visit)
            except AttemptFailed as failed:
                wait = backoff(attempt, failed.retry_after, random.random())
                left = 0 if visit.is_probe else tries(network=failed.network) - attempt
                again = failed.retryable and left > 0 and self._fits(running, wait)
                visit.failed(failed, began=began, again=again)
                self._throttle(running.call, failed)
                again = again and not self._shut(running, at)
                goes_on = again or (failed.falls_back and self._has_onward(running, at))
                if running.index or not goes_on:
                    return self._failure(running, failed.info, cost_known=failed.cost_known)
                await self._recorder.failed(running, failed)
                may_have_cost = not failed.cost_known and charges_budgets(running.call)
                running.attempt_recorded(may_have_cost=may_have_cost)
                if not again:
                    break
                await asyncio.sleep(wait)
            except asyncio.CancelledError:
                if self._ran_out(running, began):
                    visit.ran_out(began)
                raise
            else:
                visit.answered()
                self._slots[running.call.target.pool].answered()
                return end
        return None

    def _throttle(self, call: Call, failed: AttemptFailed) -> None:
        """Fewer calls at once where our own rate is limited, not that of a client's key or a quota
        that is used up."""
        is_own = call.target.provider not in call.credentials
        if failed.info.status == 429 and failed.retryable and is_own:
            self._slots[call.target.pool].refused()

    def _shut(self, running: Running, at: int) -> bool:
        return self._circuits.passage(running.call, running.call.plan[at]).seconds > 0

    def _has_onward(self, running: Running, at: int) -> bool:
        """Whether a target behind this one may be asked now."""
        return any(not self._shut(running, next) for next in range(at + 1, len(running.call.plan)))

    def _ran_out(self, running: Running, began: float) -> bool:
        """Whether an attempt that was cut short is one that its target let hang."""
        waited = self._clock.monotonic() - began
        return (
            not running.cancelled
            and not running.index
            and self._clock.now_ns() >= running.call.deadline_ns - _TIMERS_ARE_EARLY_NS
            and waited >= running.call.target.timeouts.first_byte
        )

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
