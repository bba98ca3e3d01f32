"""What a governor that takes over makes of rates that another one has leased."""

import asyncio
from typing import Any

import pytest

from ledger.budgets.legacy import Legacy
from ledger.budgets.messages import RateWant
from ledger.budgets.rates import Rates
from ledger.budgets.recent import Recent
from ledger.open_calls import OpenCalls
from schemas import subjects
from schemas.access import Limits
from schemas.errors import RateLimited
from schemas.events import LedgerEvent
from schemas.usage import Usage
from tests import sample_events as sample
from tests.unit.test_rates import refused, taken
from tests.unit.test_rating import Governor, Ingress

SECOND = 1_000_000_000
HOUR = 3600 * SECOND
NOW = sample.NOON + 30 * SECOND


class Ledger:
    """What all governors fold."""

    def __init__(self) -> None:
        self.recent = Recent()
        self.open = OpenCalls()
        self.seq = 0

    def append(self, *events: LedgerEvent) -> None:
        for event in events:
            self.seq += 1
            self.recent.fold(event, self.open.start_of(event.call_id))
            self.open.fold(self.seq, event)

    def calls(self, count: int, at_ns: int, name: str = "a", **whose: Any) -> None:
        for number in range(count):
            self.append(sample.start(f"{name}{number}", at_ns, **{"key_id": "a", **whose}))

    def end(self, name: str, at_ns: int, tokens: int) -> None:
        usage = Usage(input=tokens)
        self.append(sample.complete(name, at_ns, usage=usage, key_id="a"))

    def governor(self, at_ns: int = NOW) -> Rates:
        return Rates(Legacy(self.recent, self.open, self.seq, at_ns))


def hourly(limit: int, need: int = 1, like: int = 0, what: str = "requests") -> RateWant:
    return RateWant(f"key:a:{what}/h", limit, need, like, 3600.0)


def slots(limit: int, scope: str = "key:a") -> RateWant:
    return RateWant(f"{scope}:calls", limit, 1, seconds=0.0)


