"""An event that the ledger has twice counts once, and the same in everything that adds up money."""

import random
from pathlib import Path
from typing import Any

import msgspec

from ledger.budgets.book import Book
from ledger.budgets.once import Once
from ledger.checkpoint import Checkpoint
from ledger.fold import Fold
from ledger.tally import Tally
from schemas.event import Event
from schemas.events import LedgerEvent, Outcome, Terminal
from tests import sample_events as sample
from tests.ledger_fold import projected_spend, spent
from tests.sample_events import NOON, SECOND
from tests.warehouse import config_for, new_id, record, warehouse

KINDS: tuple[Any, ...] = (
    sample.attempt_failed,
    sample.attempt_abandoned,
    sample.attempt_late,
    sample.complete,
    sample.failed,
    sample.cancelled,
    sample.lost,
)
ACCOUNTS = ("project:shop:month@2026-11-01.0", "user:ana:day@2026-11-21.0", "global:total@all.1")


def history(chance: random.Random) -> list[Event]:
    """Calls whose events name accounts twice and come twice, some ids of one call in another."""
    events: list[Event] = []
    for number in range(60):
        named: dict[str, Any] = {
            "accounts": tuple(chance.choices(ACCOUNTS, k=chance.randint(0, 4)))
        }
        events.append(sample.start(f"c{number}", event_id=new_id(), hold_nano=5, **named))
        for _ in range(chance.randint(1, 4)):
            known = [one for one in events if one.call_id != f"c{number}"]
            id = chance.choice(known).event_id if known and chance.random() < 0.1 else new_id()
            fields: dict[str, Any] = {
                "event_id": id,
                "cost_nano": chance.choice((None, 0, 7, 123_456, -3)),
                "billed_to": chance.choice(("", "", "client")),
            }
            events.append(chance.choice(KINDS)(f"c{number}", **named, **fields))
    outcomes = [one for one in events if isinstance(one, Outcome)]
    copies = [one for one in outcomes if chance.random() < 0.3]
    for one in copies:
        events.insert(chance.randint(events.index(one) + 1, len(events)), one)
    return events


async def test_governor_database_and_tally_add_up_the_same_whatever_comes_twice(
    tmp_path: Path,
) -> None:
    for seed in range(4):
        events = history(random.Random(seed))
        numbered: list[tuple[int, Any]] = list(enumerate(events, 1))
        book, tally = Book(), Tally()
        for seq, event in numbered:
            book.fold(seq, event)
            tally.take(sample.stored(seq, event))
        plain = {account: nano for account, (nano, _, _) in spent(numbered).items()}
        assert {one: book.settled(one) for one in ACCOUNTS} == plain
        assert {one: tally.spent[one] for one in ACCOUNTS} == plain
        config = config_for("embedded", tmp_path / str(seed))
        async with warehouse(config) as house:
            for first in range(0, len(numbered), 90):
                part = [record(seq, event) for seq, event in numbered[first : first + 90]]
                await house.projection.add(part)
            stored = await projected_spend(house)
        assert {account: nano for account, (nano, _, _) in stored.items()} == plain
        ended = {one.call_id for one in events if isinstance(one, Terminal)}
        assert book.open_calls == 60 - len(ended)


def test_the_governor_counts_a_copy_in_none_of_its_numbers() -> None:
    fold, heard = Fold(Checkpoint()), list[LedgerEvent]()
    fold.on_event = heard.append
    start = sample.start("a", alert_nano=10)
    attempt = sample.attempt_failed("a", cost_nano=6, accounts=ACCOUNTS)
    end = sample.complete("a", cost_nano=5, accounts=ACCOUNTS)
    for seq, event in enumerate((start, attempt, attempt, end, attempt, end), 1):
        fold.take(sample.stored(seq, event))
    assert heard == [start, attempt, end]
    assert sum(fold.telemetry.cost_nano.values.values()) == 11
    assert [one.cost_nano for one in fold.alerts.costly.values()] == [11]
    assert (fold.seq, fold.book.seq, fold.book.settled(ACCOUNTS[0])) == (6, 6, 11)


def an_end(call_id: str, second: int, event_id: str = "e") -> LedgerEvent:
    return sample.complete(call_id, NOON + second * SECOND, event_id=event_id)


def test_marks_go_with_the_time_of_the_ledger_and_survive_a_handover() -> None:
    once = Once(kept=60)
    assert once.is_new(an_end("a", 0))
    for second in (0, 30, 60, 45):
        assert once.is_new(an_end(f"b{second}", second))
        once = Once(60, once.state())
        assert not once.is_new(an_end("a", 0))
    assert once.is_new(an_end("c", 61))
    assert once.is_new(an_end("a", 0))


def test_a_time_that_is_none_and_an_event_of_no_call_do_no_harm() -> None:
    once = Once()
    odd = msgspec.structs.replace(sample.complete("a"), time="yesterday")
    assert (once.is_new(odd), once.is_new(odd)) == (True, False)
    nobodys = sample.complete("")
    assert (once.is_new(nobodys), once.is_new(nobodys)) == (True, True)


def test_memory_is_bounded_where_time_stands_still() -> None:
    once = Once()
    for number in range(500_001):
        assert once.is_new(an_end("a", number // 100_000, str(number)))
    assert sum(map(len, once.state().values())) <= 8 * 500_000
    assert not once.is_new(an_end("a", 9, "500000"))
    assert once.is_new(an_end("a", 9, "0"))
