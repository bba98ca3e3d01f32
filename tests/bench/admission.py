"""What a whole admission costs an ingress: who asks, where it runs, what it may cost, its limits
and its budget. Beside a governor; no HTTP, and no call behind it."""

import asyncio
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import msgspec
import uvloop

from compose.nats_server import NatsServer
from ingress.auth import Authenticator, Headers
from ingress.budgeting import Budgeting
from ingress.calibration import Ratios
from ingress.dialects import openai
from ingress.gate import Gate
from ingress.lease_client import LeaseClient
from ingress.limits import Applying
from ingress.rating import Rating
from ingress.routing import Router
from ledger.access.configured import configured
from ledger.access.feed import Feed
from ledger.access.registry import Registry
from ledger.connection import Connection
from ledger.secret import ServerSecret
from schemas.access import BudgetTerms, LimitSettings
from schemas.catalog import Catalog
from schemas.config import BusConfig, Config, KeyConfig, ModelConfig, ProviderConfig
from schemas.ids import Clock
from tests.bench.stats import Spread, spread
from tests.governed_bus import governing

CALLS = 20_000
_WARM_UP = 1_000
_KEY = "nx-bench-key-0123456789abcdef0123456789"
_BODY = msgspec.json.encode(
    {
        "model": "m",
        "messages": [
            {"role": "system", "content": "You are a helpful assistant. " * 8},
            {"role": "user", "content": "Explain quantum computing in simple terms. " * 4},
        ],
        "temperature": 0.7,
        "max_tokens": 500,
    }
)


class Admission(msgspec.Struct):
    """Processor time of an ingress for one call in ns, with a key alone and with a budget and a
    limit on it, and how long the latter took."""

    plain_ns: float
    guarded_ns: float
    times: Spread | None


class _Done(NamedTuple):
    plain_ns: float
    guarded_ns: float
    times: list[int]


def measure(directory: Path, calls: int = CALLS) -> Admission:
    """One ingress, one call after the other."""
    done = asyncio.run(_measured(directory, calls))
    return Admission(done.plain_ns, done.guarded_ns, spread(done.times))


async def _measured(directory: Path, calls: int) -> _Done:
    server = NatsServer(directory / "nats")
    server.start()
    try:
        async with AsyncExitStack() as stack:
            # The bus of a governor in a test has no queues but those of its own configuration.
            governed = msgspec.structs.replace(_config(guarded=True), providers={}, models={})
            await stack.enter_async_context(governing(server, config=governed))
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.bench.admission",
                server.url,
                str(calls),
                stdout=asyncio.subprocess.PIPE,
            )
            output, _ = await process.communicate()
    finally:
        server.stop()
    if process.returncode:
        raise RuntimeError(f"the ingress of the admissions ended with {process.returncode}")
    return msgspec.msgpack.decode(output, type=_Done)


def _config(*, guarded: bool, url: str = "") -> Config:
    """One key; `guarded` with a budget and a limit that never refuse."""
    key = KeyConfig(key=_KEY, name="bench")
    if guarded:
        key = KeyConfig(
            key=_KEY,
            name="bench",
            budgets=(BudgetTerms(period="month", limit_usd=1e9),),
            limits=LimitSettings(requests_per_second=1e6, burst=1_000_000),
        )
    return Config(
        bus=BusConfig(url=url),
        keys={"bench": key},
        secret=("bench-secret-0123456789-0123456789",),
        providers={"acme": ProviderConfig(base_url="http://127.0.0.1:9/v1", api_key="k")},
        models={"m": ModelConfig(provider="acme", input_cost=1e-6, output_cost=2e-6)},
    )


class _Ingress:
    """The part of an ingress that a call passes before the ledger hears of it."""

    def __init__(self, config: Config, connection: Connection, clock: Clock) -> None:
        secret = ServerSecret(config.secret)
        registry = Registry(configured(config))
        self.leases = LeaseClient(connection, clock)
        feed = Feed(connection, registry, clock)
        applying = Applying(config, registry)
        self._keys = Authenticator(config, registry, feed, secret, None, clock)
        self._budgeting = Budgeting(self.leases, "UTC", clock, lambda _: None)
        self._clock = clock
        self._gate = Gate(
            config,
            self._keys,
            registry,
            secret,
            Router(config, Catalog.load(), clock),
            applying,
            Rating(applying, self.leases, clock),
            self._budgeting,
            Ratios(),
            "bench",
            clock,
        )

    async def admit(self, headers: Headers) -> int:
        """Lets one call in and out again; how long the way in took, in ns."""
        begun = time.perf_counter_ns()
        principal = await self._keys.authenticate(headers)
        request = openai.parse(_BODY)
        call_id = self._clock.new_id()
        entered = await self._gate.enter(principal, request, headers, call_id, self._clock.now_ns())
        took = time.perf_counter_ns() - begun
        entered.rated.release(0)
        self._budgeting.give_back(entered.taken)
        return took

    async def cpu_ns(self, calls: int, times: list[int]) -> float:
        """Processor time of one call, its way out and the leases' upkeep included."""
        headers: Headers = [(b"authorization", b"Bearer " + _KEY.encode())]
        for _ in range(_WARM_UP):
            await self.admit(headers)
        used = time.process_time_ns()
        for number in range(calls):
            times.append(await self.admit(headers))
            if number % 64 == 0:
                await asyncio.sleep(0)
        return (time.process_time_ns() - used) / calls


async def _run(url: str, calls: int) -> _Done:
    clock = Clock()
    found, times = list[float](), list[int]()
    for guarded in (False, True):
        config = _config(guarded=guarded, url=url)
        connection = await Connection.connect(config.bus, name="ingress")
        ingress = _Ingress(config, connection, clock)
        alive = asyncio.create_task(ingress.leases.run())
        times = list[int]()
        found.append(await ingress.cpu_ns(calls, times))
        alive.cancel()
        await ingress.leases.close()
        await connection.close()
    return _Done(found[0], found[1], times)


if __name__ == "__main__":
    _result = uvloop.run(_run(sys.argv[1], int(sys.argv[2])))
    sys.stdout.buffer.write(msgspec.msgpack.encode(_result))
