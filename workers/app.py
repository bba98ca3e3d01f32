"""The worker role: FastStream carries its life and its short answers, a slot puller its calls.

Calls do not go through a FastStream subscriber: it would hold more jobs than it runs, and a job
that waits unstarted while its ack time runs out is run twice.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial

from faststream import FastStream
from nats.errors import ConnectionClosedError, ConnectionReconnectingError

from ledger.beats import Beats
from ledger.broker import broker
from ledger.connection import (
    BusRefused,
    Connection,
    Disconnected,
    Message,
    RequestTimeout,
)
from ledger.publisher import Publisher
from ledger.secret import ServerSecret
from ledger.streams import ensure, lane_slots
from ledger.target_states import StateFeed, TargetStates
from schemas import subjects
from schemas.config import Config
from schemas.ids import Clock
from workers.circuits import Circuits
from workers.client_keys import ClientKeys
from workers.http import Http
from workers.providers import make
from workers.providers.base import Provider
from workers.puller import Puller
from workers.run import Runner
from workers.slots import Slots

log = logging.getLogger("nexus.worker")

_HAND_BACK = 2.0
_CHECK_EVERY = 1.0
_STATES_WITHIN = 2.0


class Pools:
    """What this worker pulls from: two lanes for each of its pools."""

    def __init__(self, connection: Connection, runner: Runner, slots: dict[str, Slots]) -> None:
        self._connection = connection
        self._pullers: list[Puller] = []
        for pool, of_pool in slots.items():
            lanes = {
                lane: Puller(
                    connection,
                    pool,
                    lane,
                    lane_slots(of_pool.most, lane),
                    runner.run,
                    runner.give_back,
                    runner.calls.received_at,
                )
                for lane in subjects.LANES
            }
            of_pool.running = partial(_running_in, lanes)
            of_pool.on_change = partial(_resize, lanes, of_pool)
            self._pullers += lanes.values()

    def start(self) -> None:
        for puller in self._pullers:
            puller.start()

    async def watch(self) -> None:
        """Runs as long as the worker: sees to pull requests that nobody answers any more."""
        while True:
            await asyncio.sleep(_CHECK_EVERY)
            for puller in self._pullers:
                puller.check()

    async def drain(self, patience: float) -> None:
        """Take no more; let what runs finish for `patience` seconds, then hand back the rest."""
        for puller in self._pullers:
            puller.stop()
        with suppress(Disconnected, RequestTimeout):
            # What was on its way to us has come now, and goes back.
            await self._connection.flush()
        returning = {task for puller in self._pullers for task in puller.returning}
        left = {task for puller in self._pullers for task in puller.running}
        for timeout in (patience, _HAND_BACK):
            if left:
                _, left = await asyncio.wait(left, timeout=timeout)
            for task in left:
                task.cancel()
        if returning:
            await asyncio.wait(returning, timeout=_HAND_BACK)


def _running_in(lanes: dict[str, Puller]) -> int:
    return sum(len(puller.running) for puller in lanes.values())


def _resize(lanes: dict[str, Puller], slots: Slots) -> None:
    for lane, puller in lanes.items():
        puller.resize(lane_slots(slots.allowed, lane))


def create_worker(
    config: Config,
    pools: list[str] | None,
    clock: Clock,
    on_ready: Callable[[], None] | None,
    on_fatal: Callable[[str], None],
) -> FastStream:
    """The application of one worker process; `pools` narrows what it serves (default: all).

    When the bus refuses it for good it tells `on_fatal` why, and ends.
    """

    def fatal(reason: str) -> None:
        on_fatal(reason)
        app.exit()

    served = {
        name: slots for name, slots in config.pools().items() if pools is None or name in pools
    }
    bus = broker(config.bus, role="worker", on_fatal=fatal)

    async def pong(_: bytes) -> bytes:
        return b"pong"

    for pool in served:
        bus.subscriber(
            subjects.ping(pool), queue="workers", description=f"Is a worker of '{pool}' alive?"
        )(pong)

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        async with AsyncExitStack() as closing:
            connection = await Connection.connect(
                config.bus, name="worker", clock=clock, on_fatal=fatal
            )
            closing.push_async_callback(connection.drain)
            await ensure(connection, config)
            publisher = Publisher(connection, clock)
            http = Http(clock, sum(config.pools().values()))
            closing.push_async_callback(http.close)
            providers: dict[str, Provider] = {}
            for name, provider in config.providers.items():
                providers[name] = make(name, provider, http, clock)
                closing.push_async_callback(providers[name].close)
            keys = ClientKeys(ServerSecret(config.secret), config.providers)
            states = TargetStates()
            feed = StateFeed(connection, states, clock)
            circuits = Circuits(connection, publisher, config.breaker, states, clock)
            slots = {pool: Slots(pool, most, clock) for pool, most in served.items()}
            runner = Runner(
                connection, publisher, providers, keys, circuits, slots, config.queue, clock
            )
            connection.subscribe(
                subjects.CANCELS, lambda message: runner.cancel(message.subject.partition(".")[2])
            )
            connection.subscribe(subjects.RUNNING, lambda m: _answer_running(connection, runner, m))
            beats = Beats(connection, "worker", clock, lambda: len(runner.calls))
            work = Pools(connection, runner, slots)
            async with asyncio.TaskGroup() as background:
                tasks = [
                    background.create_task(feed.run()),
                    background.create_task(runner.calls.beat()),
                    background.create_task(work.watch()),
                    background.create_task(beats.run()),
                ]
                # A call must not go where all others no longer go.
                if not await feed.wait_loaded(_STATES_WITHIN):
                    log.warning("states of the targets not known yet")
                work.start()
                try:
                    yield
                finally:
                    await work.drain(config.drain)
                    for task in tasks:
                        task.cancel()

    async def after_startup() -> None:
        # Whoever asks for us from now on must find us: the subscriptions have to be there.
        await bus.connection.flush()
        log.info("worker ready", extra={"pools": sorted(served)})
        if on_ready is not None:
            on_ready()

    app = FastStream(bus, lifespan=lifespan, after_startup=[after_startup], logger=None)
    return app


def _answer_running(connection: Connection, runner: Runner, message: Message) -> None:
    """Says yes for a call that runs here and is still ours; silence is the other answer, also to
    our own question, and to one whose answer would not go to an inbox."""
    running = runner.calls.get(message.subject.partition(".")[2])
    asked_here = message.data == connection.inbox.encode()
    is_question = message.reply.startswith(subjects.INBOXES) and not asked_here
    if running is not None and is_question and runner.calls.owns(running):
        connection.publish(message.reply, b"yes")


async def run_worker(
    config: Config,
    pools: list[str] | None = None,
    *,
    clock: Clock = Clock(),  # noqa: B008
    on_ready: Callable[[], None] | None = None,
) -> None:
    """Serve calls until SIGTERM or SIGINT, then drain and return.

    Raises what Connection.connect and streams.ensure raise when the bus cannot be used at the
    start, and BusRefused when it no longer can.
    """
    troubles: list[str] = []
    try:
        await create_worker(config, pools, clock, on_ready, troubles.append).run()
    except* (ConnectionReconnectingError, ConnectionClosedError):
        log.warning("the bus was away while stopping")
    if troubles:
        raise BusRefused(troubles[0])
