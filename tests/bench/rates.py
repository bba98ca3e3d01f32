"""Decisions on rates: what four ingresses admit in any second of one limit that they share, evenly
asked and nine times in ten at the same one. No HTTP, and no calls behind the decisions."""

import asyncio
import sys
import time
from array import array
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import uvloop

from compose.nats_server import NatsServer
from ingress.auth import Principal
from ingress.lease_client import LeaseClient
from ingress.limits import Applying
from ingress.rating import Rating
from ledger.access.registry import Registry
from ledger.connection import Connection
from schemas.access import Limits
from schemas.call import Tenant
from schemas.config import BusConfig, Config
from schemas.errors import RateLimited
from schemas.ids import Clock
from tests.bench.stats import Spread, spread
from tests.governed_bus import governing

LIMIT = 2000
BURST = 200
SECONDS = 5.0
OFFERED = 2 * LIMIT
EVEN = (0.25, 0.25, 0.25, 0.25)
UNEVEN = (0.9, 0.04, 0.03, 0.03)
_EVERY = 0.005
_SECOND_NS = 1_000_000_000
_SETTLED_NS = _SECOND_NS


class Admitted(msgspec.Struct):
    """What was found with one division of the load: admitted in a second once the burst was gone,
    the most in any second by the ingresses' own stamps, and how long those that passed took."""

    parts: tuple[float, ...]
    per_second: float
    most_in_a_second: int
    times: Spread | None
    let_through: int


class _Load(msgspec.Struct):
    """What one ingress is asked: `rate` calls in each of so many seconds."""

    url: str
    rate: float
    seconds: float


class _Done(msgspec.Struct):
    """When each call passed, how long it took in ns, and how many passed unasked."""

    stamps: list[int]
    times: list[int]
    let_through: int


def measure(directory: Path, seconds: float = SECONDS) -> list[Admitted]:
    """Evenly, then unevenly."""
    return [
        asyncio.run(admitted(directory / name, parts, seconds))
        for name, parts in (("even", EVEN), ("uneven", UNEVEN))
    ]


async def admitted(directory: Path, parts: tuple[float, ...], seconds: float) -> Admitted:
    """One ingress for each part of the load."""
    server = NatsServer(directory / "nats")
    server.start()
    try:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(governing(server, config=Config()))
            loads = [_Load(server.url, part * OFFERED, seconds) for part in parts]
            ingresses = await asyncio.gather(*map(_ready, loads))
            from_ns = time.time_ns() + _SECOND_NS // 2
            done = await asyncio.gather(*(_done(one, from_ns) for one in ingresses))
    finally:
        server.stop()
    stamps = sorted(stamp for one in done for stamp in one.stamps)
    end_ns = from_ns + int(seconds * 1e9)
    settled = [stamp for stamp in stamps if from_ns + _SETTLED_NS <= stamp < end_ns]
    return Admitted(
        parts=parts,
        per_second=len(settled) / (seconds - _SETTLED_NS / 1e9),
        most_in_a_second=most_within(stamps, _SECOND_NS),
        times=spread(nanoseconds for one in done for nanoseconds in one.times),
        let_through=sum(one.let_through for one in done),
    )


def most_within(stamps: list[int], span_ns: int) -> int:
    """The largest number of sorted stamps in any window of that length."""
    most = first = 0
    for last, stamp in enumerate(stamps):
        while stamp - stamps[first] >= span_ns:
            first += 1
        most = max(most, last - first + 1)
    return most


async def _ready(load: _Load) -> asyncio.subprocess.Process:
    """An ingress that waits to be told when to begin."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.bench.rates",
        msgspec.json.encode(load).decode(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    await process.stdout.readline()
    return process


async def _done(process: asyncio.subprocess.Process, from_ns: int) -> _Done:
    output, _ = await process.communicate(b"%d\n" % from_ns)
    if process.returncode:
        raise RuntimeError(f"an ingress of the rates' load ended with {process.returncode}")
    return msgspec.msgpack.decode(output, type=_Done)


async def _run(load: _Load) -> _Done:
    connection = await Connection.connect(BusConfig(url=load.url), name="ingress")
    clock = Clock()
    leases = LeaseClient(connection, clock)
    rating = Rating(Applying(Config(), Registry()), leases, clock)
    alive = asyncio.create_task(leases.run())
    limits = Limits(requests_per_second=LIMIT, burst=BURST)
    principal = Principal(Tenant(key_id="key_a"), limits=limits)
    stamps, times = array("q"), array("q")

    async def call() -> None:
        begun_ns = time.perf_counter_ns()
        try:
            await rating.admit(principal, principal.tenant, "m", 1, 2**62)
        except RateLimited:
            return
        stamps.append(time.time_ns())
        times.append(time.perf_counter_ns() - begun_ns)

    await connection.flush()
    print("ready", flush=True)
    from_ns = int(await asyncio.to_thread(sys.stdin.readline))
    await asyncio.sleep((from_ns - time.time_ns()) / 1e9)
    calls: list[asyncio.Task[None]] = []
    while (elapsed := (time.time_ns() - from_ns) / 1e9) < load.seconds:
        due = int(elapsed * load.rate) - len(calls)
        calls += [asyncio.create_task(call()) for _ in range(due)]
        await asyncio.sleep(_EVERY)
    await asyncio.gather(*calls)
    done = _Done(stamps.tolist(), times.tolist(), rating.let_through)
    alive.cancel()
    await leases.close()
    await connection.close()
    return done


if __name__ == "__main__":
    _result = uvloop.run(_run(msgspec.json.decode(sys.argv[1], type=_Load)))
    sys.stdout.buffer.write(msgspec.msgpack.encode(_result))
