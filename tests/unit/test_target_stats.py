"""How targets fared, by the rollup and by the question that reads it."""

import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics.asks import Scope
from analytics.attempts import kind_of
from analytics.latencies import bucket, quantile
from analytics.migrate import SEGMENT
from analytics.questions import answer
from analytics.questions.targets import TargetFigures, TargetsParams, TargetsReport
from analytics.sql_run import USER_SQL, UserSql
from analytics.store import Store
from schemas.errors import ErrorInfo, Forbidden, InvalidRequest
from schemas.event import Event
from schemas.events import AttemptFailed, RequestComplete, RequestFailed
from tests.sample_events import (
    NOON,
    SECOND,
    attempt_abandoned,
    attempt_failed,
    cancelled,
    complete,
    failed,
    rejected,
)
from tests.warehouse import Warehouse, config_for, new_id, record, warehouse

MINUTE = 60 * SECOND
NOW = NOON - NOON % MINUTE + MINUTE // 2
AS_OF = 7
TIMED: dict[str, Any] = {"latency_ms": 900.0, "ttfb_ms": 500.0, "network_ms": 100.0}


def error(status: int, kind: str, code: str | None = None) -> ErrorInfo:
    return ErrorInfo(status=status, type=kind, message="no", code=code, provider="openai")


ERRORS = (
    error(502, "provider_error"),
    error(504, "provider_error", "timeout"),
    error(502, "provider_error", "provider_auth"),
    error(429, "rate_limit_error", "rate_limit_exceeded"),
    error(429, "rate_limit_error", "queue_full"),
    error(429, "rate_limit_error", "budget_exceeded"),
    error(401, "authentication_error", "provider_auth"),
    error(401, "authentication_error", "provider_key_missing"),
    error(400, "invalid_request_error"),
    error(503, "server_error", "worker_stopped"),
)


async def asked(house: Warehouse, **params: Any) -> TargetsReport:
    body = msgspec.json.encode(TargetsParams(**params))
    found = await answer("targets", body, None, store=house.reader, now_ns=NOW, as_of_seq=AS_OF)
    return msgspec.json.decode(msgspec.json.encode(found), type=TargetsReport)


async def test_attempts_are_told_by_target_with_their_latencies_and_kinds_of_error(
    house: Warehouse,
) -> None:
    of: dict[str, Any] = {"engine": "x"}
    events: list[Event] = [
        complete("a", event_id=new_id(), **of, **TIMED),
        complete("b", event_id=new_id(), **of, **TIMED),
        complete("c", event_id=new_id(), **of, latency_ms=5.0),
        *[failed(f"f{i}", event_id=new_id(), **of, error=e) for i, e in enumerate(ERRORS)],
        attempt_failed("a", event_id=new_id(), **of, error=ERRORS[0]),
        attempt_abandoned("a", event_id=new_id(), **of),
        cancelled("d", event_id=new_id(), **of),
        rejected("e", event_id=new_id()),
        complete("g", event_id=new_id(), engine="y", provider="other"),
    ]
    await house.projection.add([record(seq, event) for seq, event in enumerate(events, 1)])
    report = await asked(house)
    assert report.as_of_seq == AS_OF
    first = report.targets[0]
    assert first == TargetFigures(
        "openai",
        "x",
        attempts=10,
        rate_limits=1,
        timeouts=1,
        denials=2,
        failures=2,
        first_byte={bucket(100.0): 2},
        total={bucket(500.0): 2},
    )
    assert [(one.provider, one.attempts) for one in report.targets[1:]] == [("other", 1)]


async def test_what_is_older_counts_less_and_what_is_too_old_not_at_all(house: Warehouse) -> None:
    ends = [
        complete(f"c{age}", NOON - age * MINUTE, event_id=new_id(), engine=f"e{age}")
        for age in (0, 2, 4, 40)
    ]
    await house.projection.add([record(seq, event) for seq, event in enumerate(ends, 1)])
    found = {one.engine: one.attempts for one in (await asked(house)).targets}
    assert found == {"e0": 1.0, "e2": 0.5, "e4": 0.25}
    assert len((await asked(house, minutes=60)).targets) == 4


@pytest.mark.parametrize("minutes", [0, -1, 1441])
async def test_a_window_of_no_sense_is_refused(house: Warehouse, minutes: int) -> None:
    with pytest.raises(InvalidRequest, match="from 1 to 1440"):
        await asked(house, minutes=minutes)


async def test_a_tenant_is_told_nothing_of_it(house: Warehouse) -> None:
    scope = Scope(key_id="key_a")
    with pytest.raises(Forbidden):
        await answer("targets", b"{}", scope, store=house.reader, now_ns=NOON, as_of_seq=1)
    store = Store(house.database, USER_SQL)
    with pytest.raises(InvalidRequest, match="use events or calls"):
        await UserSql(store).run("select * from target_stats", scope, 2)
    await store.close()


