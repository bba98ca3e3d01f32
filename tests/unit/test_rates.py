"""The governor's side of rates: what is granted, what is refused, what comes back."""

import pytest

from ledger.budgets.messages import RateLease, RateShortage, RateWant
from ledger.budgets.rates import Rates

SECOND = 1_000_000_000
NOW = 1_763_700_000 * SECOND


def per_second(limit: float, burst: int = 0, need: int = 1, like: int = 0) -> RateWant:
    return RateWant("key:a:requests/s", limit, need, like, 1.0, burst)


def per_minute(limit: int, need: int = 1, like: int = 0, what: str = "requests") -> RateWant:
    return RateWant(f"key:a:{what}/m", limit, need, like, 60.0)


def slots(limit: int, rate: str = "key:a:calls", like: int = 0) -> RateWant:
    return RateWant(rate, limit, 1, like, 0.0)


def taken(rates: Rates, now_ns: int, *wants: RateWant, holder: str = "h") -> tuple[RateLease, ...]:
    answer = rates.take(wants, holder, now_ns)
    assert not isinstance(answer, RateShortage), answer
    return answer


def refused(rates: Rates, now_ns: int, *wants: RateWant, holder: str = "h") -> RateShortage:
    answer = rates.take(wants, holder, now_ns)
    assert isinstance(answer, RateShortage), answer
    return answer


def test_no_more_than_the_limit_in_a_minute_and_then_again() -> None:
    rates = Rates()
    for left in (2, 1, 0):
        (lease,) = taken(rates, NOW, per_minute(3))
        assert (lease.amount, lease.left) == (1, left)
    short = refused(rates, NOW + 59 * SECOND, per_minute(3))
    assert (short.rate, short.limit, short.left) == ("key:a:requests/m", 3, 0)
    assert 1.0 <= short.wait < 4.0
    assert short.resets_ns == NOW + 59 * SECOND + round(short.wait * SECOND)
    (lease,) = taken(rates, short.resets_ns, per_minute(3))
    assert lease.left == 2


def test_a_second_without_a_burst_has_no_more_than_the_limit() -> None:
    rates = Rates()
    for _ in range(10):
        taken(rates, NOW, per_second(10))
    assert refused(rates, NOW + SECOND, per_second(10)).wait < 0.1


def test_a_burst_may_be_taken_at_once_and_comes_back_evenly() -> None:
    rates = Rates()
    for _ in range(20):
        taken(rates, NOW, per_second(10, burst=20))
    short = refused(rates, NOW, per_second(10, burst=20))
    assert short.resets_ns == NOW + 2 * SECOND
    later = NOW + SECOND
    for _ in range(9):
        taken(rates, later, per_second(10, burst=20))
    assert rates.take((per_second(10, burst=20, need=2),), "h", later + 10**8) != ()


def test_a_burst_too_small_to_be_parted_is_granted_one_by_one() -> None:
    rates = Rates()
    (lease,) = taken(rates, NOW, per_second(100, burst=2, like=50))
    assert lease.amount == 1
    taken(rates, NOW, per_second(100, burst=2))
    assert refused(rates, NOW, per_second(100, burst=2)).wait == pytest.approx(0.01)
    taken(rates, NOW + 10_000_000, per_second(100, burst=2))


def test_who_would_like_more_gets_a_part_of_what_is_left() -> None:
    rates = Rates()
    (lease,) = taken(rates, NOW, per_minute(100, need=20, like=1000))
    assert (lease.amount, lease.left) == (40, 60)
    assert NOW < lease.until_ns <= NOW + 5 * SECOND
    (lease,) = taken(rates, NOW, per_minute(100, like=3))
    assert lease.amount == 4


def test_everything_or_nothing_is_taken() -> None:
    rates = Rates()
    taken(rates, NOW, per_minute(10), slots(1))
    short = refused(rates, NOW, per_minute(10), slots(1), holder="other")
    assert (short.rate, short.left) == ("key:a:calls", 0)
    (lease,) = taken(rates, NOW, per_minute(10))
    assert lease.left == 8


def test_what_was_not_used_comes_back() -> None:
    rates = Rates()
    taken(rates, NOW, per_minute(100, need=90, what="tokens"))
    rates.give_back("h", {"key:a:tokens/m": 50, "key:nobody:tokens/m": 1}, NOW + SECOND)
    (lease,) = taken(rates, NOW + SECOND, per_minute(100, what="tokens"))
    assert lease.left == 59
    rates.give_back("stranger", {"key:a:tokens/m": 41}, NOW + SECOND)
    (lease,) = taken(rates, NOW + SECOND, per_minute(100, what="tokens"))
    assert lease.left == 58


