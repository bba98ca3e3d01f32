"""What scopes used lately, as the ledger tells it."""

import asyncio
from typing import Any

import pytest

from ledger.budgets.recent import Recent
from ledger.budgets.trails import Trail, unpack, used
from schemas import subjects
from schemas.events import LedgerEvent
from schemas.ids import rfc3339
from schemas.usage import Usage
from tests import sample_events as sample

SECOND = 1_000_000_000
NOON = sample.NOON
WHOSE: dict[str, Any] = {
    "key_id": "k",
    "user": "ana@x.org",
    "project": "shop",
    "team": "web",
    "model": "m",
}


def found(recent: Recent, scope: str, id: str, seconds: int, at_ns: int) -> tuple[int, int]:
    """Requests and tokens."""
    trails = recent.trails(scope, subjects.token(id))
    requests, tokens = (
        sum(amount for _, amount in used(trails, what, seconds, at_ns))
        for what in ("requests", "tokens")
    )
    return requests, tokens


def call(recent: Recent, name: str, at_ns: int, seconds: float = 1.0, tokens: int = 150) -> None:
    """A call from its start to its end."""
    begin = sample.start(name, at_ns, **WHOSE)
    recent.fold(begin, None)
    usage = Usage(input=tokens - 50, cached_input=20, output=30)
    end = sample.complete(name, at_ns + int(seconds * SECOND), usage=usage, **WHOSE)
    recent.fold(end, begin)


def test_every_scope_of_a_call_has_its_request_and_its_tokens() -> None:
    recent = Recent()
    call(recent, "a", NOON)
    for scope, id in zip(("key", "user", "project", "team", "model"), WHOSE.values(), strict=True):
        assert found(recent, scope, id, 60, NOON + SECOND) == (1, 150)
        assert found(recent, scope, "another", 60, NOON + SECOND) == (0, 0)


def test_tokens_count_from_the_start_of_their_call() -> None:
    recent = Recent()
    call(recent, "a", NOON, seconds=90)
    assert found(recent, "key", "k", 60, NOON + 59 * SECOND) == (1, 150)
    assert found(recent, "key", "k", 60, NOON + 91 * SECOND) == (0, 0)
    assert found(recent, "key", "k", 3600, NOON + 91 * SECOND) == (1, 150)


def test_what_else_happens_counts_nothing() -> None:
    recent = Recent()
    begin = sample.start("a", NOON, **WHOSE)
    recent.fold(begin, None)
    others: tuple[tuple[LedgerEvent, object], ...] = (
        (begin, begin),
        (sample.first_token("a", **WHOSE), begin),
        (sample.attempt_failed("a", usage=Usage(input=9), **WHOSE), begin),
        (sample.lost("a", usage=None, **WHOSE), begin),
        (sample.start("b", time="soon", **WHOSE), None),
    )
    for event, known in others:
        recent.fold(event, begin if known else None)
    assert found(recent, "key", "k", 3600, NOON) == (1, 0)


def test_an_hour_of_calls_is_found_by_the_minute_and_the_last_minute_by_the_second() -> None:
    recent = Recent()
    for second in range(2 * 3600):
        call(recent, f"c{second}", NOON + second * SECOND, tokens=100)
    end_ns = NOON + 2 * 3600 * SECOND - 1
    assert found(recent, "key", "k", 60, end_ns) in ((60, 6000), (61, 6100))
    requests, tokens = found(recent, "key", "k", 3600, end_ns)
    assert 3600 <= requests <= 3660 and tokens == 100 * requests
    parts = used(recent.trails("key", "k"), "requests", 3600, end_ns)
    assert [end for end, _ in parts] == sorted(end for end, _ in parts)
    assert parts[-1][0] <= end_ns + SECOND
    (trail,) = recent.trails("key", "k")
    assert len(trail.seconds) < 100 and len(trail.minutes) < 100


def test_what_was_used_under_a_clock_ahead_of_ours_is_over_a_window_from_now() -> None:
    recent = Recent()
    call(recent, "a", NOON + 86_400 * SECOND)
    assert used(recent.trails("key", "k"), "requests", 60, NOON) == [(NOON + SECOND, 1)]


@pytest.mark.parametrize("id", ["k" * 500, "\N{SNOWMAN}" * 90, "a b.c>*", "~"])
def test_any_id_is_found_by_its_token(id: str) -> None:
    recent = Recent()
    for name in ("a", "b"):
        recent.fold(sample.start(name, NOON, key_id=id), None)
    assert found(recent, "key", id, 60, NOON) == (2, 0)


