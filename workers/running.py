"""The calls this worker runs now, and whether it still owns them.

A worker owns a job until 0.8 of the ack time after its delivery or after the last in-progress that
the server answered. It may be paused at any moment, so every time is read before what it dates.
"""

import asyncio
from collections.abc import Coroutine, Iterator

import msgspec

from ledger.connection import Connection, Disconnected, NoResponders, RequestTimeout
from schemas import subjects
from schemas.call import Call
from schemas.config import QueueConfig
from schemas.frames import Chunk, Fence, encode_frame
from schemas.ids import Clock
from workers.providers.base import Deltas
from workers.puller import Job

OWNED_PART = 0.8
TICK = 0.25
_FLUSH_EVERY = 0.5
_TRIES_OF_ONE_WORKER = 1000


class Running:
    """One call while this worker runs it: its job, its frames, what it has streamed so far.

    `asking` from when a provider is asked until what came of it is recorded.
    """

    __slots__ = (
        "asking",
        "body",
        "call",
        "cancelled",
        "ending",
        "fence",
        "index",
        "job",
        "owned_until",
        "reported_at",
        "task",
        "text_bytes",
        "unconfirmed",
    )

    def __init__(self, call: Call, job: Job, ack_wait: float, task: asyncio.Task[None]) -> None:
        self.call = call
        self.body = call.body
        self.job = job
        self.task = task
        self.owned_until = job.received + OWNED_PART * ack_wait
        self.reported_at = job.received
        self.fence = Fence(job.seq, job.delivery, 0)
        self.index = 0
        self.text_bytes = 0
        self.unconfirmed: list[bytes] = []
        self.asking = False
        self.cancelled = False
        self.ending = False

    def next_attempt(self, at: int, *, counted: bool = True) -> None:
        """A further attempt, at target `at`: the next fence, frames from index 1 again. One that is
        not `counted` asks no provider."""
        attempts = self.call.attempts + (1 if counted else 0)
        self.call = msgspec.structs.replace(self.call, at=at, attempts=attempts)
        self.fence = Fence(self.job.seq, self.job.delivery, self.fence.attempt + 1)
        self.index = 0
        self.text_bytes = 0
        self.unconfirmed.clear()

    def attempt_recorded(self, *, may_have_cost: bool) -> None:
        """What came of the attempt under way is in the ledger."""
        self.asking = False
        if may_have_cost:
            self.call = msgspec.structs.replace(self.call, hold_used=True)

    def supersede(self, now_ns: int) -> None:
        """Ranks what follows above all that another worker may show of the same delivery, also one
        that went to it later than the last such worker."""
        age_ms = max(0, now_ns - self.job.stored_ns) // 1_000_000
        self.fence = self.fence._replace(attempt=_TRIES_OF_ONE_WORKER + age_ms)

    def renew(self, job: Job, ack_wait: float) -> None:
        """The same job was delivered again, to us: owned from that delivery on."""
        self.job = job
        self.owned_until = max(self.owned_until, job.received + OWNED_PART * ack_wait)

    def next_index(self) -> int:
        self.index += 1
        return self.index

    def chunk(self, deltas: Deltas, parts_ref: str = "") -> bytes:
        """The next chunk frame, kept until the server has surely seen it."""
        self.text_bytes += deltas.text_bytes
        parts = () if parts_ref else deltas.parts
        index = self.next_index()
        frame = encode_frame(Chunk(self.fence, index, parts, deltas.text_bytes, parts_ref))
        self.unconfirmed.append(frame)
        return frame


class RunningCalls:
    """All running calls of a worker, and the beat that keeps them: ticks, in-progress, flushes."""

    def __init__(self, connection: Connection, queue: QueueConfig, clock: Clock) -> None:
        self._connection = connection
        self._queue = queue
        self._clock = clock
        self._by_id: dict[str, Running] = {}
        self._tick = self._tick_before = clock.monotonic()
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Running]:
        return iter(list(self._by_id.values()))

    def get(self, call_id: str) -> Running | None:
        return self._by_id.get(call_id)

    def add(self, running: Running) -> None:
        self._by_id[running.call.id] = running

    def remove(self, running: Running) -> None:
        if self._by_id.get(running.call.id) is running:
            del self._by_id[running.call.id]

    def owns(self, running: Running) -> bool:
        return self._clock.monotonic() < running.owned_until

    def received_at(self) -> float:
        """When a message read now was delivered, at the earliest: the tick before the last.

        Whatever lay in the socket at that tick has been read since; a pause of the process shows as
        ticks that lie far apart, and the message may have come at any moment between them.
        """
        return self._tick_before

    async def beat(self) -> None:
        """Runs for as long as the worker: four ticks a second and what is due at them."""
        self._connection.on_reconnect(self._after_reconnect)
        flushed = self._clock.monotonic()
        while True:
            await asyncio.sleep(TICK)
            now = self._clock.monotonic()
            self._tick_before, self._tick = self._tick, now
            for running in self:
                if now - running.reported_at >= self._queue.in_progress_every:
                    self._report(running, now)
            if now - flushed >= _FLUSH_EVERY:
                flushed = now
                self._background(self._confirm())

    def _report(self, running: Running, now: float) -> None:
        """Tells the queue that the call is in progress. Only an owner may: a late in-progress is
        answered as well, even when the job is someone else's by now."""
        if now < running.owned_until:
            running.reported_at = now
            self._background(self._in_progress(running, now))

    def _background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _in_progress(self, running: Running, sent: float) -> None:
        try:
            await self._connection.request(running.job.reply, b"+WPI", timeout=1.0)
        except (NoResponders, RequestTimeout, Disconnected):
            return
        running.owned_until = max(running.owned_until, sent + OWNED_PART * self._queue.ack_wait)

    async def _confirm(self) -> None:
        """One round trip to the server: frames sent before it need not be kept for a resend."""
        marks = [(running, len(running.unconfirmed)) for running in self if running.unconfirmed]
        if not marks:
            return
        fences = [running.fence for running, _ in marks]
        try:
            await self._connection.flush(timeout=1.0)
        except (RequestTimeout, Disconnected):
            return
        for (running, mark), fence in zip(marks, fences, strict=True):
            if running.fence == fence:
                del running.unconfirmed[:mark]

    def _after_reconnect(self) -> None:
        """Sends again what the old connection may have lost; readers drop what they know."""
        now = self._clock.monotonic()
        for running in self:
            if now < running.owned_until:
                self._report(running, now)
                subject = subjects.resp(running.call.ingress, running.call.id)
                for frame in running.unconfirmed:
                    self._connection.publish(subject, frame)