def test_no_more_comes_back_than_was_taken() -> None:
    rates = Rates()
    taken(rates, NOW, per_minute(10, need=3))
    rates.give_back("h", {"key:a:requests/m": 50}, NOW)
    (lease,) = taken(rates, NOW, per_minute(10))
    assert lease.left == 9


def test_more_tokens_than_were_granted_are_owed() -> None:
    rates = Rates()
    taken(rates, NOW, per_minute(100, need=90, what="tokens"))
    rates.give_back("h", {"key:a:tokens/m": -200}, NOW + 10 * SECOND)
    short = refused(rates, NOW + 61 * SECOND + 60 * SECOND // 40, per_minute(100, what="tokens"))
    assert short.left == 0
    assert 8.0 < short.wait < 13.0


def test_slots_belong_to_a_holder_until_they_come_back_or_it_is_gone() -> None:
    rates = Rates()
    taken(rates, NOW, slots(2), holder="one")
    taken(rates, NOW, slots(2), holder="two")
    assert refused(rates, NOW + 3600 * SECOND, slots(2), holder="three").left == 0
    rates.give_back("one", {"key:a:calls": 1}, NOW)
    rates.give_back("one", {"key:a:calls": 1}, NOW)
    taken(rates, NOW, slots(2), holder="three")
    refused(rates, NOW, slots(2), holder="four")
    rates.forget("two", NOW)
    taken(rates, NOW, slots(2), holder="four")
    refused(rates, NOW, slots(2), holder="five")


def test_slots_for_calls_that_wait_are_granted_together() -> None:
    rates = Rates()
    (lease,) = taken(rates, NOW, slots(5, like=9))
    assert (lease.amount, lease.left) == (5, 0)


@pytest.mark.parametrize(
    ("before", "after", "left"),
    [
        (per_minute(10, need=6), per_minute(8), 1),
        (per_minute(10, need=6), per_minute(100), 93),
        (per_second(10, burst=20, need=15), per_second(100, burst=40), 24),
        (slots(1), slots(5), 3),
    ],
)
def test_a_limit_that_was_changed_holds_at_once(
    before: RateWant, after: RateWant, left: int
) -> None:
    rates = Rates()
    taken(rates, NOW, before)
    (lease,) = taken(rates, NOW, after)
    assert lease.left == left


def test_a_limit_lowered_below_what_was_taken_refuses() -> None:
    rates = Rates()
    taken(rates, NOW, per_minute(10, need=6))
    assert refused(rates, NOW, per_minute(5)).left == 0


def test_idle_rates_are_forgotten() -> None:
    rates = Rates()
    taken(rates, NOW, per_minute(10), per_second(10, burst=5), slots(3))
    assert len(rates) == 3
    rates.drop_idle(NOW + 30 * SECOND)
    assert len(rates) == 2
    rates.forget("h", NOW + 70 * SECOND)
    assert len(rates) == 0


def test_ids_that_clients_invent_share_what_is_left_when_there_are_too_many() -> None:
    rates = Rates(most=100)
    for number in range(1000):
        want = RateWant(f"client:{number}:requests/m", 200, 1, 0, 60.0)
        answer = rates.take((want,), "h", NOW + number)
        assert isinstance(answer, RateShortage) == (number >= 300)
    assert len(rates) <= 101
    taken(rates, NOW, RateWant("key:a:requests/m", 200, 1, 0, 60.0))
    taken(rates, NOW, RateWant("client:5:requests/m", 200, 1, 0, 60.0))
    later = NOW + 62 * SECOND
    taken(rates, later, RateWant("client:999:requests/m", 200, 1, 0, 60.0))


def test_slots_of_the_shared_rate_come_back() -> None:
    rates = Rates(most=1)
    taken(rates, NOW, slots(1, "client:one:calls"))
    taken(rates, NOW, slots(1, "client:two:calls"))
    refused(rates, NOW, slots(1, "client:three:calls"))
    rates.give_back("h", {"client:two:calls": 1}, NOW)
    taken(rates, NOW, slots(1, "client:three:calls"))
