"""The governor role: folds the ledger in memory, answers from it, ends what nobody ended, and keeps
the snapshots of the key registry.

It needs no database: what it knows is the ledger's, and a checkpoint says where to begin. Two of
them at once do no harm: both would end a call by the same message id, which the ledger keeps once.
"""

import asyncio
import logging
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
from faststream import FastStream
from faststream.nats import NatsBroker, NatsResponse
from nats.errors import ConnectionClosedError, ConnectionReconnectingError

from ledger import checkpoint
from ledger.access.feed import Feed
from ledger.access.registry import Registry
from ledger.access.snapshot import Snapshots
from ledger.beats import EVERY, Beat, Processes, measure
from ledger.broker import broker as make_broker
from ledger.connection import BusRefused, Connection
from ledger.exposition import Exposition, Position
from ledger.fold import Fold
from ledger.health import State
from ledger.log import Follower, Ledger, last_sequence
from ledger.publisher import Publisher, Refused, Unresolved
from ledger.reader import Unreadable
from ledger.streams import ensure
from schemas import subjects
from schemas.config import Config
from schemas.events import RequestLost, RequestStart, message_id_of_end
from schemas.ids import Clock, rfc3339

log = logging.getLogger("nexus.governor")

CLOSE_AFTER = 90.0
_CHECK_EVERY = 1.0
_SAVE_EVERY = 5.0
_BEATS_WITHIN = EVERY + 0.5
_CATCH_UP_WITHIN = 1.0
_CLOSED_AT_ONCE = 256
_BREATHE_EVERY = 256
_COMPRESSED_ABOVE = 256 * 1024


class Governor:
    """The fold, the closer and the answers of one governor process."""

    def __init__(
        self,
        connection: Connection,
        publisher: Publisher,
        start: checkpoint.Checkpoint,
        close_after: float,
        clock: Clock,
    ) -> None:
        self._connection = connection
        self._publisher = publisher
        self._ledger = Ledger(publisher, "governor")
        self._close_after = close_after
        self._clock = clock
        self._id = clock.new_token()
        self._fold = Fold(start)
        self._follower = Follower(connection, start.fold_from)
        self._processes = Processes(clock, start.refusals)
        self._exposition = Exposition(self._fold.telemetry, self._processes, self._position)
        self._awaited_seq = 0
        self._reached = asyncio.Event()
        self._saved = start.seq, start.refusals.total
        self._beats_due = clock.monotonic() + _BEATS_WITHIN if start.refusals.total else 0.0

    async def follow(self) -> None:
        """Fold the ledger as it grows; runs until cancelled."""
        async for record in self._follower.records():
            self._fold.take(record)
            if record.seq >= self._awaited_seq:
                self._reached.set()
            if record.seq % _BREATHE_EVERY == 0:
                await asyncio.sleep(0)

    async def close_overdue(self) -> None:
        """End calls that nobody ended; runs until cancelled."""
        while True:
            await asyncio.sleep(_CHECK_EVERY)
            try:
                if self._overdue() and await self._is_up_to_date():
                    await self._close(self._overdue()[:_CLOSED_AT_ONCE])
            except Unreadable as error:
                log.warning("closer waits: %s", error)

    def _overdue(self) -> list[RequestStart]:
        return self._fold.open_calls.overdue(self._clock.now_ns(), self._close_after)

    async def _is_up_to_date(self) -> bool:
        """True when the fold has all that the ledger held a moment ago: an end that is not in it
        now is younger than the ledger's memory of message ids, so it cannot be written twice."""
        self._awaited_seq = await last_sequence(self._connection)
        self._reached.clear()
        if self._fold.seq < self._awaited_seq:
            try:
                async with asyncio.timeout(_CATCH_UP_WITHIN):
                    await self._reached.wait()
            except TimeoutError:
                return False
        return True

    async def _close(self, starts: list[RequestStart]) -> None:
        acks = [
            self._ledger.append_nowait(self._lost(start), message_id_of_end(start.call_id))
            for start in starts
        ]
        for start, ack in zip(starts, acks, strict=True):
            try:
                if not (await ack).duplicate:
                    log.warning("call lost", extra={"call_id": start.call_id, "model": start.model})
            except (Unresolved, Refused) as error:
                log.warning("call not closed: %s", error, extra={"call_id": start.call_id})

    def _lost(self, start: RequestStart) -> RequestLost:
        return RequestLost(
            event_id=self._clock.new_id(),
            time=rfc3339(self._clock.now_ns()),
            v=1,
            call_id=start.call_id,
            key_id=start.key_id,
            project=start.project,
            team=start.team,
            user=start.user,
            app=start.app,
            model=start.model,
            provider=start.provider,
            stream=start.stream,
            operation=start.operation,
        )

    async def keep_checkpoint(self) -> None:
        """Save where a successor goes on, every five seconds; runs until cancelled."""
        while True:
            await asyncio.sleep(_SAVE_EVERY)
            await self.save()

    async def save(self) -> None:
        """Save the checkpoint if there is news; without the bus it is left as it was."""
        refusals = self._processes.refusals()
        now = msgspec.structs.replace(self._fold.checkpoint(), refusals=refusals)
        if (now.seq, refusals.total) == self._saved:
            return
        try:
            await checkpoint.save(self._publisher, now, self._clock)
            self._saved = now.seq, refusals.total
        except (Unresolved, Refused) as error:
            log.warning("checkpoint not saved: %s", error)

    def state(self) -> State:
        """What is known now."""
        return State(
            seq=self._fold.seq,
            open_calls=len(self._fold.open_calls),
            providers=self._fold.health.states(self._clock.now_ns()),
        )

    def _position(self) -> Position:
        return Position(self._fold.seq, len(self._fold.open_calls))

    async def on_metrics(self, _: bytes) -> NatsResponse:
        """Prometheus text; compressed, with `Content-Encoding: deflate`, when it is long.

        No answer before everything is in it that a predecessor has shown: a counter that went down
        would look like a restart from zero.
        """
        await self._follower.caught_up.wait()
        await asyncio.sleep(self._beats_due - self._clock.monotonic())
        self._processes.fold(measure("governor", self._id, {}, 0))
        text = self._exposition.text()
        if len(text) <= _COMPRESSED_ABOVE:
            return NatsResponse(text)
        return NatsResponse(zlib.compress(text, 1), headers={"Content-Encoding": "deflate"})

    async def on_state(self, _: bytes) -> bytes:
        """A State as JSON."""
        return msgspec.json.encode(self.state())

    async def on_beat(self, body: bytes) -> None:
        """A sign of life of another process."""
        try:
            self._processes.fold(msgspec.json.decode(body, type=Beat))
        except msgspec.DecodeError as error:
            log.warning("beat not readable: %s", error)


