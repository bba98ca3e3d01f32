"""What the admission of a call was decided on, told by the ledger alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from analytics.accounts import ExplainParams, Explanation
from analytics.explanation import explain
from analytics.rows import Record
from compose import budget_views
from schemas import subjects
from schemas.access import Budget
from schemas.access_events import AccessEvent
from schemas.budget_events import (
    BudgetExceeded,
    HoldTaken,
    LeaseExpired,
    LeaseGranted,
    LeaseReturned,
    Movement,
)
from schemas.errors import NotFound
from schemas.event import Event, type_of
from schemas.events import Outcome, RequestStart, encode_event
from schemas.ids import Clock
from tests.sample_events import (
    NOON,
    attempt_failed,
    budget_removed,
    budget_set,
    complete,
    lost,
    rejected,
    start,
)
from tests.warehouse import config_for, drop, new_id, on_every_backend, warehouse

SHOP = "project:shop:month@2026-11-01.0"
# When every event of a governor here is from.
TOLD_NS = 1_795_224_448 * 10**9
ANA = "user:ana@example.com:day@2026-11-21.0"


def of_governor(kind: Any, **fields: Any) -> Event:
    event: Event = kind(event_id=new_id(), time="2026-11-21T01:27:28Z", v=1, **fields)
    return event


def moved(kind: Any, holder: str, **amounts: int) -> Event:
    named = {{"shop": SHOP, "ana": ANA}[name]: amount for name, amount in amounts.items()}
    return of_governor(kind, movements=(Movement(holder, f"{holder}.1", named),))


def _writer(event: Event) -> str:
    if isinstance(event, RequestStart | AccessEvent):
        return "ingress"
    return "worker" if isinstance(event, Outcome) and "lost" not in type_of(event) else "governor"


def ledger(*events: Event) -> list[Record]:
    return [
        Record(
            seq,
            subjects.ledger(_writer(event), event.project, type_of(event)),
            NOON // 1000,
            encode_event(event),
        )
        for seq, event in enumerate(events, 1)
    ]


async def explained(
    backend: str,
    directory: Path,
    records: list[Record],
    call_id: str = "c",
    configured: Mapping[str, Budget] = {},
) -> Explanation:
    config = config_for(backend, directory)
    async with warehouse(config) as house:
        await house.projection.add(records)
        found = await explain(ExplainParams(call_id), configured, house.reader, len(records))
    await drop(config)
    return found


def started(call_id: str, holder: str, hold: int, *accounts: str) -> Event:
    return start(call_id, event_id=new_id(), holder=holder, hold_nano=hold, accounts=accounts)


def ended(kind: Any, call_id: str, cost: int | None, *accounts: str, **fields: Any) -> Event:
    event: Event = kind(
        call_id, event_id=new_id(), cost_nano=cost, accounts=accounts, prompt_estimate=9, **fields
    )
    return event


def limited(limit: int, scope: Any = "project", id: str = "shop", period: Any = "month") -> Event:
    budget = Budget(scope=scope, id=id, period=period, limit_nano=limit)
    return budget_set(budget, event_id=new_id())


@on_every_backend
async def test_every_number_of_the_decision_is_that_of_the_moment_before_the_start(
    backend: str, tmp_path: Path
) -> None:
    end = ended(complete, "c", 60, SHOP, ANA)
    records = ledger(
        limited(500),
        limited(1_000),
        moved(LeaseGranted, "h1", shop=400, ana=300),
        moved(LeaseGranted, "h2", shop=150),
        started("before", "h1", 70, SHOP),
        ended(attempt_failed, "before", 5, SHOP),
        of_governor(HoldTaken, call_id="before", hold_nano=25),
        started("done", "h2", 40, SHOP),
        ended(complete, "done", 31, SHOP),
        ended(complete, "theirs", 8, SHOP, billed_to="client"),
        moved(LeaseReturned, "h2", shop=60),
        started("c", "h1", 90, SHOP, ANA),
        moved(LeaseGranted, "h1", shop=900),
        limited(3_000),
        started("later", "h1", 11, SHOP),
        ended(attempt_failed, "c", 4, SHOP, ANA),
        end,
    )
    found = await explained(backend, tmp_path, records)
    assert (found.start_seq, found.as_of_seq, found.holder, found.hold_nano) == (12, 17, "h1", 90)
    assert (found.model, found.plan, found.prompt_estimate) == ("gpt-4o", ("openai/x",), 9)
    assert [one.seq for one in found.events] == [12, 16, 17]
    assert bytes(found.events[-1].event) == encode_event(end)
    shop, ana = found.accounts
    assert (shop.account, shop.budget) == (SHOP, "project:shop:month")
    assert (shop.limit_nano, shop.hard_stop, shop.limit_seq) == (1_000, True, 2)
    assert (shop.spent_nano, shop.held_nano) == (36, 70 + 25)
    assert (shop.holder_nano, shop.leased_nano) == (330, 330 + 50)
    assert shop.remaining_nano == 1_000 - 36 - 95 - 380
    assert (shop.hold_nano, shop.cost_nano) == (90, 64)
    assert [(one.seq, one.request, one.amount_nano) for one in shop.moves] == [(3, "h1.1", 400)]
    assert (ana.limit_nano, ana.limit_seq, ana.remaining_nano) == (None, None, None)
    assert (ana.spent_nano, ana.held_nano, ana.holder_nano) == (0, 0, 300)


@on_every_backend
async def test_leases_of_a_holder_that_fell_silent_are_gone_and_its_holds_are_not(
    backend: str, tmp_path: Path
) -> None:
    records = ledger(
        moved(LeaseGranted, "silent", shop=100),
        started("open", "silent", 30, SHOP),
        of_governor(LeaseExpired, holder="silent"),
        started("c", "h1", 5, SHOP),
    )
    (shop,) = (await explained(backend, tmp_path, records)).accounts
    assert (shop.leased_nano, shop.held_nano, shop.holder_nano) == (0, 30, 0)


@on_every_backend
@pytest.mark.parametrize("removed", [False, True])
async def test_the_limit_is_the_configured_one_else_the_last_one_for_the_id_else_for_every_id(
    backend: str, removed: bool, tmp_path: Path
) -> None:
    events = [limited(7, "user", "*", "day"), limited(9, "user", "ana@example.com", "day")]
    if removed:
        events.append(budget_removed("user:ana@example.com:day", event_id=new_id()))
    records = ledger(*events, started("c", "h1", 5, ANA, SHOP))
    shop = Budget(scope="project", id="shop", period="month", limit_nano=77, hard_stop=False)
    found = await explained(backend, tmp_path, records, configured={shop.name: shop})
    ana, configured = found.accounts
    assert (ana.limit_nano, ana.limit_seq) == ((7, 1) if removed else (9, 2))
    assert (configured.limit_nano, configured.limit_seq, configured.hard_stop) == (77, None, False)


@on_every_backend
async def test_a_call_that_was_refused_has_its_events_and_no_accounts(
    backend: str, tmp_path: Path
) -> None:
    refused = rejected("c", event_id=new_id())
    subject = subjects.ledger("ingress", refused.project, type_of(refused))
    found = await explained(
        backend, tmp_path, [Record(1, subject, NOON // 1000, encode_event(refused))]
    )
    assert (found.start_seq, found.hold_nano, found.accounts) == (None, None, ())
    assert len(found.events) == 1
    again = msgspec.json.decode(msgspec.json.encode(found), type=Explanation)
    assert again.events[0].seq == 1


@on_every_backend
async def test_a_call_that_a_budget_refused_has_the_numbers_of_that_decision(
    backend: str, tmp_path: Path
) -> None:
    alone, together, last = (_id_at(TOLD_NS - 10**9), _id_at(TOLD_NS - 1), _id_at(TOLD_NS))
    numbers: dict[str, Any] = {
        "budget": "project:shop:month",
        "account": SHOP,
        "limit_nano": 100,
        "spent_nano": 60,
        "held_nano": 30,
    }
    first = of_governor(BudgetExceeded, call_id=alone, **numbers, needed_nano=11)
    second = of_governor(
        BudgetExceeded,
        call_id=last,
        **numbers,
        needed_nano=12,
        refused=2,
        earlier={together: 13},
    )
    records = [
        Record(
            seq, subjects.ledger("ingress", "", type_of(event)), NOON // 1000, encode_event(event)
        )
        for seq, event in enumerate((first, second), 1)
    ]
    for call_id, seq, needed, refused in (
        (alone, 1, 11, 1),
        (together, 2, 13, 2),
        (last, 2, 12, 2),
    ):
        found = await explained(backend, tmp_path / call_id, records, call_id)
        (one,) = found.refused_by
        assert (one.seq, one.account, one.needed_nano, one.together) == (seq, SHOP, needed, refused)
        assert (one.limit_nano, one.spent_nano, one.held_nano) == (100, 60, 30)
        assert (found.start_seq, found.accounts, len(found.events)) == (None, (), 1)
        told = msgspec.json.decode(msgspec.json.encode(found), type=budget_views.Explanation)
        lines = budget_views.explanation(told).splitlines()
        assert next(line.split() for line in lines if line.startswith(SHOP))[:5] == [
            SHOP, "$0.0000001", "$0.00000006", "$0.00000003", f"$0.0000000{needed}",
        ]  # fmt: skip


def _id_at(at_ns: int) -> str:
    return Clock(now_ns=lambda: at_ns).new_id()


async def test_a_call_that_nobody_knows_is_not_found(tmp_path: Path) -> None:
    records = ledger(ended(lost, "other", None))
    with pytest.raises(NotFound, match="No event up to sequence 1 is of a call 'c'"):
        await explained("embedded", tmp_path, records)
