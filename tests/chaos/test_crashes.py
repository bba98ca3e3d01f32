"""What is left after many kills under load: one end for each call, no hold, and sums that agree."""

import asyncio
import os
import random
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ledger.budgets import messages
from ledger.budgets.messages import BudgetState, StateAsk, States
from ledger.connection import Disconnected, NoResponders, RequestTimeout
from ledger.health import State
from schemas import subjects
from schemas.events import LedgerEvent, Outcome, RequestComplete, RequestStart
from tests.cluster import ROOT, Cluster, Role, until
from tests.ledger_facts import ends, open_calls
from tests.meter import Meter, words
from tests.steady_load import SteadyLoad

CHUNKS = 20
DEADLINE = 8.0
CLOSE_AFTER = 2.0
# Longer than an ingress trusts its leases without an answer, and shorter than it is in earnest.
EXPIRE_AFTER = 8.0
# A holder that was killed has its leases so long; what a governor did not hear is told again.
HELD_FOR = 60.0
QUEUE = {"ack_wait": 3.0, "in_progress_every": 0.5}
SETTINGS: dict[str, Any] = {
    "call_deadline": DEADLINE,
    "queue": QUEUE,
    "budgets": [
        {"scope": "global", "period": "total", "limit_usd": 1000.0, "hard_stop": True},
        {"scope": "key", "id": "*", "period": "total", "limit_usd": 1000.0, "hard_stop": True},
        {"scope": "user", "id": "*", "period": "total", "limit_usd": 1.0, "hard_stop": False},
    ],
}
SLOW_KILLS = int(os.environ.get("NEXUS_TEST_KILLS", "0"))
SEED = int(os.environ.get("NEXUS_TEST_SEED", "7"))

# Happens to a process or to the bus, which is away for so many seconds.
Crash = Callable[[float], Coroutine[Any, Any, None]]


class Crashes:
    """Kills one process after the other, in rounds of seeded dice, and starts each again.

    In a round of ten every process has its turn, the bus three times, and a worker sleeps once.
    """

    def __init__(self, cluster: Cluster, governors: Sequence[Role], seed: int) -> None:
        self.log: list[str] = []
        self._cluster = cluster
        self._dice = random.Random(seed)
        self._roles = [*cluster.ingresses, *cluster.workers, *governors]
        self._round: list[Crash] = []

    async def happen(self, kills: int) -> None:
        for _ in range(kills):
            await asyncio.sleep(self._dice.uniform(0.2, 1.0))
            await self._next()(self._dice.uniform(0.0, 0.8))

    def _next(self) -> Crash:
        if not self._round:
            kills = [partial(self._kill, role) for role in self._roles]
            self._round = [*kills, *[self._kill_bus] * 3, self._sleep]
            self._dice.shuffle(self._round)
        return self._round.pop()

    async def _kill(self, role: Role, away: float) -> None:
        self.log.append(role.name)
        await role.kill()
        await asyncio.sleep(away)
        await role.start()

    async def _kill_bus(self, away: float) -> None:
        self.log.append("bus")
        self._cluster.bus.kill()
        await asyncio.sleep(away)
        self._cluster.bus.start()

    async def _sleep(self, away: float) -> None:
        """A worker wakes when its jobs are another's."""
        sleeper = self._dice.choice(self._cluster.workers)
        self.log.append(f"{sleeper.name} sleeps")
        await sleeper.pause()
        await asyncio.sleep(QUEUE["ack_wait"] + away)
        sleeper.resume()


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(10, marks=pytest.mark.timeout(240)),
        pytest.param(
            SLOW_KILLS,
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(not SLOW_KILLS, reason="NEXUS_TEST_KILLS says how many"),
                pytest.mark.timeout(120 + 5 * SLOW_KILLS),
            ],
        ),
    ],
)
async def test_after_kills_under_load_every_call_has_one_end_and_all_sums_agree(
    tmp_path: Path, kills: int
) -> None:
    settings = {**SETTINGS, "data_dir": str(tmp_path / "data")}
    async with Cluster(tmp_path, workers=2, ingresses=2, settings=settings) as cluster:
        meter = Meter(CHUNKS, 0.03)
        cluster.upstream.script(meter)
        governors = [cluster.governor(CLOSE_AFTER, EXPIRE_AFTER) for _ in range(2)]
        await asyncio.gather(*(governor.start() for governor in governors))
        load = SteadyLoad(cluster, streams=4, asks=3, pause=0.1)
        crashes = Crashes(cluster, governors, SEED)
        await crashes.happen(kills)
        await load.stop()

        events = await all_ended(cluster)
        bills = meter.check(events)
        check_answers(load, events)
        print(f"{load.calls} calls, {bills}, {load.errors()}; killed: {' '.join(crashes.log)}")
        assert bills.good > load.calls / 4, "the gateway should have worked for much of the time"
        await check_governor(cluster)
        await cluster.role("analytics", "analytics").start()
        assert await verified(cluster) == 0, "ledger, database and governor differ"


