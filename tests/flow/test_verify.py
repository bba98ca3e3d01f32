"""`nexus ledger verify`: ledger, database and governor told apart, or told to be equal."""

import asyncio
import json
import os
import random
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from compose.nats_server import NatsServer
from ledger.budgets.messages import StateAsk, States, decode_states, encode
from schemas import subjects
from schemas.access import Budget
from schemas.config import BusConfig, Config
from schemas.event import Event
from tests.governed_bus import Bus, bus_at, governing
from tests.ledger_fold import spent
from tests.sample_events import (
    NOON,
    attempt_failed,
    attempt_late,
    budget_set,
    cancelled,
    complete,
    failed,
    start,
)
from tests.warehouse import Child, child, new_id, warehouse

ROOT = Path(__file__).parents[2]
OURS = ("NEXUS_", "GATEWAY_", "UNIFIED_GATEWAY_", "ADMIN_TOKEN", "CONFIG_PATH", "PORT")
SHOP = "project:shop:total@all.0"
ANA = "user:ana@example.com:total@all.0"
OLD = "user:ana@example.com:day@2026-01-01.0"
BUDGETS = [
    Budget(scope="project", id="shop", period="total", limit_nano=10**9),
    Budget(scope="user", id="ana@example.com", period="total", limit_nano=10**9),
]


