"""A budget by its name: that of one id by way of `*`, and `nexus budget reset`."""

import asyncio
import os
import pty
import sys

from compose.nats_server import NatsServer
from tests.budget_desk import CONFIG, Pages, governed_pages, nexus, pages_at, spend
from tests.governed_bus import governing
from tests.ingress_doors import ADMIN


async def test_a_budget_for_every_id_is_shown_for_the_one_that_is_asked_for(
    nats_server: NatsServer,
) -> None:
    async with governed_pages(nats_server) as (pages, bus):
        seq = await spend(bus, 0.25)
        ana = await pages.get("/admin/budgets/user:ana@example.com:month")
        assert (ana["name"], ana["id"]) == ("user:ana@example.com:month", "ana@example.com")
        assert (ana["record"], ana["source"]) == ("user:*:month", "configuration")
        money = ("limit_usd", "spent_usd", "held_usd", "remaining_usd")
        assert [ana[name] for name in money] == [1.0, 0.25, 0.1, 0.65]
        assert ana["as_of_seq"] >= seq and ana["resets_at"] is not None
        header = (await pages.ask("GET", f"/admin/budgets/{ana['name']}")).headers
        assert int(header["x-nexus-ledger-seq"]) >= ana["as_of_seq"]
        bob = await pages.get("/admin/budgets/user:bob:month")
        assert (bob["record"], bob["spent_usd"]) == ("user:*:month", 0.0)
        daily = await pages.get("/admin/budgets/global:day")
        assert daily["record"] == daily["name"] == "global:day"
        for name in ("user:ana@example.com:week", "team:shop:week", "user:", "user:x", "global"):
            missing = await pages.ask("GET", f"/admin/budgets/{name}")
            assert (missing.status_code, missing.json()["error"]["code"]) == (
                404,
                "budget_not_found",
            )
        gone = await pages.ask("DELETE", "/admin/budgets/user:bob:month")
        assert gone.status_code == 404
        assert "no budget 'user:bob:month'; 'user:*:month' stands for it." in gone.text
        told = await nexus(pages, "show", "user:ana@example.com:month")
        assert "$0.25" in told and told.endswith("(as user:*:month has it)\n")
        assert "has it" not in await nexus(pages, "show", "global:day")


async def test_an_id_with_a_budget_of_its_own_does_not_go_by_the_one_for_every_id(
    nats_server: NatsServer,
) -> None:
    own = {"scope": "user", "id": "ana@example.com", "period": "month", "limit_usd": 7}
    async with governing(nats_server, config=CONFIG), pages_at(nats_server) as pages:
        assert (await pages.ask("POST", "/admin/budgets", json=own)).status_code == 200
        ana = await pages.get("/admin/budgets/user:ana@example.com:month")
        assert (ana["record"], ana["limit_usd"]) == ("user:ana@example.com:month", 7.0)
        assert ana["source"] == "ledger"


async def test_a_name_that_is_longer_than_any_id_shows_the_account_it_is_charged_to(
    nats_server: NatsServer,
) -> None:
    async with governing(nats_server, config=CONFIG), pages_at(nats_server) as pages:
        found = await pages.get(f"/admin/budgets/user:{'u' * 300}:month")
        assert found["id"].startswith("=h") and len(found["id"]) == 66
        assert found["spent_usd"] == 0.0


async def test_what_nobody_knows_now_is_said_to_be_unknown(nats_server: NatsServer) -> None:
    async with pages_at(nats_server) as pages:
        told = await nexus(pages, "show", "global:day")
        assert told.endswith("(what is spent is not known now: the governor does not answer)\n")
        assert "not known" not in await nexus(pages, "set", "project:x", "day", "1")


async def test_a_budget_is_reset_by_command(nats_server: NatsServer) -> None:
    async with governed_pages(nats_server) as (pages, bus):
        await spend(bus, 0.25)
        told = await nexus(pages, "reset", "project:shop:total", "--yes")
        assert told == "Budget project:shop:total counts from zero again: $3 left.\n"
        shop = await pages.get("/admin/budgets/project:shop:total")
        assert (shop["spent_usd"], shop["remaining_usd"]) == (0.0, 3.0)
        name = "user:ana@example.com:month"
        told = await nexus(pages, "reset", name, "--yes")
        assert told.startswith(f"Budget {name} counts from zero again: $1 left until 20")
        assert (await pages.get(f"/admin/budgets/{name}"))["spent_usd"] == 0.0
        assert (await pages.get("/admin/budgets/global:day"))["spent_usd"] == 0.25


async def test_a_reset_asks_first_and_does_nothing_without_a_yes(nats_server: NatsServer) -> None:
    async with governed_pages(nats_server) as (pages, bus):
        await spend(bus, 0.25)
        asked = await at_a_terminal(pages, b"n\n", "reset", "global:day")
        assert "Let budget global:day count from zero? Spent are $0.25. [y/N]" in asked
        assert (await pages.get("/admin/budgets/global:day"))["spent_usd"] == 0.25
        await at_a_terminal(pages, b"y\n", "reset", "global:day")
        assert (await pages.get("/admin/budgets/global:day"))["spent_usd"] == 0.0


async def test_a_reset_where_nobody_can_be_asked_needs_a_yes_and_a_name() -> None:
    nowhere = Pages("http://127.0.0.1:1")
    for arguments, said in (
        (("reset", "global:day"), "say --yes"),
        (("reset", "project:shop", "--yes"), "expected a name such as project:shop:month"),
        (("reset", "global:year", "--yes"), "expected a name such as project:shop:month"),
        (("reset", "global:x:day", "--yes"), "expected a name such as project:shop:month"),
    ):
        assert said in await refused(nowhere, *arguments)
    await nowhere.close()


async def at_a_terminal(pages: Pages, typed: bytes, *arguments: str) -> str:
    """What `nexus budget` asks of somebody who types this."""
    ours, theirs = pty.openpty()
    try:
        process = await run(pages, theirs, *arguments)
        os.write(ours, typed)
        async with asyncio.timeout(60):
            _, said = await process.communicate()
    finally:
        os.close(ours)
        os.close(theirs)
    return said.decode()


async def refused(pages: Pages, *arguments: str) -> str:
    """Why the command does not do it."""
    process = await run(pages, asyncio.subprocess.DEVNULL, *arguments)
    async with asyncio.timeout(60):
        out, said = await process.communicate()
    assert (process.returncode, out) == (2, b"")
    return said.decode()


async def run(pages: Pages, stdin: int, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "compose.cli", "budget", *arguments),
        env={**os.environ, "NEXUS_URL": pages.url, "NEXUS_TOKEN": ADMIN},
        stdin=stdin,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
