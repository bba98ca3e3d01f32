"""The plain reading of the ledger, and what is told of its differences to what was derived."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from analytics.accounts import Spent, Totals
from compose.verify import Facts, compare
from ledger.reader import Stored
from ledger.tally import Tally
from schemas.event import Event
from tests.ledger_fold import spent
from tests.sample_events import (
    NOON,
    SECOND,
    attempt_failed,
    attempt_late,
    complete,
    failed,
    rejected,
    start,
    stored,
)

SHOP = "project:shop:month@2026-11-01.0"
ANA = "user:ana@example.com:day@2026-11-21.0"


def tallied(*events: Event) -> Tally:
    tally = Tally()
    for seq, event in enumerate(events, 1):
        tally.take(stored(seq, event))
    return tally


def test_each_end_counts_its_money_and_the_same_event_once() -> None:
    end = complete("c", accounts=(SHOP, ANA), cost_nano=7)
    late = attempt_late("c", accounts=(SHOP,), cost_nano=-2)
    theirs = complete("d", accounts=(SHOP,), cost_nano=100, billed_to="client")
    tally = tallied(end, late, end, failed("c", accounts=(SHOP,), cost_nano=1), theirs)
    assert tally.spent == {SHOP: 6, ANA: 7}


_EVENTS = st.lists(
    st.tuples(
        st.sampled_from([complete, failed, attempt_failed, attempt_late]),
        st.sampled_from(["a", "b"]),
        st.sampled_from([(), (SHOP,), (SHOP, ANA)]),
        st.none() | st.integers(-5, 10**12),
        st.sampled_from(["", "client"]),
        st.booleans(),
    ),
    max_size=20,
)


@given(_EVENTS)
def test_it_is_the_plain_sum_of_any_history(made: list[tuple[Any, ...]]) -> None:
    events: list[Event] = []
    for kind, call, accounts, cost, billed, again in made:
        event = kind(call, accounts=accounts, cost_nano=cost, billed_to=billed)
        events += [event, event] if again else [event]
    plain = {name: sums[0] for name, sums in spent(enumerate(events, 1)).items()}
    found = tallied(*events).spent
    assert all(found[name] == plain.get(name, 0) for name in {*plain, *found})


def test_calls_are_open_from_their_start_to_any_end_in_either_order() -> None:
    ends = tallied(
        start("open"), start("ended"), complete("ended"), rejected("early"), start("early")
    )
    assert list(ends.open) == ["open"]
    deadline = NOON + 600 * SECOND
    assert ends.overdue(deadline + 89 * SECOND) == []
    assert [one.call_id for one in ends.overdue(deadline + 90 * SECOND)] == ["open"]


def test_what_is_no_event_of_ours_is_counted_and_changes_nothing() -> None:
    tally = Tally()
    good = stored(1, complete("c", accounts=(SHOP,), cost_nano=7))
    forged = Stored(2, good.subject.replace("worker", "ingress"), good.data)
    for record in (good, forged, Stored(3, "", good.data), Stored(4, good.subject, b"{")):
        tally.take(record)
    assert (tally.records, tally.parked, tally.spent) == (4, 3, {SHOP: 7})


def test_sequences_that_the_ledger_lacks_are_counted() -> None:
    tally = Tally()
    for seq in (3, 4, 7):
        tally.take(stored(seq, complete("c")))
    assert (tally.first, tally.last, tally.missing) == (3, 7, 2)


def facts(tally: Tally, **changes: Any) -> Facts:
    """The others as they should be, but for the changes."""
    known: dict[str, Any] = {
        "seq": tally.last,
        "tally": tally,
        "totals": Totals(
            tally.last, tally.last, rows=tally.records, sequences=tally.records, highest=tally.last
        ),
        "spent": [Spent(SHOP, 7, 7)],
        "governed": {SHOP: 7},
        "away": (),
    }
    return Facts(**{**known, **changes})


def charged() -> Tally:
    return tallied(complete("c", accounts=(SHOP,), cost_nano=7))


def test_books_that_agree_have_no_difference() -> None:
    report = compare(facts(charged()), NOON)
    assert (report.equal, report.differences) == (True, [])


def test_each_of_the_books_is_compared_with_the_ledger() -> None:
    wrong: list[dict[str, Any]] = [
        {"spent": [Spent(SHOP, 8, 7)]},
        {"spent": [Spent(SHOP, 7, 8)]},
        {"spent": []},
        {"governed": {SHOP: 6}},
        {"spent": [Spent(SHOP, 7, 7), Spent(ANA, 0, 1)]},
    ]
    for changes in wrong:
        report = compare(facts(charged(), **changes), NOON)
        (difference,) = report.differences
        assert difference.startswith((SHOP, ANA))
        assert not report.equal


def test_an_account_that_nobody_spent_from_needs_no_row() -> None:
    tally = tallied(complete("c"))
    none: dict[str, Any] = {"spent": [], "governed": {SHOP: 0}}
    assert compare(facts(tally, **none), NOON).equal


def test_sequences_that_differ_are_told() -> None:
    for totals, words in (
        (Totals(1, 1, rows=1, sequences=0, first_missing=1), "the first that it lacks is 1"),
        (Totals(1, 1, rows=2, sequences=1), "sequences twice: 1"),
        (Totals(1, 1, rows=2, sequences=2), "has 2 of the ledger's 1 events"),
    ):
        assert words in " ".join(compare(facts(charged(), totals=totals), NOON).differences)
    beyond = compare(facts(charged(), seq=3), NOON).differences
    assert "sequences that the ledger lacks: 2" in beyond


def test_who_did_not_answer_is_told_and_compared_with_nobody() -> None:
    report = compare(facts(charged(), totals=None, spent=[], governed={}, away=["away"]), NOON)
    assert report.differences == ["away"]
    (account,) = report.accounts
    assert (account.events_nano, account.governor_nano, account.equal) == (None, None, True)
