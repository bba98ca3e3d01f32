"""How many bytes a token has is learnt from what providers bill."""

import pytest

from ingress.calibration import Ratios
from ingress.estimates import estimate
from ingress.measure import Measure
from ledger.connection import Connection
from schemas import subjects
from schemas.config import BusConfig
from schemas.events import RequestComplete, encode_event
from schemas.usage import Usage
from tests.measured_calls import TARGET


def test_the_default_is_four_bytes_a_token() -> None:
    found = Measure(text_bytes=4000, messages=0)
    assert estimate(found, TARGET, 10, Ratios()).prompt_tokens == 1000


def test_ratios_come_to_what_is_billed_and_follow_when_it_changes() -> None:
    ratios = Ratios()
    for _ in range(300):
        ratios.learn("local", "llama", 1000, 1500)
    assert ratios.of("local", "llama") == pytest.approx(1.5, rel=0.01)
    assert estimate(Measure(text_bytes=4000), TARGET, 0, ratios).prompt_tokens == pytest.approx(
        1500, rel=0.01
    )
    for _ in range(300):
        ratios.learn("local", "llama", 1000, 800)
    assert ratios.of("local", "llama") == pytest.approx(0.8, rel=0.01)
    assert ratios.of("local", "other") == 1.0


def test_one_odd_call_moves_a_learnt_ratio_little_and_never_out_of_bounds() -> None:
    ratios = Ratios()
    for _ in range(100):
        ratios.learn("p", "e", 1000, 1000)
    ratios.learn("p", "e", 10, 500)
    assert ratios.of("p", "e") < 1.05
    ratios.learn("p", "e", 1, 10**12)
    assert ratios.of("p", "e") <= 8
    ratios.learn("p", "f", 0, 10)
    ratios.learn("p", "f", 10, 0)
    assert ratios.of("p", "f") == 1.0


def test_the_targets_that_are_remembered_are_bounded_and_the_oldest_go_first() -> None:
    ratios = Ratios()
    for number in range(600):
        ratios.learn("p", f"e{number}", 1000, 2000)
        ratios.learn("p", "in use", 1000, 2000)
    assert len(ratios) == 512
    assert ratios.of("p", "in use") > 1.5
    assert ratios.of("p", "e0") == 1.0 and ratios.of("p", "e599") > 1.5


async def test_two_ingresses_learn_the_same_from_the_events_they_hear(
    shared_nats_url: str,
) -> None:
    event = RequestComplete(
        event_id="e",
        time="2026-11-21T00:00:00.000000Z",
        v=1,
        provider="calibrated",
        engine="x",
        usage=Usage(input=2000, cached_input=1000, output=5, status="reported"),
        prompt_estimate=1000,
    )
    unknown = RequestComplete(
        event_id="f", time=event.time, v=1, provider="calibrated", engine="y", prompt_estimate=9
    )
    both = (Ratios(), Ratios())
    connection = await Connection.connect(BusConfig(url=shared_nats_url), name="test")
    try:
        for ratios in both:
            ratios.listen(connection)
        for one in (event, unknown):
            connection.publish(subjects.live("model.request.complete"), encode_event(one))
        await connection.flush()
    finally:
        await connection.close()
    assert [len(ratios) for ratios in both] == [1, 1]
    assert both[0].of("calibrated", "x") == both[1].of("calibrated", "x") > 2.5
