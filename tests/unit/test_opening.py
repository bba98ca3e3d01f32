"""What a governor begins with where it has no checkpoint: from any sequence on it is as if it had
folded the ledger from its beginning."""

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from analytics import opening as questions
from analytics import projection
from analytics.opening import opening
from ledger.budgets.alerts import Alerts, Told
from ledger.budgets.book import Book
from ledger.budgets.opening import PARTS, Opening, OpeningParams, Part, opening_of
from ledger.open_calls import OpenCalls
from schemas.budget_events import LeaseGranted, Movement
from schemas.events import LedgerEvent, Terminal
from schemas.ids import Clock, rfc3339
from tests import sample_events as sample
from tests.budget_history import EVERY, KEPT, History
from tests.sample_events import NOON, SECOND
from tests.warehouse import Warehouse, config_for, new_id, record, warehouse

SHOP = "project:shop:total@all.0"


class Folding:
    """The folds that matter, beside each other as in the governor."""

    def __init__(self, began: Opening | None = None) -> None:
        self.book = Book.restore(began.book, KEPT) if began else Book(KEPT)
        self.alerts = Alerts(began.alerts) if began else Alerts(Told())
        self.open_calls = OpenCalls()

    def read(self, events: list[Any], first: int, last: int) -> "Folding":
        began = self.book.seq
        for seq in range(first, last + 1):
            event: LedgerEvent = events[seq - 1]
            start = self.open_calls.start_of(event.call_id)
            self.open_calls.fold(seq, event)
            if self.book.fold(seq, event) and seq > began:
                self.alerts.fold(event, start)
        return self

    def told(self, ended: set[str]) -> dict[str, Any]:
        """What counts: an account that nobody was charged for, and a holder that has nothing, are
        as good as not known. Alerts of calls that had ended before are not told of."""
        state = self.book.snapshot()
        return {
            "settled": {one.account: one.settled for one in state.accounts if one.settled},
            "held": {one.account: self.book.held(one.account) for one in state.accounts
                     if self.book.held(one.account)},
            "free": {one.holder: one.free for one in state.holders if one.free},
            "calls": {one.call_id: (one.accounts, one.nano, sorted(one.taken))
                      for one in state.calls},
            "epochs": state.epochs,
            "warned": list(self.alerts.warned),
            "costly": sorted(one for one in self.alerts.costly if one not in ended),
            "open": {call.start.call_id for call in self.open_calls},
        }  # fmt: skip


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Warehouse]:
    async with warehouse(config_for("embedded", tmp_path)) as house:
        yield house


async def begin(house: Warehouse, through: int) -> Opening:
    """As the governor asks, and through the same JSON."""

    async def ask(part: Any, at: int, after: str = "") -> Part:
        params = OpeningParams(part, KEPT, at, after)
        told = await opening(params, house.projection, house.reader, through)
        return msgspec.json.decode(msgspec.json.encode(told), type=Part)

    head = await ask("head", 0)
    assert head.through == through
    parts: list[Part] = []
    for part in PARTS:
        after: str | None = ""
        while after is not None:
            parts.append(await ask(part, through, after))
            after = parts[-1].next
    return opening_of(head, parts)


@pytest.mark.parametrize("seed", range(3))
async def test_from_any_sequence_on_it_is_as_if_all_had_been_folded(
    house: Warehouse, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "AT_ONCE", 2)
    monkeypatch.setattr(questions, "CALLS_AT_ONCE", 2)
    monkeypatch.setattr(questions, "SEGMENT", 64)
    monkeypatch.setattr(projection, "SEGMENT", 64)
    history = History(random.Random(seed))
    while len(history.events) < 300:
        history.grow()
    events = history.events
    stored = [
        record(seq, event, (NOON + seq * EVERY) // 1000) for seq, event in enumerate(events, 1)
    ]
    await house.projection.add(stored)
    for through in (1, 149, 290):
        began = await begin(house, through)
        assert began.head.read_from <= through
        ended = {one.call_id for one in events[:through] if isinstance(one, Terminal)}
        for last in (through, through + 1, 300):
            folding = Folding(began).read(events, began.head.read_from, last)
            assert folding.told(ended) == Folding().read(events, 1, last).told(ended)


async def test_a_database_that_lacks_events_says_how_far_it_is_complete(house: Warehouse) -> None:
    events = [sample.complete(f"c{number}", event_id=new_id()) for number in range(6)]
    stored = [record(seq, event) for seq, event in enumerate(events, 1)]
    for first, last, through in ((3, 6, 0), (0, 1, 1), (1, 2, 2), (2, 3, 6)):
        await house.projection.add(stored[first:last])
        params = OpeningParams("head", KEPT)
        told = await opening(params, house.projection, house.reader, 6)
        assert told.through == through
    told = await opening(OpeningParams("head", KEPT), house.projection, house.reader, 4)
    assert told.through == 4


async def test_what_lies_before_the_first_of_the_live_holders_is_not_read(house: Warehouse) -> None:
    """No holder has events from before its own beginning: what is told so is of nobody."""
    hour = 3_600 * SECOND
    live = Clock(now_ns=lambda: NOON).new_id()
    silent = Clock(now_ns=lambda: NOON - 9 * hour).new_id()
    told = [
        (silent, NOON - 8 * hour, 100),
        (live, NOON - 2 * hour, 10),
        (live, NOON, 3),
        (live, NOON + 2 * hour, 4),
    ]
    events = [
        LeaseGranted(
            event_id=new_id(),
            time=rfc3339(at_ns),
            v=1,
            movements=(Movement(holder, f"r{number}", {SHOP: nano}),),
        )
        for number, (holder, at_ns, nano) in enumerate(told)
    ]
    await house.projection.add(
        [
            record(seq, event, at_ns // 1000)
            for seq, (event, (_, at_ns, _)) in enumerate(zip(events, told, strict=True), 1)
        ]
    )
    began = await begin(house, 4)
    assert {one.holder: one.free for one in began.book.holders} == {live: {SHOP: 7}}