class Result(NamedTuple):
    """How the command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads(self.out)
        return report


async def verify(folder: Path, *arguments: str, **env: str) -> Result:
    """The command in a process of its own, as a person runs it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "compose.cli", "ledger", "verify", *arguments),
        cwd=folder,
        env={**kept, "PYTHONPATH": str(ROOT), **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Result(process.returncode, out.decode(), err.decode())


def analytics(server: NatsServer, directory: Path) -> Config:
    return Config(data_dir=str(directory), bus=BusConfig(url=server.url_of("analytics")))


def history(chance: random.Random) -> list[Event]:
    """Calls that all ended, some of them twice, and what budgets they are of."""
    events: list[Event] = [budget_set(one, event_id=new_id()) for one in BUDGETS]
    for number in range(40):
        accounts = tuple(chance.sample((SHOP, ANA, OLD), chance.randint(0, 3)))
        known: dict[str, Any] = {"call_id": f"call-{number}", "accounts": accounts}
        events.append(start(**known, event_id=new_id(), holder="gone", hold_nano=9_000))
        for kind in (
            *chance.choices((attempt_failed, attempt_late), k=chance.randint(0, 2)),
            *chance.choices((complete, failed, cancelled), k=chance.choice((1, 1, 1, 2))),
        ):
            cost = chance.choice((None, 0, 1, 123_456, -7))
            billed = chance.choice(("", "", "client"))
            events.append(kind(**known, event_id=new_id(), cost_nano=cost, billed_to=billed))
    return events


async def append(server: NatsServer, *events: Event) -> int:
    async with bus_at(server.url) as bus:
        return await bus.append(*events)


async def projecting(stack: AsyncExitStack, config: Config) -> Child:
    role = stack.enter_context(child(config))
    await role.ready()
    return role


async def test_all_that_agree_are_told_to_be_equal_to_the_nano_dollar(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    events = history(random.Random(7))
    last = await append(nats_server, *events)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(governing(nats_server))
        await projecting(stack, analytics(nats_server, tmp_path / "data"))
        result = await verify(tmp_path, "--json", NEXUS_NATS_URL=nats_server.url)
        assert (result.code, result.err) == (0, ""), result
        report = result.report
        assert (report["equal"], report["differences"]) == (True, [])
        assert report["seq"] >= last
        assert (report["running"], report["overdue"]) == ([], [])
        plain = spent(enumerate(events, 1))
        told = {one.pop("account"): one for one in report["accounts"]}
        for account in (SHOP, ANA, OLD):
            nano = plain[account][0]
            assert nano != 0
            assert told[account] == {
                "ledger_nano": nano,
                "events_nano": nano,
                "rollup_nano": nano,
                "governor_nano": None if account == OLD else nano,
                "equal": True,
            }
        table = await verify(tmp_path, NEXUS_NATS_URL=nats_server.url)
        assert table.code == 0
        assert "Everything is equal." in table.out
        assert SHOP in table.out


async def test_more_budgets_than_one_answer_holds_are_all_compared(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    accounts = [f"user:u{number}:total@all.0" for number in range(3_500)]
    every = Budget(scope="user", id="*", period="total", limit_nano=10**9)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(governing(nats_server))
        await projecting(stack, analytics(nats_server, tmp_path / "data"))
        await append(nats_server, budget_set(every, event_id=new_id()))
        for first in range(0, 3_500, 100):
            named = tuple(accounts[first : first + 100])
            call = f"call-{first}"
            end = complete(call, event_id=new_id(), accounts=named, cost_nano=1 + first)
            await append(nats_server, start(call, event_id=new_id(), accounts=named), end)
        bus = await stack.enter_async_context(bus_at(nats_server.url))
        pages = [await states(bus, "")]
        while (after := pages[-1].next) is not None:
            pages.append(await states(bus, after))
        assert [len(page.budgets) for page in pages] == [3_000, 501]
        names = [state.budget for page in pages for state in page.budgets]
        assert len(set(names)) == 3_501
        result = await verify(tmp_path, "--json", NEXUS_NATS_URL=nats_server.url)
        assert (result.code, result.report["differences"]) == (0, [])
        told = {one["account"]: one["governor_nano"] for one in result.report["accounts"]}
        assert [told[account] for account in accounts] == [
            1 + number // 100 * 100 for number in range(3_500)
        ]


async def states(bus: Bus, after: str) -> States:
    answer = await bus.connection.request(
        subjects.GOVERNOR_BUDGETS, encode(StateAsk(after=after)), timeout=10
    )
    return decode_states(answer.data)


async def test_a_wrong_rollup_is_told_and_left_as_it_is(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    config = analytics(nats_server, tmp_path / "data")
    ended = complete("c", event_id=new_id(), accounts=(SHOP,), cost_nano=50)
    await append(nats_server, start("c", event_id=new_id(), accounts=(SHOP,)), ended)
    async with warehouse(config) as house:
        await house.writer.command(
            f"insert into budget_spend values ('{SHOP}', 0, 51, 1, 0, {2**60})"
        )
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(governing(nats_server))
        await projecting(stack, config)
        for _ in range(2):
            result = await verify(tmp_path, "--json", NEXUS_NATS_URL=nats_server.url)
            assert result.code == 1
            (difference,) = result.report["differences"]
            assert SHOP in difference
            assert "the events in the database says $0.00000005" in difference
            assert "their rollup says $0.000000051" in difference
        table = await verify(tmp_path, NEXUS_NATS_URL=nats_server.url)
        assert table.code == 1
        assert "DIFFERENT" in table.out
        assert "1 difference:" in table.out


async def test_events_that_the_database_has_twice_or_otherwise_are_told(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    config = analytics(nats_server, tmp_path / "data")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(governing(nats_server))
        ended = complete("c", event_id=new_id(), accounts=(SHOP,), cost_nano=50)
        await append(nats_server, start("c", event_id=new_id(), accounts=(SHOP,)), ended)
        role = await projecting(stack, config)
        assert (await verify(tmp_path, NEXUS_NATS_URL=nats_server.url)).code == 0
        await role.terminate()
        async with warehouse(config) as house:
            await house.writer.command(
                "alter table events update cost_nano = 49 where cost_nano = 50 "
                "settings mutations_sync = 2"
            )
        await projecting(stack, config)
        report = (await verify(tmp_path, "--json", NEXUS_NATS_URL=nats_server.url)).report
        (difference,) = report["differences"]
        assert "the events in the database says $0.000000049" in difference
        assert "the ledger says $0.00000005," in difference


async def test_calls_without_an_end_are_running_until_they_are_overdue(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        # A governor that never closes a call: the overdue one stays.
        await stack.enter_async_context(governing(nats_server, close_after=1e9))
        now = 4_000_000_000 * 10**9
        await append(
            nats_server,
            start("runs", now, event_id=new_id()),
            start("overdue", NOON, NOON, event_id=new_id()),
        )
        await projecting(stack, analytics(nats_server, tmp_path / "data"))
        result = await verify(tmp_path, "--json", NEXUS_NATS_URL=nats_server.url)
        assert result.code == 1
        assert (result.report["running"], result.report["overdue"]) == (["runs"], ["overdue"])
        assert result.report["differences"] == ["call overdue has no end"]


async def test_what_could_not_be_compared_is_no_success(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    await append(nats_server, complete("c", event_id=new_id(), accounts=(SHOP,), cost_nano=5))
    result = await verify(tmp_path, "--json", "--wait", "1", NEXUS_NATS_URL=nats_server.url)
    assert result.code == 1
    assert [one.split(":")[0] for one in result.report["differences"]] == [
        "the governor does not answer, so it was not compared",
        "the database was not compared",
    ]
    (account,) = result.report["accounts"]
    assert (account["ledger_nano"], account["events_nano"], account["equal"]) == (5, None, True)


async def test_on_the_machine_of_the_gateway_it_needs_no_settings(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    await append(nats_server, complete("c", event_id=new_id(), accounts=(SHOP,), cost_nano=5))
    result = await verify(tmp_path, "--json", "--wait", "0", "--data-dir", str(tmp_path))
    assert result.report["events"] == 1


@pytest.mark.parametrize("user", ["worker", "monitor"])
async def test_who_may_not_read_the_ledger_is_told_so(
    nats_server: NatsServer, tmp_path: Path, user: str
) -> None:
    async with bus_at(nats_server.url):
        pass
    result = await verify(tmp_path, NEXUS_NATS_URL=nats_server.url_of(user))
    assert (result.code, result.out) == (1, "")
    assert "the ledger cannot be read" in result.err
    assert "Traceback" not in result.err


async def test_the_questions_of_administrators_are_refused_to_tenants(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        bus: Bus = await stack.enter_async_context(bus_at(nats_server.url))
        await projecting(stack, analytics(nats_server, tmp_path / "data"))
        for question, params in (
            ("totals", {"through": 0}),
            ("explain", {"call_id": "c"}),
            ("opening", {"part": "head", "kept": 1}),
        ):
            body = json.dumps({"params": params, "scope": {"key_id": "key_a"}}).encode()
            answer = await bus.connection.request(f"ask.{question}", body, timeout=10)
            assert json.loads(answer.data)["error"]["type"] == "permission_error"
