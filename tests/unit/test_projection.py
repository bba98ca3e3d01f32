"""What the ledger becomes in the database: rows, rollups, repeats; each as often as one likes."""

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics import migrate
from analytics.migrate import SEGMENT
from analytics.projection import Projection
from analytics.projector import Progress
from analytics.rows import COLUMNS, Record, columns_of, row_of
from analytics.store import WRITING, Database, Store
from schemas import subjects
from schemas.errors import ErrorInfo
from schemas.event import Event
from schemas.events import Outcome, encode_event
from schemas.usage import Usage
from tests.ledger_fold import fold, projected
from tests.sample_events import (
    NOON,
    SECOND,
    a_key,
    attempt_abandoned,
    attempt_failed,
    attempt_late,
    cancelled,
    complete,
    failed,
    first_token,
    key_created,
    lost,
    rejected,
    start,
)
from tests.warehouse import Warehouse, config_for, new_id, record, warehouse

# Two segments and, by the times below, two months.
EDGE = SEGMENT - 4
DAY = 86_400 * SECOND
MEASURED: dict[str, Any] = {
    "usage": Usage(input=7, output=3, status="reported"),
    "usage_status": "reported",
    "cost_nano": 41,
    "latency_ms": 12.5,
}


def test_a_finished_call_becomes_one_row_with_tokens_cost_and_times() -> None:
    event = complete(
        "c1",
        event_id=new_id(),
        project="p",
        usage=Usage(input=5, cached_input=2, output=9, reasoning=1, status="reported"),
        fence=(3, 1, 2),
        finish_reason="stop",
    )
    row = row_of(record(17, event, stored_us=99))
    assert row["parked"] == ""
    assert (row["seq"], row["role"], row["event_type"]) == (17, "worker", "model.request.complete")
    assert (row["ts"], row["stored_at"]) == (NOON // 1000, 99)
    assert (row["input_tokens"], row["cached_input_tokens"]) == (5, 2)
    assert (row["output_tokens"], row["reasoning_tokens"]) == (9, 1)
    assert (row["cost_nano"], row["latency_ms"], row["ttfb_ms"]) == (1_500, 300.0, None)
    assert (row["fence"], row["finish_reason"]) == ((3, 1, 2), "stop")
    assert row["raw"] == encode_event(event)


def test_cache_writes_of_both_durations_are_in_one_column() -> None:
    usage = Usage(input=1, cache_write=20, cache_write_1h=300, status="reported")
    row = row_of(record(1, complete("c1", event_id=new_id(), usage=usage)))
    assert (row["input_tokens"], row["cache_write_tokens"]) == (1, 320)


def test_a_row_says_who_pays_the_provider() -> None:
    assert row_of(record(1, complete("c1", event_id=new_id())))["billed_to"] == ""
    billed = attempt_failed("c1", event_id=new_id(), billed_to="client")
    assert row_of(record(2, billed))["billed_to"] == "client"


def test_a_failed_call_carries_its_error_and_an_unknown_cost_stays_unknown() -> None:
    error = ErrorInfo(status=504, type="provider_error", code="timeout", message="Too slow.")
    row = row_of(record(1, failed("c1", event_id=new_id(), error=error, cost_nano=None)))
    assert row["cost_nano"] is None
    assert (row["status"], row["error_type"]) == (504, "provider_error")
    assert (row["error_code"], row["error_message"]) == ("timeout", "Too slow.")


def test_a_late_correction_may_be_negative() -> None:
    late = attempt_late("c1", event_id=new_id(), usage=Usage(output=-4), cost_nano=-7, corrects=3)
    row = row_of(record(9, late))
    assert (row["output_tokens"], row["cost_nano"], row["corrects"]) == (-4, -7, 3)


LATER_COLUMNS = {"billed_to", "accounts", "holder", "hold_nano", "prompt_estimate"}
GOOD = encode_event(complete("c1", event_id=new_id()))
COMPLETE = "ledger.worker.p.model.request.complete"


@pytest.mark.parametrize(
    ("subject", "data", "reason"),
    [
        (COMPLETE, b"{", "not JSON"),
        (COMPLETE, b"", "not JSON"),
        (COMPLETE, GOOD.replace(b'"c1"', b'"\xff"'), "not JSON"),
        (COMPLETE, GOOD[:-1] + b',"x":' + b"[" * 100_000, "not JSON"),
        (COMPLETE, b"[]", "not a valid event"),
        (COMPLETE, GOOD.replace(b'"v":1', b'"v":"one"'), "not a valid event"),
        (COMPLETE, GOOD.replace(b'"event_id":"', b'"event_id":"no'), "event_id is not a UUID"),
        (COMPLETE, GOOD.replace(b'"time":"', b'"time":"x'), "time is not RFC 3339"),
        (COMPLETE, GOOD.replace(b'"cost_nano":1500', b'"cost_nano":1' + b"0" * 30), "out of range"),
        (COMPLETE, GOOD.replace(b"model.request.complete", b"model.new.thing"), "unknown type"),
        ("ledger.worker.p.model.request.failed", GOOD, "another type than its subject says"),
        ("ledger.ingress.p.model.request.complete", GOOD, "a type this role may not write"),
        ("ledger.worker", GOOD, "another type than its subject says"),
    ],
)
def test_what_is_no_event_of_ours_is_parked_whole(subject: str, data: bytes, reason: str) -> None:
    row = row_of(Record(5, subject, 1_000, data))
    assert reason in row["parked"]
    assert (row["raw"], row["ts"], row["cost_nano"]) == (data, 1_000, None)


async def test_any_bytes_at_all_can_be_stored_and_read_back(house: Warehouse) -> None:
    valid = msgspec.to_builtins(lost("c", event_id=new_id()))
    anything = st.integers() | st.floats() | st.text() | st.lists(st.integers(), max_size=3)
    spoilt = st.dictionaries(st.sampled_from(Outcome.__struct_fields__), anything, max_size=3)
    bodies = st.binary() | spoilt.map(lambda fields: json.dumps(valid | fields).encode())
    found: list[Record] = []

    @settings(max_examples=300, database=None, deadline=None)
    @given(st.text(), bodies)
    def collect(project: str, body: bytes) -> None:
        subject = subjects.ledger("governor", project, "model.request.lost")
        found.append(Record(len(found) + 1, subject, NOON // 1000, body))

    collect()
    await house.projection.add(found)
    rows = await house.rows("select seq, hex(raw) from events final order by seq")
    assert [(seq, bytes.fromhex(body)) for seq, body in rows] == [
        (one.seq, one.data) for one in found
    ]


def _history(random_ids: random.Random) -> list[tuple[int, Event]]:
    """A ledger over two segments, two months and all kinds of events, with repeats among them."""

    def call(name: str, at: int, **fields: Any) -> dict[str, Any]:
        known = {"event_id": new_id(), "project": random_ids.choice(("p", "q")), "at_ns": at}
        return {"call_id": name, **known, **fields}

    later = NOON + 40 * DAY
    end_a = complete(**call("a", NOON, **MEASURED))
    end_b = failed(**call("b", later, cost_nano=3))
    events: list[Event] = [
        start(**call("a", NOON)),
        first_token(**call("a", NOON)),
        end_a,
        attempt_failed(**call("b", NOON, cost_nano=5)),
        end_a,
        complete(**call("a", later, **MEASURED | {"cost_nano": 1})),
        attempt_abandoned(**call("b", later, usage=Usage(output=2), usage_status="estimated")),
        end_b,
        attempt_late(**call("b", later, usage=Usage(output=-1), cost_nano=-2)),
        end_b,
        cancelled(**call("c", NOON + 3_600 * SECOND)),
        rejected(**call("d", later)),
        lost(**call("e", later)),
        lost(**call("a", later)),
        complete(**call("f", NOON, model="m2", **MEASURED)),
    ]
    return list(enumerate(events, EDGE))


@pytest.mark.parametrize("seed", range(6))
async def test_rollups_equal_the_ledger_in_any_order_batching_and_repetition(
    house: Warehouse, seed: int
) -> None:
    chance = random.Random(seed)
    history = _history(chance)
    deliveries = history + chance.choices(history, k=10)
    if seed:
        chance.shuffle(deliveries)
    while deliveries:
        batch = [deliveries.pop(0) for _ in range(min(len(deliveries), chance.randint(1, 6)))]
        await house.projection.add([record(seq, event) for seq, event in batch])
    assert await projected(house) == fold(history)
    assert await house.one("select count() from events final") == len(history)
    assert await house.one("select count() from (select seq from events)") >= len(history)
    assert await house.projection.contiguous_from(EDGE) == history[-1][0]


async def test_a_change_of_who_may_call_is_stored_and_no_line_of_the_statistics(
    house: Warehouse,
) -> None:
    created = key_created(a_key(), event_id=new_id())
    await house.projection.add(
        [record(1, created), record(2, complete("c", event_id=new_id(), **MEASURED))]
    )
    stored = await house.rows("select event_type, key_id, project from events where seq = 1")
    assert [tuple(row) for row in stored] == [("access.key.created", "key_a", "shop")]
    models = await house.rows("select model from model_stats_hourly final")
    assert [tuple(row) for row in models] == [("gpt-4o",)]


async def test_a_second_end_counts_its_money_but_no_request_and_a_copy_nothing(
    house: Warehouse,
) -> None:
    end = complete("c", event_id=new_id(), **MEASURED)
    other = complete("c", event_id=new_id(), **MEASURED | {"cost_nano": 1_000})
    await house.projection.add([record(30, other)])
    await house.projection.add([record(20, end), record(40, end)])
    stats = "select sum(requests), sum(cost_nano), sum(latency_count) from model_stats_hourly"
    assert await house.rows(f"{stats} final") == [(1, 1_041, 1)]
    assert await house.rows("select seq, copy from repeats final order by seq") == [
        (30, 0),
        (40, 1),
    ]
    calls = await house.rows(
        "select call_id, seq, outcome, status, prompt_tokens, cost_nano from public_calls"
    )
    assert calls == [("c", 20, "complete", 200, 14, 1_041)]
    assert await house.one("select sum(cost_nano) from public_events") == 1_041


async def test_a_call_costs_what_all_its_attempts_cost(house: Warehouse) -> None:
    events = [
        attempt_failed("c", event_id=new_id(), cost_nano=5),
        complete("c", event_id=new_id(), **MEASURED),
        attempt_late("c", event_id=new_id(), cost_nano=-2, usage=Usage(output=-1)),
        failed("unknown", event_id=new_id(), cost_nano=None),
    ]
    await house.projection.add([record(seq, event) for seq, event in enumerate(events, 1)])
    rows = await house.rows(
        "select call_id, cost_nano, toString(cost_usd), completion_tokens from public_calls "
        "order by seq"
    )
    assert rows == [("c", 44, "0.000000044", 2), ("unknown", None, None, 0)]


async def test_users_see_who_pays_for_a_call_and_for_each_attempt(house: Warehouse) -> None:
    events = [
        attempt_failed("moved", event_id=new_id(), cost_nano=5, billed_to="client"),
        complete("moved", event_id=new_id(), **MEASURED),
        complete("own", event_id=new_id(), **MEASURED, billed_to="client"),
    ]
    await house.projection.add([record(seq, event) for seq, event in enumerate(events, 1)])
    calls = "select call_id, billed_to, cost_nano from public_calls order by seq"
    assert await house.rows(calls) == [("moved", "", 46), ("own", "client", 41)]
    paid = "select call_id, sum(cost_nano) from public_events where billed_to = 'client'"
    assert await house.rows(f"{paid} group by call_id order by call_id") == [
        ("moved", 5),
        ("own", 41),
    ]


async def test_a_database_from_before_learns_who_pays(tmp_path: Path) -> None:
    config = config_for("embedded", tmp_path)
    database = Database.of(config)
    await asyncio.to_thread(database.open)
    writer = Store(database, WRITING)
    try:
        old = [one for one in migrate.known() if one.number < 4]
        await migrate.apply(writer, old)
        row = row_of(record(1, complete("old", event_id=new_id(), **MEASURED)))
        columns = {name: kind for name, kind in COLUMNS.items() if name not in LATER_COLUMNS}
        await writer.insert("events", columns, [[row[name]] for name in columns])
        await migrate.apply(writer)
        await Projection(writer).add(
            [record(2, complete("new", event_id=new_id(), **MEASURED, billed_to="client"))]
        )
        found = await writer.query("select call_id, billed_to from public_calls order by seq")
        assert found.rows == [("old", ""), ("new", "client")]
    finally:
        await writer.close()
        await asyncio.to_thread(database.close)


async def test_what_lies_above_a_sequence_can_be_forgotten_without_a_trace(
    house: Warehouse,
) -> None:
    history = _history(random.Random(0))
    for last in (history[-3][0], SEGMENT - 1, EDGE - 1):
        await house.projection.add([record(seq, event) for seq, event in history])
        await house.projection.drop_above(last)
        kept = [(seq, event) for seq, event in history if seq <= last]
        assert await projected(house) == fold(kept)
        assert await house.projection.highest() == (last if kept else 0)


async def test_the_first_gap_is_found_wherever_it_is(tmp_path: Path) -> None:
    async with warehouse(config_for("embedded", tmp_path)) as house:
        last = 2 * SEGMENT + 5
        missing = {SEGMENT - 1, SEGMENT, SEGMENT + 700}
        present = [seq for seq in range(1, last + 1) if seq not in missing]
        data = columns_of([Record(seq, "", NOON // 1000, b"") for seq in present])
        await house.writer.insert("events", COLUMNS, data)
        contiguous = house.projection.contiguous_from
        assert await contiguous(1) == SEGMENT - 2
        assert await contiguous(SEGMENT) == SEGMENT - 1
        assert await contiguous(SEGMENT + 1) == SEGMENT + 699
        assert await contiguous(SEGMENT + 701) == last
        assert await contiguous(last + 1) == last
        assert await contiguous(last + 9) == last + 8


@given(st.permutations(range(4, 20)), st.integers(1, 5))
def test_progress_passes_no_gap(order: list[int], size: int) -> None:
    progress = Progress(3)
    done: set[int] = {1, 2, 3}
    for at in range(0, len(order), size):
        progress.add(order[at : at + size])
        done.update(order[at : at + size])
        assert progress.through == next(seq for seq in range(1, 21) if seq + 1 not in done)
    assert progress.through == 19
