"""Pulls jobs of one lane from the work queue, never more than there are free slots for.

A standing window of pull requests keeps the next job one network hop away. What is asked for is
always backed by a free slot, so no job waits unstarted in this process while its ack time runs.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import partial

import msgspec

from ledger.connection import Connection, Message
from schemas import subjects

log = logging.getLogger("nexus.worker")

_EXPIRES = 30.0
_HEARTBEAT_EVERY = 5.0
_SILENCE = 3 * _HEARTBEAT_EVERY
_PAUSE = 0.25
_ON_THE_WAY = 5.0
_SECOND = 1_000_000_000
_HEARTBEAT = 100


class Job(msgspec.Struct):
    """One delivery of a call from the work queue.

    `seq` is its place in WORK, `delivery` counts from 1, `stored_ns` is when WORK stored it.
    `received` (monotonic seconds) is never later than the server's own time of the delivery, also
    when this process was paused in between: the owner's clock starts there.
    """

    data: bytes
    reply: str
    seq: int
    delivery: int
    stored_ns: int
    received: float

    @classmethod
    def of(cls, message: Message, received: float) -> "Job":
        """From `$JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<delivered>.<seq>....`"""
        tokens = message.reply.split(".")
        first = 2 if len(tokens) < 11 else 4
        return cls(
            data=message.data,
            reply=message.reply,
            delivery=int(tokens[first + 2]),
            seq=int(tokens[first + 3]),
            stored_ns=int(tokens[first + 5]),
            received=received,
        )


class _Pull(msgspec.Struct, omit_defaults=True):
    batch: int
    expires: int
    idle_heartbeat: int


class Puller:
    """One lane of one pool: `slots` jobs at once, each run by `run(job)` in a task of its own; what
    comes when it cannot be begun goes to `give_back(job)`. No `resize` makes it more than `slots`.
    """

    def __init__(
        self,
        connection: Connection,
        pool: str,
        lane: str,
        slots: int,
        run: Callable[[Job], Coroutine[None, None, None]],
        give_back: Callable[[Job], Coroutine[None, None, None]],
        received: Callable[[], float],
    ) -> None:
        self._connection = connection
        self._next = subjects.api("CONSUMER.MSG.NEXT", subjects.WORK, subjects.consumer(pool, lane))
        self._most = self._slots = slots
        self._run = run
        self._give_back = give_back
        self._received = received
        self._inbox = f"{connection.inbox}.pull-{subjects.consumer(pool, lane)}"
        self._window = 0
        self._generation = 0
        self._outstanding = 0
        self._heard = 0.0
        self._stopped = False
        self.running: set[asyncio.Task[None]] = set()
        self.returning: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        self._listen()
        self._connection.on_reconnect(self._ask_anew)
        self._heard = asyncio.get_running_loop().time()
        self._ask()

    def resize(self, slots: int) -> None:
        """Run no more than `slots` jobs at once from now on. What runs goes on, and so does what is
        on its way already."""
        self._slots = min(slots, self._most)
        if self._stopped:
            return
        if len(self.running) + self._outstanding <= self._slots:
            self._ask()
            return
        # A request cannot be taken back, but it dies with the subscription that it answers to.
        old = self._subscription
        old.fade()
        asyncio.get_running_loop().call_later(_ON_THE_WAY, old.unsubscribe)
        self._listen()
        self._ask_anew()

    def _listen(self) -> None:
        self._window += 1
        self._subscription = self._connection.subscribe(
            f"{self._inbox}.{self._window}.*", partial(self._on_message, self._window)
        )

    def check(self) -> None:
        """Called every now and then: asks anew after a silence of three heartbeats."""
        now = asyncio.get_running_loop().time()
        if self._outstanding and not self._stopped and now - self._heard > _SILENCE:
            log.warning("no heartbeat from the work queue, asking anew")
            self._ask_anew()

    def stop(self) -> None:
        """Take no more jobs; what runs goes on. Open requests die with the subscription, and a job
        that is on its way goes back at once."""
        self._stopped = True
        self._subscription.fade()

    def _ask_anew(self) -> None:
        """Open requests are gone: forget them, and whatever is still said of them."""
        self._generation += 1
        self._outstanding = 0
        self._heard = asyncio.get_running_loop().time()
        self._ask()

    def _ask(self) -> None:
        """Keep the window open: ask for all free slots once half of them are unasked for. Without
        a bus the reconnect asks: a request that waited for it would come on top."""
        if not self._connection.connected:
            return
        free = self._slots - len(self.running) - self._outstanding
        if self._stopped or free <= 0 or (self._outstanding and free * 2 < self._slots):
            return
        self._outstanding += free
        request = _Pull(
            batch=free,
            expires=int(_EXPIRES * _SECOND),
            idle_heartbeat=int(_HEARTBEAT_EVERY * _SECOND),
        )
        reply = f"{self._inbox}.{self._window}.{self._generation}"
        self._connection.publish(self._next, msgspec.json.encode(request), reply=reply)

    def _on_message(self, window: int, message: Message) -> None:
        self._heard = asyncio.get_running_loop().time()
        status = message.status
        if status == _HEARTBEAT:
            return
        if status:
            self._on_status(message)
            return
        if window == self._window:
            self._outstanding = max(0, self._outstanding - 1)
        if self._stopped or len(self.running) >= self._most:
            returning = asyncio.create_task(self._give_back(Job.of(message, self._received())))
            self.returning.add(returning)
            returning.add_done_callback(self.returning.discard)
            return
        task = asyncio.create_task(self._run(Job.of(message, self._received())))
        self.running.add(task)
        task.add_done_callback(self._on_done)
        self._ask()

    def _on_status(self, message: Message) -> None:
        """A request ended; `Nats-Pending-Messages` says how many of its jobs never came."""
        if message.subject != f"{self._inbox}.{self._window}.{self._generation}":
            return
        unserved = message.header("Nats-Pending-Messages")
        if unserved is None:
            log.warning("the work queue refused a pull", extra={"reason": str(message.headers)})
            asyncio.get_running_loop().call_later(_PAUSE, self._ask_anew)
            return
        self._outstanding = max(0, self._outstanding - int(unserved))
        self._ask()

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self.running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a call ended without an end", exc_info=task.exception())
        self._ask()
