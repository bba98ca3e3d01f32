"""Budgets as people see them over HTTP: how they stand, begin anew, and why a call was admitted."""

import json
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from compose.nats_server import NatsServer
from schemas.budget_events import BudgetExceeded, BudgetReset
from schemas.config import BusConfig, Config
from schemas.ids import rfc3339
from tests.budget_desk import (
    ANA_KEY,
    BOB_KEY,
    CONFIG,
    accounts_of_ana,
    governed_pages,
    nexus,
    pages_at,
    spend,
)
from tests.governed_bus import bus_at, governing, until
from tests.ingress_doors import ADMIN
from tests.sample_events import start
from tests.warehouse import child, new_id


def by_scope(stats: dict[str, Any]) -> dict[tuple[str, str | None], dict[str, Any]]:
    return {(one["scope"], one["id"]): one for one in stats["scopes"]}


async def test_a_key_sees_its_own_budgets_and_the_administrator_all(
    nats_server: NatsServer,
) -> None:
    async with governed_pages(nats_server) as (pages, bus):
        seq = await spend(bus, 0.25)
        stats = await pages.get("/budget/stats", ANA_KEY)
        assert stats["as_of_seq"] >= seq
        told = {name: stats[name] for name in ("daily_limit_usd", "spent_usd", "remaining_usd")}
        assert told == {"daily_limit_usd": 20.0, "spent_usd": 0.25, "remaining_usd": 19.65}
        scopes = by_scope(stats)
        assert list(scopes) == [
            ("global", None),
            ("project", "shop"),
            ("user", "ana@example.com"),
        ]
        assert scopes["project", "shop"] == {
            "scope": "project",
            "id": "shop",
            "period": "total",
            "limit_usd": 3.0,
            "spent_usd": 0.25,
            "held_usd": 0.1,
            "remaining_usd": 2.65,
            "resets_at": None,
            "hard_stop": False,
        }
        assert scopes["user", "ana@example.com"]["remaining_usd"] == 0.65
        # Midnight in Kolkata is half past six in the evening, UTC.
        assert scopes["global", None]["resets_at"].endswith("T18:30:00Z")
        bobs = by_scope(await pages.get("/budget/stats", BOB_KEY))
        assert list(bobs) == [("global", None), ("user", "bob")]
        assert bobs["user", "bob"]["spent_usd"] == 0.0
        everything = by_scope(await pages.get("/budget/stats"))
        assert {("team", "other"), ("user", "*"), ("user", "ana@example.com")} <= set(everything)
        assert (await pages.ask("GET", "/budget/stats", "nobody")).status_code == 401


async def test_what_is_overspent_leaves_nothing_and_no_less(nats_server: NatsServer) -> None:
    async with governed_pages(nats_server) as (pages, bus):
        await spend(bus, 4)
        shop = by_scope(await pages.get("/budget/stats", ANA_KEY))["project", "shop"]
        assert (shop["spent_usd"], shop["remaining_usd"]) == (4.0, 0.0)


async def test_a_reset_budget_counts_from_zero_and_the_ledger_says_who_did_it(
    nats_server: NatsServer,
) -> None:
    async with governed_pages(nats_server) as (pages, bus):
        await spend(bus, 0.25)
        daily = await pages.ask("POST", "/budget/reset")
        assert daily.status_code == 200, daily.text
        assert (daily.json()["scope"], daily.json()["period"]) == ("global", "day")
        assert (daily.json()["spent_usd"], daily.json()["remaining_usd"]) == (0.0, 20.0)
        stats = await pages.get("/budget/stats", ANA_KEY)
        assert (stats["spent_usd"], stats["daily_limit_usd"]) == (0.0, 20.0)
        assert by_scope(stats)["project", "shop"]["spent_usd"] == 0.25
        asked = {"scope": "project", "id": "shop", "period": "total"}
        shop = (await pages.ask("POST", "/budget/reset", json=asked)).json()
        assert (shop["id"], shop["spent_usd"], shop["held_usd"]) == ("shop", 0.0, 0.0)
        resets = [one for one in await bus.events() if isinstance(one, BudgetReset)]
        assert [(one.budget, one.epoch, one.by) for one in resets] == [
            ("global:day", 1, "admin"),
            ("project:shop:total", 1, "admin"),
        ]


REFUSED_RESETS = [
    (ANA_KEY, b"", 403, "admin_only"),
    (ADMIN, b'{"scope": "team", "id": "nobody", "period": "week"}', 404, "budget_not_found"),
    (ADMIN, b'{"scope": "team"}', 400, "invalid_value"),
    (ADMIN, b'{"id": "shop"}', 400, "invalid_value"),
    (ADMIN, b'{"period": "year"}', 400, "invalid_value"),
    (ADMIN, b'{"what": 1}', 400, "invalid_value"),
    (ADMIN, b"[", 400, "invalid_json"),
]


async def test_a_reset_that_cannot_be_done_says_why(nats_server: NatsServer) -> None:
    async with governing(nats_server, config=CONFIG), pages_at(nats_server) as pages:
        for key, body, status, code in REFUSED_RESETS:
            response = await pages.ask("POST", "/budget/reset", key, content=body)
            assert (response.status_code, response.json()["error"]["code"]) == (status, code), body