async def test_administrators_ask_for_it_by_sql(house: Warehouse) -> None:
    events = [complete(name, event_id=new_id(), engine="x", **TIMED) for name in ("a", "b")]
    await house.projection.add([record(1, events[0]), record(1 + SEGMENT, events[1])])
    down = failed("c", event_id=new_id(), provider="down")
    await house.projection.add([record(2, down)])
    store = Store(house.database, USER_SQL)
    sql = "select * from target_stats order by provider desc"
    found = await UserSql(store).run(sql, None, 2)
    await store.close()
    rows = [dict(zip(found.columns, row, strict=True)) for row in found.rows]
    assert [(row["provider"], row["attempts"], row["failures"]) for row in rows] == [
        ("openai", 2, 0),
        ("down", 1, 1),
    ]
    assert rows[0]["first_byte_p50_ms"] == pytest.approx(100, rel=0.05)
    assert rows[0]["total_p95_ms"] == pytest.approx(500, rel=0.05)
    assert rows[1]["total_p50_ms"] is None


def test_a_quantile_is_right_to_five_percent_and_unknown_of_nothing() -> None:
    values = [1.07**n for n in range(1, 200)]
    counts = Counter(map(bucket, values))
    for share in (0.01, 0.5, 0.95, 1.0):
        true = values[max(round(share * len(values) + 0.499) - 1, 0)]
        assert quantile(counts, share) == pytest.approx(true, rel=0.05)
    assert quantile({}, 0.5) is None
    assert quantile({bucket(0.0): 1}, 0.5) == pytest.approx(0.0625, rel=0.05)


def _history(chance: random.Random) -> list[tuple[int, Event]]:
    """A ledger over two segments: attempts and ends of a few targets, some stored again."""
    events: list[Event] = []
    for number in range(chance.randint(1, 10)):
        kind: Any = chance.choice((complete, complete, failed, attempt_failed))
        fields: dict[str, Any] = {
            "provider": chance.choice(("openai", "other")),
            "engine": chance.choice(("x", "y")),
            "billed_to": chance.choice(("", "", "client")),
        }
        if kind is complete:
            network = chance.uniform(0.01, 5000)
            known = {"network_ms": network, "ttfb_ms": network + 7, "latency_ms": 3 * network + 7}
            fields |= chance.choice((known, {"network_ms": None}))
        else:
            fields["error"] = chance.choice(ERRORS)
        at = NOON - chance.randint(0, 3) * MINUTE
        events.append(kind(f"c{number}", at, event_id=new_id(), **fields))
    again = chance.choices(events, k=2)
    return list(enumerate([*events, *again], SEGMENT - len(events) // 2))


def _folded(history: list[tuple[int, Event]]) -> dict[tuple[str, str], Counter[str]]:
    """The same by a plain walk, by target: a letter and bucket for each latency."""
    found: dict[tuple[str, str], Counter[str]] = {}
    for event in {one.event_id: one for _, one in history}.values():
        assert isinstance(event, RequestComplete | RequestFailed | AttemptFailed)
        info = None if isinstance(event, RequestComplete) else event.error
        kind = kind_of(info, event.billed_to)
        if kind is None:
            continue
        counts = found.setdefault((event.provider, event.engine), Counter())
        counts["attempts"] += 1
        counts[kind] += 1
        if isinstance(event, RequestComplete) and None not in (event.network_ms, event.ttfb_ms):
            assert event.network_ms and event.ttfb_ms and event.latency_ms
            counts[f"f{bucket(event.network_ms)}"] += 1
            counts[f"t{bucket(event.latency_ms - event.ttfb_ms + event.network_ms)}"] += 1
        counts[""] = 0
    return {target: +counts for target, counts in found.items()}


async def _projected(house: Warehouse) -> dict[tuple[str, str], Counter[str]]:
    rows = await house.rows(
        "select provider, engine, sum(attempts), sum(rate_limits), sum(timeouts), sum(denials),"
        " sum(failures), sumMap(first_byte), sumMap(total) from target_stats final group by all"
    )
    found = {}
    for provider, engine, *counts, first_byte, total in rows:
        names = ("attempts", "rate_limits", "timeouts", "denials", "failures")
        whole: Counter[str] = Counter(dict(zip(names, counts, strict=True)))
        whole.update({f"f{key}": count for key, count in first_byte.items()})
        whole.update({f"t{key}": count for key, count in total.items()})
        if +whole:
            found[provider, engine] = +whole
    return found


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32))
async def test_it_equals_a_plain_count_in_any_order_batching_and_repetition(seed: int) -> None:
    chance = random.Random(seed)
    history = _history(chance)
    deliveries = history + chance.choices(history, k=6)
    chance.shuffle(deliveries)
    with tempfile.TemporaryDirectory() as directory:
        async with warehouse(config_for("embedded", Path(directory))) as house:
            while deliveries:
                count = min(len(deliveries), chance.randint(1, 9))
                batch, deliveries = deliveries[:count], deliveries[count:]
                await house.projection.add([record(seq, event) for seq, event in batch])
            assert await _projected(house) == _folded(history)