def _serve(broker: NatsBroker, governor: Governor) -> None:
    """Who asks is answered by one governor; who beats is heard by all."""
    queue = "governor"
    broker.subscriber(subjects.GOVERNOR_METRICS, queue=queue)(governor.on_metrics)
    broker.subscriber(subjects.GOVERNOR_STATE, queue=queue)(governor.on_state)
    broker.subscriber(subjects.GOVERNOR_BEAT)(governor.on_beat)


async def run_governor(
    config: Config,
    clock: Clock = Clock(),  # noqa: B008
    on_ready: Callable[[], None] | None = None,
    *,
    close_after: float = CLOSE_AFTER,
) -> None:
    """Govern until SIGTERM or SIGINT, then save where the next one goes on and return.

    A call still open `close_after` seconds after its deadline is ended as lost. Raises what
    Connection.connect, streams.ensure and reader raise when the bus cannot be used at the start,
    and BusRefused when it no longer can.
    """
    troubles: list[str] = []

    def fatal(reason: str) -> None:
        troubles.append(reason)
        app.exit()

    broker = make_broker(config.bus, role="governor", on_fatal=fatal)

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        connection = await Connection.connect(
            config.bus, name="governor", clock=clock, on_fatal=fatal
        )
        await ensure(connection, config)
        publisher = Publisher(connection, clock)
        start = await checkpoint.load(connection)
        governor = Governor(connection, publisher, start, close_after, clock)
        registry = Registry()
        feed = Feed(connection, registry, clock)
        snapshots = Snapshots(connection, publisher, registry, clock)
        _serve(broker, governor)
        async with asyncio.TaskGroup() as background:
            tasks = [
                background.create_task(governor.follow()),
                background.create_task(governor.close_overdue()),
                background.create_task(governor.keep_checkpoint()),
                background.create_task(feed.run()),
                background.create_task(snapshots.keep()),
            ]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
        await governor.save()
        await connection.drain()

    async def after_startup() -> None:
        """Ready once the server has the subscriptions, so that nobody asks in vain after that."""
        await (await broker.connect()).flush()
        log.info("governor ready")
        if on_ready is not None:
            on_ready()

    app = FastStream(broker, lifespan=lifespan, after_startup=[after_startup], logger=log)
    try:
        await app.run(log_level=logging.DEBUG)
    except* (ConnectionReconnectingError, ConnectionClosedError):
        log.warning("the bus was away while stopping")
    if troubles:
        raise BusRefused(troubles[0])