async def test_without_a_governor_limits_are_told_and_nothing_is_guessed(
    nats_server: NatsServer,
) -> None:
    async with pages_at(nats_server) as pages:
        stats = await pages.get("/budget/stats", ANA_KEY)
        assert (stats["daily_limit_usd"], stats["spent_usd"], stats["as_of_seq"]) == (
            20.0,
            None,
            None,
        )
        (*_, user) = stats["scopes"]
        assert (user["id"], user["limit_usd"], user["held_usd"]) == ("ana@example.com", 1.0, None)
        assert user["resets_at"] is not None
        (listed, *_) = (await pages.get("/admin/budgets"))["data"]
        assert (listed["limit_usd"], listed["spent_usd"], listed["as_of_seq"]) == (20.0, None, None)
        assert listed["resets_at"] is not None
        assert "the governor does not answer" in await nexus(pages, "list")
        reset = await pages.ask("POST", "/budget/reset")
        assert (reset.status_code, reset.json()["error"]["code"]) == (503, "governor_away")
        assert "retry-after" in reset.headers


async def test_the_administrators_list_says_how_each_budget_stands(
    nats_server: NatsServer,
) -> None:
    async with governed_pages(nats_server) as (pages, bus):
        seq = await spend(bus, 0.25)
        listed = {one["name"]: one for one in (await pages.get("/admin/budgets"))["data"]}
        daily = listed["global:day"]
        assert (daily["spent_usd"], daily["held_usd"], daily["remaining_usd"]) == (0.25, 0.1, 19.65)
        assert daily["as_of_seq"] >= seq
        assert daily["period_start"].endswith("T18:30:00Z")
        assert daily["period_end"] == daily["resets_at"]
        shop = await pages.get("/admin/budgets/project:shop:total")
        assert (shop["spent_usd"], shop["period_start"], shop["resets_at"]) == (0.25, None, None)
        assert listed["team:other:week"]["spent_usd"] == 0.0
        (ana,) = (await pages.get("/admin/budgets?scope=user&id=ana@example.com"))["data"]
        assert (ana["name"], ana["record"]) == ("user:ana@example.com:month", "user:*:month")
        assert (ana["limit_usd"], ana["spent_usd"]) == (1.0, 0.25)
        (every,) = (await pages.get("/admin/budgets?scope=user&id=*"))["data"]
        assert every["name"] == "user:*:month"
        assert (await pages.get("/admin/budgets?scope=team&id=nobody"))["data"] == []
        assert (await pages.get("/admin/budgets?scope=global&id=ana"))["data"] == []
        assert "does not answer" not in await nexus(pages, "list")
        lines = (await nexus(pages, "stats")).splitlines()
        told = next(line.split() for line in lines if line.startswith("project:shop:total"))
        assert told == ["project:shop:total", "$3", "$0.25", "$0.1", "$2.65", "soft"]
        assert "$0.25" in await nexus(pages, "show", "global:day")


async def test_a_call_is_explained_by_its_id_in_any_form(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        pages = await stack.enter_async_context(pages_at(nats_server))
        bus = await stack.enter_async_context(bus_at(nats_server.url))
        config = Config(
            data_dir=str(tmp_path),
            bus=BusConfig(url=nats_server.url_of("analytics")),
            budgets=CONFIG.budgets,
        )
        of_call: dict[str, Any] = {"accounts": accounts_of_ana(), "event_id": new_id()}
        refused = await bus.append(
            BudgetExceeded(
                event_id=new_id(),
                time=rfc3339(time.time_ns()),
                v=1,
                call_id="c-0",
                budget="global:day",
                account=accounts_of_ana()[0],
                limit_nano=20 * 10**9,
                spent_nano=19 * 10**9,
                needed_nano=2 * 10**9,
            )
        )
        seq = await bus.append(start("c-1", **of_call, holder="h", hold_nano=7))
        role = stack.enter_context(child(config))
        await role.ready()

        async def projected() -> bool:
            return (await pages.ask("GET", "/admin/calls/c-1/budget")).status_code == 200

        await until(projected)
        for form in ("c-1", "req_c-1", "chatcmpl-c-1"):
            found = await pages.get(f"/admin/calls/{form}/budget")
            assert (found["call_id"], found["start_seq"], found["hold_nano"]) == ("c-1", seq, 7)
            daily, shop, user = found["accounts"]
            assert daily["limit_nano"] == 20 * 10**9
            assert (shop["hard_stop"], user["limit_nano"]) == (False, 10**9)
            assert found["events"][0]["event"]["event_type"] == "model.request.start"
        (by,) = (await pages.get("/admin/calls/req_c-0/budget"))["refused_by"]
        assert (by["seq"], by["spent_nano"], by["needed_nano"]) == (refused, 19 * 10**9, 2 * 10**9)
        lines = (await nexus(pages, "explain", "c-0")).splitlines()
        assert [line.split()[1:5] for line in lines if line.startswith(accounts_of_ana()[0])] == [
            ["$20", "$19", "$0", "$2"]
        ]
        unknown = await pages.ask("GET", "/admin/calls/req_nobody/budget")
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "call_not_found")
        forbidden = await pages.ask("GET", "/admin/calls/c-1/budget", ANA_KEY)
        assert forbidden.status_code == 403
        told = await nexus(pages, "explain", "chatcmpl-c-1")
        assert "spent before" in told
        assert accounts_of_ana()[0] in told
        assert "$20 (hard)" in told
        assert "model.request.start" in told
        assert json.loads(await nexus(pages, "explain", "c-1", "--json"))["start_seq"] == seq
