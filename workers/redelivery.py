"""What to do with a job that another worker may have had: read what it has shown, decide once.

| what the call's frames in RESP show | what happens |
|---|---|
| its worker still runs it | the job goes back to the queue for two seconds |
| an end | that end's terminal event, ack; the provider is not asked again |
| `Moved` by this job to another pool | the job is queued there, ack |
| it was handed back, nothing unrecorded was asked | a new attempt, where the plan had got to |
| chunks and no end | the stream ends with an error; the silent attempt is recorded, estimated |
| nothing | a new attempt; the silent one is recorded as abandoned, its cost unknown |
"""

from collections.abc import Awaitable, Callable

import msgspec

from ledger.connection import Connection, Disconnected, NoResponders, RequestTimeout
from ledger.log import Ledger
from ledger.publisher import Publisher
from ledger.reader import Unreadable, read_subject
from ledger.work import submit
from schemas import subjects
from schemas.call import Call
from schemas.events import message_id_of_end, terminal_event
from schemas.frames import (
    Chunk,
    Failure,
    Fence,
    Finish,
    Frame,
    Moved,
    Timings,
    decode_frame,
)
from schemas.ids import Clock
from schemas.usage import Cost
from workers.causes import WORKER_LOST
from workers.holding import charges_budgets
from workers.moving import moved
from workers.providers.base import estimate_usage
from workers.puller import Job
from workers.recording import Recorder
from workers.running import Running

_ANSWER_WITHIN = 0.25
_RETURN_WITHIN = 1.0
_QUEUED_WITHIN_NS = 10 * 1_000_000_000
LOOK_AGAIN = b'-NAK {"delay": 2000000000}'


def expired(call: Call, job: Job) -> bool:
    """Whether the call was admitted too long before its job was stored: whoever admitted it stood
    still in between, and may have lost what it held for the call. No worker runs such a job.

    Only the job that the ingress queued is looked at (`at` is 0): one that moved to another pool is
    a new message of a call that was begun in time, and a redelivery keeps the time of its message.
    """
    if not call.admitted_ns or call.at:
        return False
    return job.stored_ns - call.admitted_ns > _QUEUED_WITHIN_NS


class Takeover:
    """Decides what a delivery that may not be the first means for its call."""

    def __init__(
        self,
        connection: Connection,
        publisher: Publisher,
        ledger: Ledger,
        recorder: Recorder,
        clock: Clock,
        end: Callable[[Running, Failure], Awaitable[None]],
    ) -> None:
        self._connection = connection
        self._publisher = publisher
        self._ledger = ledger
        self._recorder = recorder
        self._clock = clock
        self._end = end
        self._connected_ns = clock.now_ns()
        self._all_back_at = 0.0
        connection.on_reconnect(self._on_reconnect)

    def _on_reconnect(self) -> None:
        self._connected_ns = self._clock.now_ns()
        self._all_back_at = self._clock.monotonic() + _RETURN_WITHIN

    def concerns(self, job: Job) -> bool:
        """Whether another worker may have had the job before.

        The queue counts deliveries, but a crash of the bus takes the last ones with it: a job that
        is older than our connection may come as the first delivery and still be the second.
        """
        return job.delivery > 1 or job.stored_ns < self._connected_ns

    async def goes_on(self, running: Running) -> bool:
        """True when the call needs a new attempt here; everything else is done on return."""
        job, call = running.job, running.call
        if await self._runs_elsewhere(call.id):
            self._connection.publish(job.reply, LOOK_AGAIN)
            return False
        if job.delivery == 1:
            running.supersede(self._clock.now_ns())
        frames = await self._frames(running)
        end = next((frame for frame in frames if isinstance(frame, Finish | Failure)), None)
        if end is not None:
            await self._ledger.append(terminal_event(call, end), message_id_of_end(call.id))
            self._connection.publish(job.reply, b"+ACK")
            return False
        moves = [
            frame for frame in frames if isinstance(frame, Moved) and frame.fence.job == job.seq
        ]
        away = next((move for move in moves if _leaves(call, move)), None)
        if away is not None:
            await submit(self._publisher, moved(call, away))
            self._connection.publish(job.reply, b"+ACK")
            return False
        chunks = [frame for frame in frames if isinstance(frame, Chunk)]
        if chunks:
            await self._end_broken_stream(running, chunks)
            return False
        await self._account_for_silence(running, moves)
        return True

    async def _account_for_silence(self, running: Running, returns: list[Moved]) -> None:
        """A worker that had the job since it was last handed back may have asked the provider."""
        job, accounted = running.job, 0
        if returns:
            running.call = moved(running.call, returns[-1])
            accounted = returns[-1].fence.delivery
        before = job.delivery - 1
        if before > accounted and not expired(running.call, job):
            call = running.call
            await self._recorder.abandoned(running, Fence(job.seq, before, 0), None)
            used = call.hold_used or charges_budgets(call)
            running.call = msgspec.structs.replace(call, attempts=call.attempts + 1, hold_used=used)

    async def _runs_elsewhere(self, call_id: str) -> bool:
        """Asks all other workers; only one that still owns the call answers. As long as they may
        be on their way back to a bus that was away, silence says nothing."""
        subject, asker = subjects.running(call_id), self._connection.inbox.encode()
        while True:
            try:
                await self._connection.request(subject, asker, timeout=_ANSWER_WITHIN)
            except (NoResponders, RequestTimeout):
                if self._clock.monotonic() >= self._all_back_at:
                    return False
            except Disconnected as error:
                raise Unreadable("nobody can be asked who runs the call") from error
            else:
                return True

    async def _frames(self, running: Running) -> list[Frame]:
        stored = await read_subject(
            self._connection,
            subjects.RESP,
            subjects.resp(running.call.ingress, running.call.id),
        )
        frames = [decode_frame(record.data) for record in stored]
        return sorted(frames, key=lambda frame: (frame.fence, frame.index))

    async def _end_broken_stream(self, running: Running, chunks: list[Chunk]) -> None:
        last = chunks[-1]
        shown = {chunk.index: chunk for chunk in chunks if chunk.fence == last.fence}
        usage = estimate_usage(running.body, sum(chunk.text_bytes for chunk in shown.values()))
        await self._recorder.abandoned(running, last.fence, usage)
        running.next_attempt(running.call.at)
        await self._end(
            running,
            Failure(
                fence=running.fence,
                index=running.next_index(),
                event_id=self._clock.new_id(),
                time_ns=self._clock.now_ns(),
                error=WORKER_LOST,
                timings=Timings(total=(self._clock.now_ns() - running.call.received_ns) / 1e6),
                attempts=running.call.attempts,
                provider=running.call.target.provider,
                engine=running.call.target.engine,
                cost=Cost(),
            ),
        )


def _leaves(call: Call, move: Moved) -> bool:
    """To another pool; a job that was handed back stays in its own."""
    return call.plan[move.at].pool != call.target.pool