async def verified(cluster: Cluster) -> int:
    """The exit code of `nexus ledger verify`, which waits for the database."""
    words = ["ledger", "verify", "--config", str(cluster.config)]
    own = {"PYTHONPATH": str(ROOT), "NEXUS_NATS_URL": cluster.bus.url, "ROLE_NAME": "verify"}
    verify = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "compose.cli", *words, env={**os.environ, **own}
    )
    return await verify.wait()


async def all_ended(cluster: Cluster) -> list[LedgerEvent]:
    """The ledger once the queue is empty and every call has its one end."""

    async def ended() -> list[LedgerEvent] | None:
        if await cluster.jobs():
            return None
        events = await cluster.events()
        return None if open_calls(events) else events

    try:
        events = await until(ended, DEADLINE + CLOSE_AFTER + 30.0)
    except AssertionError:
        left = open_calls(await cluster.events())
        raise AssertionError(f"{await cluster.jobs()} jobs left, open: {left}") from None
    found = Counter(event.call_id for event in ends(events))
    assert {call_id: count for call_id, count in found.items() if count > 1} == {}
    return events


def check_answers(load: SteadyLoad, events: Sequence[LedgerEvent]) -> None:
    """What clients saw is what the ledger says: whole answers ended well, and nothing is mixed."""
    by_app = {event.app: event for event in ends(events)}
    for name, stream in load.streams.items():
        assert stream.clear or stream.broken, f"{name}: {vars(stream)}"
        assert stream.texts == words(name, CHUNKS)[: len(stream.texts)], name
        if stream.done:
            assert stream.texts == words(name, CHUNKS), name
            assert isinstance(by_app[name], RequestComplete)
    for name, answer in load.answers.items():
        if answer is not None and answer.status_code == 200:
            assert answer.json()["choices"][0]["message"]["content"] == name
            assert isinstance(by_app[name], RequestComplete)
        elif answer is not None:
            assert set(answer.json()["error"]) >= {"message", "type", "code"}, name


async def check_governor(cluster: Cluster) -> None:
    """No call is open and nothing is held any more, and each account has spent what the ledger adds
    up to."""
    for ingress in cluster.ingresses:
        ingress.terminate()
    await asyncio.gather(*(ingress.ended() for ingress in cluster.ingresses))
    events = await cluster.events()
    accounts = {a for one in events if isinstance(one, RequestStart) for a in one.accounts}
    state = msgspec.json.decode(await asked(cluster, subjects.GOVERNOR_STATE, b""), type=State)
    assert state.open_calls == 0
    if not accounts:
        return
    budgets = await until(lambda: nothing_held(cluster), HELD_FOR, "for holds to go")
    spent = {one.account: one.spent_nano for one in budgets if one.account in accounts}
    assert spent == {account: charged(events, account) for account in accounts}


def charged(events: Sequence[LedgerEvent], account: str) -> int:
    """Nano-dollars that the ledger charges to an account, added up plainly."""
    return sum(
        event.cost_nano or 0
        for event in events
        if isinstance(event, Outcome) and account in event.accounts and not event.billed_to
    )


async def nothing_held(cluster: Cluster) -> tuple[BudgetState, ...] | None:
    answer = await asked(cluster, subjects.GOVERNOR_BUDGETS, messages.encode(StateAsk()))
    states: States = messages.decode_states(answer)
    return None if any(one.held_nano for one in states.budgets) else states.budgets


async def asked(cluster: Cluster, subject: str, question: bytes) -> bytes:
    """The governor's answer; asks again while none governs."""

    async def answer() -> bytes | None:
        try:
            return (await cluster.connection.request(subject, question, timeout=2.0)).data
        except (NoResponders, RequestTimeout, Disconnected):
            return None

    return await until(answer, 15.0, f"for {subject}")
