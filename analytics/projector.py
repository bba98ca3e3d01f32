"""Follows the ledger and keeps the projection up to it: store, recompute, and acknowledge last."""

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from time import monotonic

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, StreamState
from nats.js.errors import NotFoundError

from analytics.projection import Projection
from analytics.rows import Record, microseconds
from analytics.store import StoreFailed
from schemas import subjects

log = logging.getLogger("nexus.analytics")

CONSUMER = subjects.PROJECTOR

_BATCH = 5_000
_FEW = 64
_SHORTEST_LINGER, _LONGEST_LINGER = 0.25, 1.0
_IDLE_SECONDS = 5.0
_TAKE_SECONDS = 0.05
_API_SECONDS = 2.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_SETTINGS = ConsumerConfig(
    durable_name=CONSUMER,
    description="projects the ledger into ClickHouse",
    ack_policy=AckPolicy.ALL,
    ack_wait=30.0,
    max_ack_pending=4 * _BATCH,
)


class Progress:
    """How far the projection reaches without a gap, whatever order the events come in."""

    def __init__(self, through: int) -> None:
        self.through = through
        self._ahead: set[int] = set()

    def add(self, sequences: Iterable[int]) -> None:
        self._ahead.update(seq for seq in sequences if seq > self.through)
        while self.through + 1 in self._ahead:
            self.through += 1
            self._ahead.remove(self.through)


