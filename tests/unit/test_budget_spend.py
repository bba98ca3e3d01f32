"""What the accounts of calls were charged, by the rollup: always the plain sum of the ledger."""

import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics.asks import Scope
from analytics.migrate import SEGMENT
from analytics.rows import Record, row_of
from analytics.sql_run import USER_SQL, UserSql
from analytics.store import Store
from schemas import subjects
from schemas.budget_events import HoldTaken, LeaseGranted, LeaseReturned, Movement
from schemas.errors import InvalidRequest
from schemas.event import Event, type_of
from schemas.events import encode_event
from schemas.usage import Usage
from tests.ledger_fold import fold, projected, projected_spend, spent
from tests.sample_events import (
    NOON,
    attempt_abandoned,
    attempt_failed,
    attempt_late,
    cancelled,
    complete,
    failed,
    lost,
    rejected,
    start,
)
from tests.warehouse import Warehouse, config_for, new_id, record, warehouse

SHOP = "project:shop:month@2026-11-01.0"
ANA = "user:ana@example.com:day@2026-11-21.0"
ALL = "global:total@all.1"
ENDS: tuple[Any, ...] = (complete, failed, cancelled, rejected, lost)
ATTEMPTS: tuple[Any, ...] = (attempt_failed, attempt_abandoned, attempt_late)
MOVED = (Movement("h1", "r1", {SHOP: 500, ALL: 700}), Movement("h2", "r2", {SHOP: 90}))


def leased(kind: type[LeaseGranted] | type[LeaseReturned], **fields: Any) -> Event:
    return kind(event_id=new_id(), time="2026-11-21T01:27:28Z", v=1, **fields)


