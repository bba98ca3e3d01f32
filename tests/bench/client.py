"""The load generator: a lean HTTP client that makes calls as a load says and checks every reply.

Run as its own process: `python -m tests.bench.client`. It reads a Job as one JSON line, opens its
connections and warms up, prints `ready`, waits for a line, runs, and prints the Outcome as JSON.
"""

import asyncio
import gc
import sys
import time
from array import array
from collections import Counter
from urllib.parse import urlsplit

import msgspec
import uvloop

from tests.bench import wire
from tests.bench.connection import Connection
from tests.bench.loads import Job, Load, Outcome, Target
from tests.bench.pacing import Closed, Source, Timetable
from tests.bench.reply import Reply
from tests.bench.stats import spread

GRACE = 15.0
"""Seconds that calls already under way may take after the time of a load is over."""


class Tally:
    """Adds up the replies of one run."""

    def __init__(self) -> None:
        self.good = 0
        self.faults: Counter[str] = Counter()
        self.first_fault = ""
        self._chunks = 0
        self._total = array("q")
        self._first = array("q")
        self._late = array("q")
        self._lag = array("q")

    def started(self, intended: int) -> None:
        """A call leaves now that was to leave at `intended`."""
        self._lag.append(time.monotonic_ns() - intended)

    def ended(self, reply: Reply, fault: str, now: int) -> None:
        """A reply is complete, or will never be."""
        if fault:
            self.faults[fault] += 1
            self.first_fault = self.first_fault or f"{fault}: {reply.excerpt()}"
            return
        self.good += 1
        self._chunks += len(reply.indexes)
        self._total.append(now - reply.intended)
        self._first.append(reply.first - reply.intended)
        self._late.extend(reply.late)

    def outcome(self, load: Load, seconds: float, cpu_ns: int) -> Outcome:
        """The sums, as the result of a run of `load`."""
        shape = wire.shape_of(load.model)
        streams = shape is not None and shape.chunks > 0
        return Outcome(
            calls=self.good + self.faults.total(),
            good=self.good,
            seconds=seconds,
            chunks=self._chunks if streams else 0,
            faults=dict(self.faults),
            first_fault=self.first_fault,
            cpu_ns=cpu_ns,
            total=spread(self._total),
            first=spread(self._first) if streams else None,
            late=spread(self._late) if streams else None,
            lag=spread(self._lag) if load.rate else None,
        )


class Generator:
    """The connections of one load, and what goes over them."""

    def __init__(self, load: Load, target: Target) -> None:
        shape = wire.shape_of(load.model)
        assert shape is not None, f"no model {load.model}"
        self._load = load
        self._chunks = shape.chunks
        address = urlsplit(target.url)
        self._address = (address.hostname or "", address.port or 80)
        self._request = wire.request(target.url, load.model, key=target.key, headers=target.headers)
        # Microseconds of the wall clock: no two runs ever use the same tag.
        self._tag = time.time_ns() // 1000
        self._connections = [Connection(self._ended) for _ in range(load.connections)]
        self._loop = asyncio.get_running_loop()
        self._openings: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Connect all connections; an OSError when the target does not listen."""
        await asyncio.gather(*(self._connect(connection) for connection in self._connections))

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections:
            connection.close()

    async def warm_up(self) -> None:
        """Make the load's warm-up calls and forget them."""
        until = time.monotonic_ns() + int(GRACE * 1e9)
        await self._drive(Closed(self._load.warmup, until), GRACE)

    async def run(self) -> Outcome:
        """Run the load once."""
        load = self._load
        cpu, started = time.process_time_ns(), time.monotonic_ns()
        if load.rate:
            count = load.calls or int(load.rate * load.seconds)
            starts = [started + int(n * 1e9 / load.rate) for n in range(count)]
            timetable = Timetable(count)
            pacing = asyncio.to_thread(self._pace, timetable, starts)
            await asyncio.gather(self._drive(timetable, load.seconds + GRACE), pacing)
        else:
            closed = Closed(load.calls or sys.maxsize, started + int(load.seconds * 1e9))
            await self._drive(closed, load.seconds + GRACE)
        seconds = (time.monotonic_ns() - started) / 1e9
        return self._tally.outcome(load, seconds, time.process_time_ns() - cpu)

    def _pace(self, timetable: Timetable, starts: list[int]) -> None:
        """Announce each start at its time, from a thread: the loop's timers only know whole ms."""
        for at in starts:
            time.sleep(max(0, at - time.monotonic_ns()) / 1e9)
            self._loop.call_soon_threadsafe(self._arrive, timetable, at)

    def _arrive(self, timetable: Timetable, at: int) -> None:
        timetable.arrive(at)
        if self._idle:
            self._next(self._idle.pop())

    async def _drive(self, source: Source, seconds: float) -> None:
        """Make the calls that `source` asks for, until it is spent and the last one has ended."""
        self._source = source
        self._tally = Tally()
        self._idle: list[Connection] = []
        self._finished = self._loop.create_future()
        for connection in self._connections:
            self._next(connection)
        await asyncio.wait([self._finished], timeout=seconds)
        for connection in self._connections:
            if connection.reply is not None:
                self._tally.ended(connection.reply, "unanswered", 0)
                connection.reply = None
                connection.close()

    def _next(self, connection: Connection) -> None:
        intended = self._source.due()
        if intended is None:
            self._idle.append(connection)
            all_idle = len(self._idle) == len(self._connections)
            if all_idle and self._source.spent() and not self._finished.done():
                self._finished.set_result(None)
        elif connection.open:
            self._ask(connection, intended)
        else:
            opening = self._loop.create_task(self._reopen(connection, intended))
            self._openings.add(opening)
            opening.add_done_callback(self._openings.discard)

    def _ask(self, connection: Connection, intended: int) -> None:
        self._tag += 1
        tag = wire.tag(self._tag)
        self._tally.started(intended)
        before, after = self._request
        connection.ask(before + tag + after, Reply(tag, self._chunks, intended))

    def _ended(self, connection: Connection, reply: Reply, fault: str, now: int) -> None:
        self._tally.ended(reply, fault, now)
        self._next(connection)

    async def _connect(self, connection: Connection) -> None:
        await self._loop.create_connection(lambda: connection, *self._address)

    async def _reopen(self, connection: Connection, intended: int) -> None:
        try:
            await self._connect(connection)
        except OSError:
            reply = Reply(b"", 0, intended)
            await asyncio.sleep(0.05)  # A refused connection must not become a busy loop.
            self._ended(connection, reply, "unreachable", 0)
        else:
            self._ask(connection, intended)


async def _main(job: Job) -> Outcome:
    generator = Generator(job.load, job.target)
    await generator.open()
    await generator.warm_up()
    gc.collect()
    gc.disable()
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        return await generator.run()
    finally:
        generator.close()


if __name__ == "__main__":
    order = msgspec.json.decode(sys.stdin.readline(), type=Job)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(msgspec.json.encode(runner.run(_main(order))).decode(), flush=True)
