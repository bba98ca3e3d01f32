"""Three deployments of one model, one of them ten times slower: calls sent to each in turn, and
calls that the gateway sends to the less loaded of two. At a fixed rate, through a whole gateway."""

import asyncio
import random
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import msgspec
from aiohttp import web

from analytics.latencies import bucket
from analytics.questions.targets import TargetFigures, TargetsReport
from ingress.balancing import Loads, choose
from ingress.measured import Measured
from ingress.target_states import HeardStates
from ingress.target_statistics import TargetStatistics
from ledger.target_states import TargetStates
from schemas.call import Target
from schemas.ids import Clock
from tests.bench import services, wire
from tests.bench.stats import percentile
from tests.finished import finish

SECONDS = 20.0
DEPLOYMENTS = 3
_PER_SECOND = 30
_USUAL, _SLOW = 0.1, 1.0
_BALANCED = "balanced"
_CHOICES = 100_000


class Way(msgspec.Struct):
    """How calls fared that were sent in one way; milliseconds, `slow` the part of the calls that
    the slow deployment got."""

    calls: int
    p50: float
    p95: float
    slow: float


class Balance(msgspec.Struct):
    """Both ways, and the processor time of one choice in ns."""

    in_turn: Way
    balanced: Way
    choice_ns: float


class _Deployment:
    """An upstream that answers after a while, between half and one and a half of its usual time."""

    def __init__(self, seconds: float, chance: random.Random) -> None:
        self.calls = 0
        self._seconds = seconds
        self._chance = chance

    async def serve(self, stack: AsyncExitStack) -> str:
        """Listen until the stack is left; the URL of the API."""
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        return f"http://{host}:{port}/v1"

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.calls += 1
        await asyncio.sleep(self._seconds * self._chance.uniform(0.5, 1.5))
        answer = wire.answer(wire.tag_in(body), time.monotonic_ns())
        return web.Response(body=answer, content_type="application/json")


def measure(directory: Path, seconds: float = SECONDS) -> Balance:
    """The balanced calls come first: nothing is known of any deployment then."""
    return asyncio.run(_measured(directory, seconds))


async def _measured(directory: Path, seconds: float) -> Balance:
    chance = random.Random(1)
    times = [_SLOW, *[_USUAL] * (DEPLOYMENTS - 1)]
    deployments = [_Deployment(one, chance) for one in times]
    async with AsyncExitStack() as stack:
        urls = [await one.serve(stack) for one in deployments]
        nexus = services.nexus(directory / "nexus", _configuration(urls))
        started = await asyncio.to_thread(nexus.__enter__)
        stack.push_async_callback(asyncio.to_thread, nexus.__exit__, None, None, None)
        session = await stack.enter_async_context(
            aiohttp.ClientSession(
                headers={"authorization": f"Bearer {services.KEY}"},
                connector=aiohttp.TCPConnector(limit=0),
            )
        )
        url = f"{started.service.url}/chat/completions"
        balanced = await _way(session, url, [_BALANCED], deployments, seconds)
        in_turn = [f"deployment-{number}" for number in range(DEPLOYMENTS)]
        return Balance(
            in_turn=await _way(session, url, in_turn, deployments, seconds),
            balanced=balanced,
            choice_ns=_choice_ns(),
        )


def _configuration(urls: list[str]) -> str:
    numbers = range(len(urls))
    providers = [
        f"  d{n}: {{dialect: openai, base_url: {urls[n]}, api_key: '${{BENCH_UPSTREAM_KEY}}'}}"
        for n in numbers
    ]
    models = [f"  deployment-{n}: {{provider: d{n}, engine: m}}" for n in numbers]
    targets = ", ".join(f"{{provider: d{n}, engine: m}}" for n in numbers)
    models += [f"  {_BALANCED}: {{targets: [{targets}]}}", f"  {wire.UNARY}: {{provider: d1}}"]
    return "\n".join(["providers:", *providers, "models:", *models, ""])


async def _way(
    session: aiohttp.ClientSession,
    url: str,
    models: list[str],
    deployments: list[_Deployment],
    seconds: float,
) -> Way:
    """Calls at a fixed rate, to the models in turn."""
    before = [one.calls for one in deployments]
    statuses = Counter[int]()

    async def call(model: str) -> float:
        begun = time.perf_counter()
        body = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
        async with session.post(url, json=body) as response:
            await response.read()
            statuses[response.status] += 1
        return (time.perf_counter() - begun) * 1e3

    calls: list[asyncio.Task[float]] = []
    begun = time.perf_counter()
    for number in range(round(seconds * _PER_SECOND)):
        await asyncio.sleep(begun + number / _PER_SECOND - time.perf_counter())
        calls.append(asyncio.create_task(call(models[number % len(models)])))
    took = sorted(await asyncio.gather(*calls))
    if set(statuses) != {200}:
        raise RuntimeError(f"calls of the balance were answered with {dict(statuses)}")
    asked = [one.calls - old for one, old in zip(deployments, before, strict=True)]
    return Way(len(took), percentile(took, 50), percentile(took, 95), asked[0] / sum(asked))


def _choice_ns() -> float:
    """Processor time of one choice among targets of which everything is known."""
    clock, chance = Clock(), random.Random(1)
    targets = [Target(f"d{number}", "m", "p") for number in range(DEPLOYMENTS)]
    statistics, loads = TargetStatistics(clock), Loads(clock)
    counts = {bucket(ms): 10.0 for ms in range(50, 2000, 10)}
    known = [
        TargetFigures(target.provider, target.engine, 900.0, first_byte=counts, total=counts)
        for target in targets
    ]
    statistics.report(TargetsReport(tuple(known), 1))
    for target in targets:
        loads.end(loads.begin(target), finish(target, 100.0))
    conditions = Measured(statistics, loads, HeardStates(TargetStates(), clock))
    draws = [(chance.random(), chance.random()) for _ in range(_CHOICES)]
    weights = [1] * DEPLOYMENTS
    used = time.process_time_ns()
    for draw in draws:
        choose(targets, weights, conditions, draw)
    return (time.process_time_ns() - used) / _CHOICES