class Projector:
    """One durable consumer of the ledger, from `run` until `stop`.

    Trouble with the bus or the database is waited out; then it begins again behind the last
    acknowledged event, so nothing has to be undone.
    """

    def __init__(self, projection: Projection, connection: Client, inbox: str) -> None:
        """`inbox` is the prefix of subjects that this role may be answered on."""
        self._projection = projection
        self._inbox = f"{inbox}.".encode()
        self._js = connection.jetstream(timeout=_API_SECONDS)
        self._progress = Progress(0)
        self._linger = _SHORTEST_LINGER
        self._is_behind = False
        self._pause = _FIRST_PAUSE
        self._stopping = False
        self._interrupt = asyncio.Event()

    @property
    def applied_seq(self) -> int:
        """Every event up to this sequence is in the tables and in the rollups."""
        return self._progress.through

    def stop(self) -> None:
        """Finish the batch in hand, then let `run` return."""
        self._stopping = True
        self._interrupt.set()

    def look_again(self) -> None:
        """Compare with the ledger before going on: the bus was away and may have lost its end."""
        self._interrupt.set()

    async def run(self) -> None:
        while not self._stopping:
            self._interrupt.clear()
            try:
                subscription = await self._begin()
                try:
                    await self._follow(subscription)
                finally:
                    with contextlib.suppress(NatsError):
                        await subscription.unsubscribe()
            except NotFoundError:
                if self._pause == _FIRST_PAUSE:
                    log.info("projector waits for the ledger", extra={"stream": subjects.LEDGER})
                await self._back_off()
            except (StoreFailed, NatsError, TimeoutError, OSError) as error:
                log.error(
                    "projector interrupted",
                    extra={"error": str(error) or type(error).__name__, "retry_in": self._pause},
                )
                await self._back_off()

    async def _begin(self) -> JetStreamContext.PullSubscription:
        """Make ledger, tables and consumer agree on where to go on."""
        ledger = (await self._js.stream_info(subjects.LEDGER)).state
        await self._forget_what_the_ledger_lost(ledger)
        consumer = await self._js.add_consumer(subjects.LEDGER, _SETTINGS)
        acked = consumer.ack_floor.stream_seq if consumer.ack_floor else 0
        stored = await self._projection.contiguous_from(max(ledger.first_seq, 1))
        # Acked but not stored: the database lost it. Stored but not acked: its rollups may be
        # missing. So the lower of the two, and nothing waits for a dead consumer's ack_wait.
        through = max(min(acked, stored), ledger.first_seq - 1)
        await self._js.reset_consumer(subjects.LEDGER, CONSUMER, through + 1)
        self._progress = Progress(through)
        log.info("projecting", extra={"after_seq": through, "ledger_seq": ledger.last_seq})
        return await self._js.pull_subscribe_bind(
            consumer=CONSUMER, stream=subjects.LEDGER, inbox_prefix=self._inbox
        )

    async def _follow(self, subscription: JetStreamContext.PullSubscription) -> None:
        while not self._interrupt.is_set():
            messages = await self._fetch(subscription, 1, _IDLE_SECONDS)
            if not messages:
                await self._js.consumer_info(subjects.LEDGER, CONSUMER)
                continue
            if not self._is_behind:
                await self._rest(self._linger)
            messages += await self._gathered(subscription)
            self._is_behind = len(messages) > _BATCH // 2
            await self._apply(messages)

    async def _gathered(self, subscription: JetStreamContext.PullSubscription) -> list[Msg]:
        """What has gathered on the bus, up to a batch: a fetch gives what is there, and what it
        could take in its time; it does not wait for its number to be reached."""
        gathered: list[Msg] = []
        while len(gathered) < _BATCH:
            more = await self._fetch(subscription, _BATCH - len(gathered), _TAKE_SECONDS)
            gathered += more
            if len(more) < _FEW:
                break
        return gathered

    async def _apply(self, messages: list[Msg]) -> None:
        began = monotonic()
        records = [_record(message) for message in messages]
        await self._projection.add(records)
        self._progress.add(record.seq for record in records)
        await self._ack(messages, records)
        self._pause = _FIRST_PAUSE
        # A batch costs much the same whatever its size: taking fewer of them while keeping up
        # leaves the machine to the calls.
        self._linger = min(max(10 * (monotonic() - began), _SHORTEST_LINGER), _LONGEST_LINGER)

    async def _ack(self, messages: list[Msg], records: list[Record]) -> None:
        """One ack for all that is stored without a gap: what never reached us comes again."""
        stored = [
            (record.seq, message)
            for record, message in zip(records, messages, strict=True)
            if record.seq <= self.applied_seq
        ]
        if stored:
            await max(stored, key=lambda pair: pair[0])[1].ack()

    async def _fetch(
        self, subscription: JetStreamContext.PullSubscription, most: int, seconds: float
    ) -> list[Msg]:
        """What arrives within the time; nothing when `stop` or `look_again` comes first."""
        fetch = asyncio.create_task(subscription.fetch(most, timeout=seconds))
        interrupt = asyncio.create_task(self._interrupt.wait())
        try:
            await asyncio.wait((fetch, interrupt), return_when=asyncio.FIRST_COMPLETED)
            return fetch.result() if fetch.done() else []
        except TimeoutError:
            return []
        finally:
            fetch.cancel()
            interrupt.cancel()
            await asyncio.gather(fetch, interrupt, return_exceptions=True)

    async def _rest(self, seconds: float) -> None:
        """Sleep, unless `stop` or `look_again` comes."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._interrupt.wait()

    async def _back_off(self) -> None:
        await self._rest(self._pause)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    async def _forget_what_the_ledger_lost(self, ledger: StreamState) -> None:
        """A power cut may cost the ledger its end, and what is appended then reuses sequences.

        Broker's time and body tell whether an event here is the ledger's. What is below the first
        sequence of the ledger was trimmed, not lost.
        """
        highest = await self._projection.highest()
        top = min(highest, ledger.last_seq)
        if highest <= ledger.last_seq and await self._is_equal(top, ledger):
            return
        low, high = min(max(ledger.first_seq, 1) - 1, top), top
        while low < high:
            middle = (low + high + 1) // 2
            if await self._is_equal(middle, ledger):
                low = middle
            else:
                high = middle - 1
        log.error(
            "ledger.truncated",
            extra={"last_equal_seq": low, "projected_seq": highest, "ledger_seq": ledger.last_seq},
        )
        await self._projection.drop_above(low)

    async def _is_equal(self, seq: int, ledger: StreamState) -> bool:
        if seq < max(ledger.first_seq, 1):
            return True
        kept = await self._js.get_msg(subjects.LEDGER, seq=seq, direct=True)
        if kept.time is None:
            raise NatsError(f"the ledger gave sequence {seq} without its time")
        stored = await self._projection.stored(seq)
        return stored == (microseconds(kept.time), kept.data or b"")


def _record(message: Msg) -> Record:
    """Sequence and time as the broker's ack subject has them, to the nanosecond and unrounded.

    A subject says who wrote an event, unless the event bears the mark of a copy (ledger/reader.py).
    """
    tokens = message.reply.split(".")
    domain = 0 if len(tokens) == 9 else 2
    return Record(
        seq=int(tokens[5 + domain]),
        subject="" if "Nats-Stream" in (message.headers or ()) else message.subject,
        stored_us=int(tokens[7 + domain]) // 1_000,
        data=message.data,
    )