async def test_what_is_packed_has_all_of_it() -> None:
    recent = Recent()
    for number in range(200):
        call(recent, f"c{number}", NOON + number * SECOND)
    again = Recent(unpack(await recent.packed()))
    at_ns = NOON + 200 * SECOND
    for seconds in (60, 3600):
        assert found(again, "key", "k", seconds, at_ns) == found(recent, "key", "k", seconds, at_ns)
    assert unpack(b"") == {}


async def test_what_is_packed_is_of_one_moment_while_the_fold_goes_on() -> None:
    """Scopes are used, begin, move to minutes and are forgotten while the packing is under way."""
    recent = Recent()
    for number in range(5_000):
        recent.fold(sample.start(f"c{number}", NOON, key_id=f"k{number}", project="shop"), None)
    before = unpack(await recent.packed())
    packing = asyncio.create_task(recent.packed())
    await asyncio.sleep(0)
    at_ns = NOON
    while not packing.done():
        at_ns += 40 * SECOND
        for number in range(0, 6_000, 50):
            fields: dict[str, Any] = {"key_id": f"k{number}", "project": "shop", "user": "ana"}
            recent.fold(sample.start(f"d{number}", at_ns, **fields), None)
        await asyncio.sleep(0)
    assert at_ns > NOON + 5 * 40 * SECOND
    assert unpack(await packing) == before
    now = unpack(await recent.packed())
    assert now["project"]["shop"] != before["project"]["shop"] and "ana" in now["user"]


def test_late_tokens_are_those_of_calls_from_before_the_reign() -> None:
    recent = Recent()
    before = sample.start("a", NOON, **WHOSE)
    recent.fold(before, None)
    recent.begin_reign(rfc3339(NOON + SECOND))
    after = sample.start("b", NOON + 2 * SECOND, **WHOSE)
    recent.fold(after, None)
    for begin in (before, after):
        usage = Usage(input=70)
        end = sample.complete(begin.call_id, NOON + 3 * SECOND, usage=usage, **WHOSE)
        recent.fold(end, begin)
    (trail,) = recent.trails("key", "k")
    assert (trail.started, trail.late) == (2, 70)


def test_ids_past_the_most_share_one_trail_and_are_taken_to_have_used_all_of_it() -> None:
    recent = Recent(most=10)
    for number in range(100):
        recent.fold(sample.start(f"c{number}", NOON, key_id=f"k{number}"), None)
    assert len(recent.trails("key", "k3")) == 1
    assert found(recent, "key", "k3", 60, NOON) == (1, 0)
    assert found(recent, "key", "k50", 60, NOON) == (90, 0)
    assert len(recent) == 10 + 1 + 1


def test_what_was_not_used_for_an_hour_is_forgotten() -> None:
    recent = Recent()
    for number in range(100):
        recent.fold(sample.start(f"c{number}", NOON, key_id=f"k{number}"), None)
    for minute in range(60, 130):
        recent.fold(sample.start("later", NOON + minute * 60 * SECOND, key_id="k0"), None)
    assert len(recent) == 2
    assert found(recent, "key", "k0", 3600, NOON + 129 * 60 * SECOND) == (61, 0)


def test_what_was_not_used_for_an_hour_makes_room() -> None:
    recent = Recent(most=10)
    for number in range(100):
        recent.fold(sample.start(f"c{number}", NOON, key_id=f"k{number}"), None)
    later_ns = NOON + 2 * 3600 * SECOND
    recent.fold(sample.start("later", later_ns, key_id="k200"), None)
    assert found(recent, "key", "k200", 3600, later_ns) == (1, 0)
    assert found(recent, "key", "k201", 3600, later_ns) == (0, 0)


def test_whoever_gets_room_while_others_share_may_have_used_what_they_share() -> None:
    recent = Recent(most=2)
    for number in range(5):
        recent.fold(sample.start(f"c{number}", NOON, key_id=f"k{number}"), None)
    later_ns = NOON + 1800 * SECOND
    recent.fold(sample.start("shared", later_ns, key_id="k4"), None)
    at_ns = NOON + 3700 * SECOND
    recent.fold(sample.start("own", at_ns, key_id="k4"), None)
    assert found(recent, "key", "k4", 3600, at_ns) == (1 + 1, 0)


def test_a_trail_keeps_what_it_rolls_up() -> None:
    trail = Trail(dict.fromkeys(range(0, 3000, 10), 1))
    trail.roll()
    assert sum(trail.seconds.values()) + sum(trail.minutes.values()) == 300
    assert min(trail.seconds) > 2990 - 70