def of_governor(seq: int, event: Event) -> Record:
    subject = subjects.ledger("governor", event.project, type_of(event))
    return Record(seq, subject, NOON // 1000, encode_event(event))


def test_a_start_says_what_was_held_by_whom_and_in_which_accounts() -> None:
    held: dict[str, Any] = {"accounts": (SHOP, ANA), "holder": "h1", "hold_nano": 77}
    row = row_of(record(1, start("c", event_id=new_id(), **held)))
    assert row["parked"] == ""
    assert (row["accounts"], row["holder"], row["hold_nano"]) == ((SHOP, ANA), "h1", 77)


def test_an_end_says_what_was_expected_and_a_further_hold_how_much() -> None:
    end = complete("c", event_id=new_id(), accounts=(SHOP,), prompt_estimate=12)
    row = row_of(record(1, end))
    assert (row["accounts"], row["prompt_estimate"]) == ((SHOP,), 12)
    further = HoldTaken(event_id=new_id(), time="2026-11-21T01:27:28Z", v=1, hold_nano=5)
    assert row_of(of_governor(2, further))["hold_nano"] == 5


@pytest.mark.parametrize("kind", [LeaseGranted, LeaseReturned])
def test_a_movement_of_leases_names_the_accounts_that_it_moves_once_each(kind: Any) -> None:
    row = row_of(of_governor(1, leased(kind, movements=MOVED)))
    assert (row["parked"], row["accounts"]) == ("", (SHOP, ALL))


def test_a_hold_beyond_what_can_be_stored_is_parked() -> None:
    row = row_of(record(1, start("c", event_id=new_id(), hold_nano=2**63)))
    assert "hold_nano is out of range" in row["parked"]


async def test_each_account_of_an_event_is_charged_and_what_clients_paid_is_nobodys(
    house: Warehouse,
) -> None:
    dark: dict[str, Any] = {
        "usage": Usage(output=2),
        "usage_status": "estimated",
        "cost_nano": None,
    }
    events: list[Event] = [
        complete("a", event_id=new_id(), accounts=(SHOP, ANA), cost_nano=40),
        attempt_failed("b", event_id=new_id(), accounts=(SHOP,), cost_nano=3),
        complete("b", event_id=new_id(), accounts=(SHOP,), cost_nano=100, billed_to="client"),
        attempt_late("b", event_id=new_id(), accounts=(SHOP,), cost_nano=-2),
        failed("c", event_id=new_id(), accounts=(ANA,), **dark),
        complete("d", event_id=new_id(), cost_nano=9),
        lost("e", event_id=new_id(), accounts=(ALL, ALL)),
    ]
    history = [record(seq, event) for seq, event in enumerate(events, 1)]
    await house.projection.add(history)
    assert await projected_spend(house) == {SHOP: (41, 2, 0), ANA: (40, 2, 1), ALL: (0, 1, 0)}


async def test_leases_holds_and_parked_events_are_no_spend_and_no_line_of_the_statistics(
    house: Warehouse,
) -> None:
    end = complete("c", event_id=new_id(), accounts=(SHOP,), cost_nano=7)
    forged = subjects.ledger("ingress", "", type_of(end))
    records = [
        record(1, start("c", event_id=new_id(), accounts=(SHOP,), hold_nano=50)),
        of_governor(2, leased(LeaseGranted, movements=MOVED)),
        of_governor(3, leased(LeaseReturned, movements=MOVED)),
        Record(4, forged, NOON // 1000, encode_event(end)),
        record(5, end),
    ]
    await house.projection.add(records)
    assert await projected_spend(house) == {SHOP: (7, 1, 0)}
    assert await projected(house) == fold([(1, end)])


async def test_administrators_ask_for_it_by_sql_and_keys_cannot(house: Warehouse) -> None:
    ends = [
        complete(name, event_id=new_id(), accounts=(ANA,), cost_nano=1_500_000_000)
        for name in ("a", "b")
    ]
    await house.projection.add([record(1, ends[0]), record(1 + SEGMENT, ends[1])])
    store = Store(house.database, USER_SQL)
    sql = UserSql(store)
    found = await sql.run("select * from budget_spend", None, 2)
    row = dict(zip(found.columns, found.rows[0], strict=True))
    assert row == {
        "account": ANA,
        "budget": "user:ana@example.com:day",
        "cost_nano": 3_000_000_000,
        "cost_usd": 3,
        "requests": 2,
        "unpriced": 0,
    }
    with pytest.raises(InvalidRequest, match="use events or calls"):
        await sql.run("select * from budget_spend", Scope(key_id="key_a"), 2)
    with pytest.raises(InvalidRequest, match="another name"):
        await sql.run("with budget_spend as (select 1) select 1", Scope(key_id="key_a"), 2)
    own = await sql.run("select accounts from events", Scope(key_id="key_a"), 2)
    assert [list(row[0]) for row in own.rows] == [[ANA], [ANA]]
    await store.close()


def _history(chance: random.Random) -> list[tuple[int, Event]]:
    """A ledger over two segments: attempts, ends, second ends, and events stored again."""
    events: list[Event] = []
    for number in range(chance.randint(1, 8)):
        accounts = tuple(chance.sample((SHOP, ANA, ALL), chance.randint(0, 3)))
        for kind in (
            *chance.choices(ATTEMPTS, k=chance.randint(0, 2)),
            *chance.choices(ENDS, k=chance.choice((0, 1, 1, 1, 2))),
        ):
            events.append(
                kind(
                    f"c{number}",
                    event_id=new_id(),
                    accounts=accounts,
                    cost_nano=chance.choice((None, 0, 1, 20, 300, -4)),
                    usage_status=chance.choice(("reported", "estimated", "unknown")),
                    billed_to=chance.choice(("", "", "client")),
                )
            )
    chance.shuffle(events)
    again = chance.choices(events, k=min(2, len(events)))
    return list(enumerate([*events, *again], SEGMENT - len(events) // 2))


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32))
async def test_it_equals_a_plain_sum_in_any_order_batching_and_repetition(seed: int) -> None:
    chance = random.Random(seed)
    history = _history(chance)
    deliveries = history + chance.choices(history or [(1, lost("x"))], k=6 if history else 0)
    chance.shuffle(deliveries)
    with tempfile.TemporaryDirectory() as directory:
        async with warehouse(config_for("embedded", Path(directory))) as house:
            while deliveries:
                count = min(len(deliveries), chance.randint(1, 9))
                batch, deliveries = deliveries[:count], deliveries[count:]
                await house.projection.add([record(seq, event) for seq, event in batch])
            assert await projected_spend(house) == spent(history)
            last = chance.choice([seq for seq, _ in history] or [0])
            if history:
                await house.projection.drop_above(last)
            assert await projected_spend(house) == spent(one for one in history if one[0] <= last)
