"""The governor role: folds the ledger in memory and answers from it; while it leads, it also grants
leases, ends what nobody ended, and keeps the snapshots.

It needs no database: what it knows is the ledger's, and a checkpoint says where to begin. Any
number of them may run: one leads, the others fold along and take over.
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
from ledger.access.configured import configured
from ledger.access.feed import Feed
from ledger.access.registry import Registry
from ledger.aside import Aside
from ledger.beats import EVERY, Beat, Processes, measure
from ledger.broker import broker as make_broker
from ledger.budgets.lessor import EXPIRE_AFTER
from ledger.budgets.once import AFTER_DEADLINE, KEPT_SECONDS
from ledger.closer import CLOSE_AFTER
from ledger.connection import BusRefused, Connection
from ledger.exposition import Exposition, Position
from ledger.fold import Fold
from ledger.governing import Reign
from ledger.health import State
from ledger.log import Follower
from ledger.publisher import Publisher, Refused, Unresolved
from ledger.starting import WORTH_ASKING, Start
from ledger.streams import ensure
from schemas import subjects
from schemas.config import Config
from schemas.ids import Clock

log = logging.getLogger("nexus.governor")

_BEATS_WITHIN = EVERY + 0.5
_BREATHE_EVERY = 256
_COMPRESSED_ABOVE = 256 * 1024


class Governor:
    """The fold and the answers of one governor process, whether it leads or not."""

    def __init__(
        self,
        connection: Connection,
        publisher: Publisher,
        start: checkpoint.Checkpoint,
        clock: Clock,
        kept: int = KEPT_SECONDS,
    ) -> None:
        self.id = clock.new_token()
        self.fold = Fold(start, kept)
        self._connection = connection
        self._publisher = publisher
        self._clock = clock
        self._follower = Follower(connection, start.fold_from)
        self._processes = Processes(clock, start.refusals)
        self._exposition = Exposition(
            self.fold.telemetry, self._processes, self._position, self.fold.targets
        )
        self._saved = start.seq, start.refusals.total
        self._lay: Aside | None = None
        self._beats_due = clock.monotonic() + _BEATS_WITHIN if start.refusals.total else 0.0

    async def follow(self) -> None:
        """Fold the ledger as it grows; runs until cancelled."""
        async for record in self._follower.records():
            self.fold.take(record)
            if record.seq % _BREATHE_EVERY == 0:
                await asyncio.sleep(0)

    async def save(self) -> None:
        """Save where a successor goes on if there is news; without the bus it is left as it was."""
        refusals = self._processes.refusals()
        if (self.fold.seq, refusals.total) == self._saved:
            return
        now = msgspec.structs.replace(await self.fold.checkpoint(), refusals=refusals)
        try:
            lies = await checkpoint.save(self._publisher, now, self._clock)
            self._saved = now.seq, refusals.total
            if lies is not None and self._lay is not None:
                await checkpoint.purge_before(self._connection, self._lay)
            self._lay = lies or self._lay
        except (Unresolved, Refused, ValueError) as error:
            log.warning("checkpoint not saved: %s", error)

    def state(self) -> State:
        """What is known now."""
        return State(
            seq=self.fold.seq,
            open_calls=len(self.fold.open_calls),
            providers=self.fold.health.states(self._clock.now_ns()),
        )

    def _position(self) -> Position:
        return Position(self.fold.seq, len(self.fold.open_calls))

    async def on_metrics(self, _: bytes) -> NatsResponse:
        """Prometheus text; compressed, with `Content-Encoding: deflate`, when it is long.

        No answer before everything is in it that a predecessor has shown: a counter that went down
        would look like a restart from zero.
        """
        await self._follower.caught_up.wait()
        await asyncio.sleep(self._beats_due - self._clock.monotonic())
        self._processes.fold(measure("governor", self.id, {}, 0))
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


class _App(FastStream):
    """Tells at once that it is to end, which it does itself only after it has started."""

    on_exit: Callable[[], None]

    def exit(self) -> None:
        self.on_exit()
        super().exit()


async def run_governor(
    config: Config,
    clock: Clock = Clock(),  # noqa: B008
    on_ready: Callable[[], None] | None = None,
    *,
    close_after: float = CLOSE_AFTER,
    expire_after: float = EXPIRE_AFTER,
    worth_asking: int = WORTH_ASKING,
) -> None:
    """Govern until SIGTERM or SIGINT, then save where the next one goes on and return.

    A call still open `close_after` seconds after its deadline is ended as lost; what a holder of
    leases has ends when it was silent for `expire_after` seconds. Without a checkpoint analytics is
    asked for the state of a ledger of `worth_asking` events. Raises what Connection.connect,
    streams.ensure and reader raise when the bus cannot be used at the start, and BusRefused when it
    no longer can, or when another governor took over.
    """
    troubles: list[str] = []
    ending = asyncio.Event()
    kept = int(config.call_deadline) + AFTER_DEADLINE

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
        start = await Start(connection, kept, ending, worth_asking).find()
        if start is None:
            yield
            await connection.drain()
            return
        governor = Governor(connection, publisher, start, clock, kept)
        registry = Registry(configured(config))
        feed = Feed(connection, registry, clock)
        reign = Reign(connection, publisher, governor, registry, feed, clock)
        _serve(broker, governor)
        async with asyncio.TaskGroup() as background:
            tasks = [
                background.create_task(governor.follow()),
                background.create_task(feed.run()),
                background.create_task(
                    reign.run(fatal, config.budget_zone, close_after, expire_after)
                ),
            ]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
        await reign.end()
        await connection.drain()

    async def after_startup() -> None:
        """Ready once the server has the subscriptions, so that nobody asks in vain after that."""
        await (await broker.connect()).flush()
        log.info("governor ready")
        if on_ready is not None:
            on_ready()

    app = _App(broker, lifespan=lifespan, after_startup=[after_startup], logger=log)
    app.on_exit = ending.set
    try:
        await app.run(log_level=logging.DEBUG)
    except* (ConnectionReconnectingError, ConnectionClosedError):
        log.warning("the bus was away while stopping")
    if troubles:
        raise BusRefused(troubles[0])
