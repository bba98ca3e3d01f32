"""`GET /api/v1/analytics/usage`: the window it covers and the shape it answers in."""

from pathlib import Path

import msgspec
import pytest

from analytics.asks import Scope
from analytics.questions import answer
from analytics.questions.usage import UsageParams, bind, shape
from schemas.errors import InvalidRequest
from schemas.usage import Usage as Tokens
from tests.sample_events import (
    NOON,
    SECOND,
    attempt_failed,
    cancelled,
    complete,
    failed,
    rejected,
    start,
)
from tests.warehouse import config_for, drop, new_id, on_every_backend, record, warehouse

# 2026-09-21 is a Monday.
NOW = NOON


def window(**params: str) -> tuple[str, str]:
    report = shape(bind(UsageParams(**params), NOW), [], 0)
    return report.start_time, report.end_time


@pytest.mark.parametrize(
    ("params", "start_time", "end_time"),
    [
        ({}, "2026-09-21T00:00:00Z", "2026-09-22T00:00:00Z"),
        ({"period": "hour"}, "2026-09-21T14:00:00Z", "2026-09-21T15:00:00Z"),
        ({"period": "week"}, "2026-09-21T00:00:00Z", "2026-09-28T00:00:00Z"),
        ({"period": "month"}, "2026-09-01T00:00:00Z", "2026-10-01T00:00:00Z"),
        (
            {"start": "2024-01-01", "end": "2024-01-02"},
            "2024-01-01T00:00:00Z",
            "2024-01-02T00:00:00Z",
        ),
        (
            {"start": "2024-01-01", "period": "week"},
            "2024-01-01T00:00:00Z",
            "2024-01-08T00:00:00Z",
        ),
        (
            {"start": "2024-01-31", "period": "month"},
            "2024-01-31T00:00:00Z",
            "2024-02-29T00:00:00Z",
        ),
        (
            {"end": "2024-01-15", "period": "month"},
            "2023-12-15T00:00:00Z",
            "2024-01-15T00:00:00Z",
        ),
        (
            {"start": "2024-01-01T10:30:00+02:00", "end": "2024-01-01T09:00:01Z"},
            "2024-01-01T08:00:00Z",
            "2024-01-01T10:00:00Z",
        ),
    ],
)
def test_the_window_is_the_current_period_unless_it_is_given(
    params: dict[str, str], start_time: str, end_time: str
) -> None:
    assert window(**params) == (start_time, end_time)


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"period": "year"}, "period"),
        ({"period": ""}, "period"),
        ({"start": "yesterday"}, "start"),
        ({"start": "1000-01-01"}, "start"),
        ({"start": "2024-13-01"}, "start"),
        ({"end": "9999-12-31"}, "end"),
        ({"end": ""}, "end"),
        ({"end": "0001-01-01T00:00:00+14:00"}, "end"),
        ({"start": "2024-01-02", "end": "2024-01-01"}, "end"),
        ({"start": "2024-01-02", "end": "2024-01-02"}, "end"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_its_name(
    params: dict[str, str], param: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        window(**params)
    assert refused.value.info.param == param


@on_every_backend
async def test_usage_adds_up_what_ended_in_the_window(backend: str, tmp_path: Path) -> None:
    config = config_for(backend, tmp_path)
    tokens = {"usage": Tokens(input=1, status="reported"), "usage_status": "reported"}
    hour = 3_600 * SECOND
    events = [
        start("a", event_id=new_id(), key_id="k1"),
        complete("a", event_id=new_id(), key_id="k1", cost_nano=1_500_000_000, latency_ms=100.0),
        attempt_failed("b", event_id=new_id(), key_id="k1", provider="azure", cost_nano=5),
        complete("b", event_id=new_id(), key_id="k1", cost_nano=25, latency_ms=200.5, **tokens),
        failed("c", event_id=new_id(), key_id="k2", model="m2", latency_ms=9_999.0, cost_nano=None),
        cancelled("d", event_id=new_id(), key_id="k2", model="m2", cost_nano=7),
        rejected("e", event_id=new_id(), key_id="k2", model="m3", provider="", cost_nano=None),
        complete("f", NOON + 24 * hour, event_id=new_id(), key_id="k2", cost_nano=1_000),
    ]
    async with warehouse(config) as house:
        await house.projection.add([record(seq, event) for seq, event in enumerate(events, 1)])

        async def usage(scope: Scope | None, **params: str) -> dict[str, object]:
            asked = msgspec.json.encode(params)
            report = await answer(
                "usage", asked, scope, store=house.reader, now_ns=NOW, as_of_seq=8
            )
            built: dict[str, object] = msgspec.to_builtins(report)
            return built

        assert await usage(None) == {
            "period": "day",
            "start_time": "2026-09-21T00:00:00Z",
            "end_time": "2026-09-22T00:00:00Z",
            "total_requests": 5,
            "total_cost": 1.500000037,
            "avg_latency_ms": 150.25,
            "cost_by_provider": {"azure": 0.000000005, "openai": 1.500000032},
            "top_models": [
                {"model": "gpt-4o", "usage_count": 2, "cost": 1.50000003},
                {"model": "m2", "usage_count": 2, "cost": 0.000000007},
                {"model": "m3", "usage_count": 1, "cost": 0.0},
            ],
            "as_of_seq": 8,
        }
        mine = await usage(Scope(key_id="k1"))
        assert (mine["total_requests"], mine["total_cost"]) == (2, 1.50000003)
        nobody = await usage(Scope(project="other", key_id="k1"))
        assert (nobody["total_requests"], nobody["avg_latency_ms"]) == (0, None)
        assert nobody["top_models"] == []
        week = await usage(None, period="week")
        assert week["total_requests"] == 6
        with pytest.raises(InvalidRequest, match="invalid parameters"):
            await answer("usage", b'{"period": 3}', None, store=house.reader, now_ns=0, as_of_seq=0)
    await drop(config)
