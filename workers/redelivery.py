"""What to do with a job that another worker may have had: read what it has shown, decide once.

| what the call's frames in RESP show | what happens |
|---|---|
| its worker still runs it | the job goes back to the queue for two seconds |
| an end | that end's terminal event, ack; the provider is not asked again |
| `Moved` by this job | the job is queued in the next pool, ack |
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
from schemas.events import (
    AttemptAbandoned,
    billed_to,
    message_id_of_attempt,
    message_id_of_end,
    new_of_call,
    of_money,
    terminal_event,
)
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
from schemas.usage import Cost, Usage
from workers.causes import WORKER_LOST
from workers.costs import cost_at
from workers.providers.base import estimate_usage
from workers.puller import Job
from workers.running import Running

_ANSWER_WITHIN = 0.25
_RETURN_WITHIN = 1.0
LOOK_AGAIN = b'-NAK {"delay": 2000000000}'


class Takeover:
    """Decides what a delivery that may not be the first means for its call."""

    def __init__(
        self,
        connection: Connection,
        publisher: Publisher,
        ledger: Ledger,
        clock: Clock,
        end: Callable[[Running, Failure], Awaitable[None]],
    ) -> None:
        self._connection = connection
        self._publisher = publisher
        self._ledger = ledger
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
        moved = next((f for f in frames if isinstance(f, Moved) and f.fence.job == job.seq), None)
        if moved is not None:
            further = msgspec.structs.replace(call, at=moved.at, attempts=moved.attempts)
            await submit(self._publisher, further)
            self._connection.publish(job.reply, b"+ACK")
            return False
        chunks = [frame for frame in frames if isinstance(frame, Chunk)]
        if chunks:
            await self._end_broken_stream(running, chunks)
            return False
        if job.delivery > 1:
            await self._record_abandoned(running, Fence(job.seq, job.delivery - 1, 0), None)
            running.call = msgspec.structs.replace(call, attempts=call.attempts + 1)
        return True

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
        await self._record_abandoned(running, last.fence, usage)
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

    async def _record_abandoned(self, running: Running, fence: Fence, usage: Usage | None) -> None:
        """Closes the silent worker's attempt: estimated when it streamed, else unknown."""
        call = running.call
        cost, price_id = cost_at(call.target, usage)
        event = AttemptAbandoned(
            **new_of_call(call, self._clock),
            provider=call.target.provider,
            engine=call.target.engine,
            fence=fence,
            attempts=call.attempts + 1,
            stream=call.stream,
            operation=call.operation,
            billed_to=billed_to(call, call.target.provider),
            **of_money(usage, cost, price_id),
        )
        await self._ledger.append(event, message_id_of_attempt(call.id, fence))
