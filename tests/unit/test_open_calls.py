"""The fold of open calls: what is open, what is overdue, where a successor begins."""

from hypothesis import given
from hypothesis import strategies as st

from ledger.open_calls import OpenCalls
from tests import sample_events as sample
from tests.sample_events import NOON, SECOND


def test_a_call_is_open_from_its_start_to_its_end() -> None:
    calls = OpenCalls()
    assert calls.fold(1, sample.start("a"))
    assert calls.fold(2, sample.first_token("a"))
    assert calls.fold(3, sample.attempt_failed("a"))
    assert len(calls) == 1
    assert calls.fold(4, sample.complete("a"))
    assert len(calls) == 0


def test_every_kind_of_end_closes_a_call() -> None:
    calls = OpenCalls()
    ends = [sample.complete, sample.failed, sample.cancelled, sample.rejected, sample.lost]
    for number, end in enumerate(ends):
        calls.fold(2 * number, sample.start(f"call-{number}"))
        assert calls.fold(2 * number + 1, end(f"call-{number}"))
    assert len(calls) == 0


def test_a_second_end_of_a_call_is_told_apart_from_the_first() -> None:
    calls = OpenCalls()
    calls.fold(1, sample.start("a"))
    assert calls.fold(2, sample.lost("a"))
    assert not calls.fold(3, sample.complete("a"))


def test_a_refusal_at_the_door_is_the_end_of_a_call_that_never_started() -> None:
    calls = OpenCalls()
    assert calls.fold(1, sample.rejected("a"))
    assert len(calls) == 0


def test_a_start_that_was_stored_after_its_end_opens_nothing() -> None:
    calls = OpenCalls()
    calls.fold(1, sample.rejected("a"))
    calls.fold(2, sample.start("a"))
    assert len(calls) == 0
    assert calls.first_seq() is None


def test_ends_without_a_start_are_not_remembered_without_bound() -> None:
    calls = OpenCalls()
    for seq in range(10_000):
        calls.fold(seq, sample.rejected(f"call-{seq}"))
    calls.fold(10_000, sample.start("call-9999"))
    calls.fold(10_001, sample.start("call-0"))
    assert [start.call_id for start in calls.overdue(NOON + 9999 * SECOND, 0.0)] == ["call-0"]


def test_a_call_is_overdue_at_its_deadline_plus_the_grace_and_not_before() -> None:
    calls = OpenCalls()
    calls.fold(1, sample.start("a", deadline_ns=NOON + 10 * SECOND))
    assert calls.overdue(NOON + 100 * SECOND - 1000, 90.0) == []
    [start] = calls.overdue(NOON + 100 * SECOND, 90.0)
    assert start.call_id == "a"


def test_the_first_sequence_is_that_of_the_oldest_open_call() -> None:
    calls = OpenCalls()
    for seq, call in enumerate("abc", start=5):
        calls.fold(seq, sample.start(call))
    assert calls.first_seq() == 5
    calls.fold(8, sample.complete("a"))
    assert calls.first_seq() == 6
    calls.fold(9, sample.complete("c"))
    assert calls.first_seq() == 6


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=40))
def test_folding_from_the_first_sequence_gives_the_same_open_calls(
    steps: list[tuple[str, bool]],
) -> None:
    events = []
    started: set[str] = set()
    for call, ends in steps:
        if ends and call in started:
            events.append(sample.complete(call))
        elif call not in started:
            started.add(call)
            events.append(sample.start(call))
    whole = OpenCalls()
    for seq, event in enumerate(events, start=1):
        whole.fold(seq, event)
    successor = OpenCalls()
    first = whole.first_seq() or len(events) + 1
    for seq, event in enumerate(events, start=1):
        if seq >= first:
            successor.fold(seq, event)
    far = NOON + 10_000 * SECOND
    assert successor.overdue(far, 0.0) == whole.overdue(far, 0.0)
    assert successor.first_seq() == whole.first_seq()