def test_a_window_begins_with_what_the_ledger_has_of_it() -> None:
    ledger = Ledger()
    ledger.calls(7, NOW - 2 * HOUR, "old")
    ledger.calls(5, NOW - HOUR // 2, "half")
    ledger.calls(3, NOW - 10 * SECOND)
    rates = ledger.governor()
    (lease,) = taken(rates, NOW, hourly(10))
    assert (lease.left, lease.reign) == (1, ledger.seq)
    taken(rates, NOW, hourly(10))
    short = refused(rates, NOW, hourly(10))
    assert HOUR // 2 <= short.wait * SECOND <= HOUR // 2 + 61 * SECOND
    assert NOW + HOUR <= short.resets_ns <= NOW + HOUR + 61 * SECOND
    assert taken(rates, NOW + HOUR // 2 + 61 * SECOND, hourly(10))[0].left == 4


def test_a_minute_and_an_hour_of_each_scope_are_their_own() -> None:
    ledger = Ledger()
    ledger.calls(4, NOW - 90 * SECOND, "old", project="shop", model="m")
    ledger.calls(3, NOW, project="shop", model="m")
    rates = ledger.governor()
    for rate, seconds, left in (
        ("key:a:requests/m", 60, 6),
        ("client:a:requests/h", 3600, 2),
        ("project:shop:requests/m", 60, 6),
        ("model:m:requests/h", 3600, 2),
        ("user:ana:requests/h", 3600, 9),
        ("team:shop:requests/h", 3600, 9),
    ):
        assert taken(rates, NOW, RateWant(rate, 10, 1, 0, seconds))[0].left == left, rate


def test_what_lasts_less_than_a_minute_begins_anew() -> None:
    ledger = Ledger()
    ledger.calls(10, NOW)
    rates = ledger.governor()
    for burst in (0, 10):
        assert taken(rates, NOW, RateWant(f"key:a{burst}:requests/s", 10, 1, 0, 1.0, burst))


def test_what_was_before_does_not_matter_to_a_limit_that_is_newer_than_a_whole_window() -> None:
    ledger = Ledger()
    rates = ledger.governor()
    ledger.calls(50, NOW + HOUR)
    assert taken(rates, NOW + HOUR + SECOND, hourly(10))[0].left == 9


def test_leases_of_a_predecessor_that_are_used_later_count() -> None:
    ledger = Ledger()
    rates = ledger.governor()
    assert taken(rates, NOW, hourly(10))[0].left == 9
    ledger.calls(5, NOW + SECOND)
    assert taken(rates, NOW + SECOND, hourly(10))[0].left == 5 - 1
    ledger.calls(3, NOW + 2 * SECOND, "more")
    assert taken(rates, NOW + 2 * SECOND, hourly(10))[0].left == 10 - 8 - 1


def test_a_call_with_a_lease_from_here_counts_once() -> None:
    ledger = Ledger()
    rates = ledger.governor()
    for number in range(10):
        (lease,) = taken(rates, NOW + number * SECOND // 2, hourly(10))
        ledger.calls(1, NOW + number * SECOND // 2, f"n{number}")
        assert lease.left == 9 - number
    refused(rates, NOW + 5 * SECOND, hourly(10))


def test_what_a_predecessor_granted_is_not_given_back_here() -> None:
    ledger = Ledger()
    ledger.calls(4, NOW)
    rates = ledger.governor()
    taken(rates, NOW, hourly(10, need=3), holder="other")
    rates.give_back("h", {"key:a:requests/h": 3, "key:a:calls": 2}, NOW)
    rates.give_back("h", {"key:a:requests/h": -2}, NOW)
    assert taken(rates, NOW, hourly(10))[0].left == 2
    rates.give_back("h", {"key:a:requests/h": -2}, NOW)
    refused(rates, NOW, hourly(10))


def test_tokens_of_calls_that_still_ran_count_when_they_end() -> None:
    ledger = Ledger()
    ledger.calls(3, NOW)
    ledger.end("a0", NOW + SECOND, 100)
    rates = ledger.governor(NOW + 2 * SECOND)
    at_ns = NOW + 3 * SECOND
    assert taken(rates, at_ns, hourly(1000, 10, what="tokens"))[0].left == 890
    ledger.end("a1", NOW + 60 * SECOND, 200)
    at_ns = NOW + 70 * SECOND
    assert taken(rates, at_ns, hourly(1000, 10, what="tokens"))[0].left == 680
    ledger.calls(1, at_ns, "new")
    ledger.end("new0", at_ns + SECOND, 10)
    at_ns += 2 * SECOND
    assert taken(rates, at_ns, hourly(1000, 10, what="tokens"))[0].left == 670


@pytest.mark.parametrize("id", ["a", "k" * 200, "Ä" * 9])
def test_slots_are_those_of_the_open_calls(id: str) -> None:
    ledger = Ledger()
    ledger.calls(3, NOW, key_id=id)
    ledger.calls(3, NOW, "b", key_id="b")
    ledger.append(sample.complete("a0", NOW, key_id=id))
    rates = ledger.governor()
    want = slots(3, f"key:{subjects.token(id)}")
    taken(rates, NOW, want)
    ledger.calls(1, NOW, "mine", key_id=id)
    refused(rates, NOW, want)
    rates.drop_idle(NOW)
    refused(rates, NOW, want)
    ledger.append(sample.complete("a1", NOW, key_id=id))
    taken(rates, NOW, want)
    refused(rates, NOW, want)


def test_a_slot_from_here_is_free_when_it_is_given_back_and_the_ledger_is_behind() -> None:
    ledger = Ledger()
    ledger.calls(1, NOW, "b", key_id="b")
    rates = ledger.governor()
    taken(rates, NOW, slots(1))
    ledger.calls(1, NOW)
    rates.give_back("h", {"key:a:calls": 1}, NOW)
    rates.drop_idle(NOW)
    taken(rates, NOW, slots(1))


@pytest.mark.parametrize("rate", ["", "key", "key::calls", "key:=ZZ:calls", "key:~:calls", "?:a:b"])
@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_a_rate_of_any_name_is_granted(rate: str, seconds: float) -> None:
    ledger = Ledger()
    ledger.calls(3, NOW)
    assert taken(ledger.governor(), NOW, RateWant(rate, 3, 1, 0, seconds))[0].left == 2


def test_slots_of_calls_from_before_outlive_the_holder_that_dies_here() -> None:
    ledger = Ledger()
    ledger.calls(1, NOW)
    rates = ledger.governor()
    taken(rates, NOW, slots(2))
    rates.forget("h", NOW)
    taken(rates, NOW, slots(2), holder="i")
    refused(rates, NOW, slots(2), holder="i")


def test_scopes_that_share_are_refused_rather_than_let_through() -> None:
    ledger = Ledger()
    ledger.recent = Recent(most=2)
    for number in range(12):
        ledger.calls(1, NOW, f"n{number}", key_id=f"k{number}")
    rates = ledger.governor()
    assert taken(rates, NOW, RateWant("key:k0:requests/h", 10, 1, 0, 3600))[0].left == 8
    refused(rates, NOW, RateWant("key:k9:requests/h", 10, 1, 0, 3600))


class Reigns(Governor):
    """A governor after another; its ledger has the calls of one ingress."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.ledger.append(sample.lost("before", self.now_ns))

    def take_over(self) -> None:
        self.ledger.append(sample.lost("start", self.now_ns))
        self.rates = self.ledger.governor(self.now_ns)

    async def has(self, want: RateWant, left: int) -> None:
        """Wait until so much is left, once what is not used has come back."""
        async with asyncio.timeout(10):
            while taken(self.rates, self.now_ns, want)[0].left != left:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_an_ingress_drops_what_a_predecessor_granted() -> None:
    governor = Reigns()
    governor.take_over()
    one = Ingress(governor)
    hour = Limits(requests_per_hour=1000)
    for _ in range(20):
        await one.call(hour)
    governor.take_over()
    governor.ledger.calls(20, governor.now_ns, key_id="k")
    await one.call(Limits(requests_per_minute=100), tenant={"key_id": "other"})
    governor.asked.clear()
    await one.call(hour)
    assert [want.rate for wants in governor.asked for want in wants] == ["key:k:requests/h"]


async def test_an_ingress_settles_nothing_of_calls_that_a_predecessor_let_pass() -> None:
    governor = Reigns()
    governor.take_over()
    one = Ingress(governor)
    limits = Limits(tokens_per_minute=1000, concurrent=5)
    running = [await one.call(limits, tokens=100) for _ in range(3)]
    governor.ledger.calls(3, governor.now_ns, key_id="k")
    governor.take_over()
    new = await one.call(limits, tokens=100)
    for number, passed in enumerate(running):
        usage = Usage(input=40)
        governor.ledger.append(
            sample.complete(f"a{number}", governor.now_ns, usage=usage, key_id="k")
        )
        passed.release(40)
    tokens = RateWant("key:k:tokens/m", 1000, 0, 0, 60)
    slots = RateWant("key:k:calls", 5, 0, seconds=0)
    governor.now_ns += 2 * SECOND
    await governor.has(tokens, 1000 - 100 - 3 * 40)
    await governor.has(slots, 4)
    new.release(60)
    await governor.has(tokens, 1000 - 60 - 3 * 40)
    await governor.has(slots, 5)


async def test_slots_of_a_predecessor_are_not_used_again_here() -> None:
    governor = Reigns()
    governor.take_over()
    one = Ingress(governor)
    limits = Limits(concurrent=2)
    running = [await one.call(limits) for _ in range(2)]
    governor.ledger.calls(2, governor.now_ns, key_id="k")
    governor.take_over()
    with pytest.raises(RateLimited):
        await one.call(limits)
    governor.now_ns += SECOND
    governor.ledger.append(sample.complete("a0", governor.now_ns, key_id="k"))
    running[0].release(None)
    await asyncio.sleep(0.05)
    await one.call(limits)
    with pytest.raises(RateLimited):
        await one.call(limits)
