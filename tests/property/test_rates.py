"""Rates hold however their use is split among holders, and whatever their clocks say."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.budgets.messages import RateShortage, RateWant
from ledger.budgets.rates import Rates

MILLI = 1_000_000
SECOND = 1000 * MILLI
NOW = 1_763_700_000 * SECOND
HOLDERS = 4


class Ingress:
    """One holder: it uses what it has until its own clock says that the lease is over, and as soon
    or as late as it likes."""

    def __init__(self, name: str, skew_ns: int) -> None:
        self.name = name
        self.skew_ns = skew_ns
        self.amount = 0
        self.until_ns = 0

    def clock(self, now_ns: int) -> int:
        return now_ns + self.skew_ns


# (holder, milliseconds since the step before, how many are used at most, how many are liked)
steps = st.lists(
    st.tuples(
        st.integers(0, HOLDERS - 1),
        st.one_of(st.integers(0, 3), st.integers(0, 80), st.sampled_from([500, 1000])),
        st.integers(1, 40),
        st.integers(0, 300),
    ),
    max_size=300,
)
# How far the clock of each is ahead of the governor's.
skews = st.lists(st.integers(-5 * MILLI, 5 * MILLI), min_size=HOLDERS, max_size=HOLDERS)


def second(limit: int, burst: int) -> Callable[[int], RateWant]:
    return lambda like: RateWant("key:a:requests/s", limit, 1, like, 1.0, burst)


def used(
    script: list[tuple[int, int, int, int]],
    skew: list[int],
    want: Callable[[int], RateWant],
    give_back: bool,
) -> list[int]:
    """Play a script; every use by the time stamp of who used it."""
    rates, now_ns, stamps = Rates(), NOW, []
    ingresses = [Ingress(str(number), skew_ns) for number, skew_ns in enumerate(skew)]
    for number, pause, uses, like in script:
        now_ns += pause * MILLI
        one = ingresses[number]
        for _ in range(uses):
            if one.clock(now_ns) >= one.until_ns:
                if give_back and one.amount:
                    rates.give_back(one.name, {want(0).rate: one.amount}, now_ns)
                one.amount = 0
            if not one.amount:
                answer = rates.take((want(like),), one.name, now_ns)
                if isinstance(answer, RateShortage):
                    break
                one.amount, one.until_ns = answer[0].amount, answer[0].until_ns
            if one.clock(now_ns) < one.until_ns:
                one.amount -= 1
                stamps.append(one.clock(now_ns))
    return sorted(stamps)


def most_within(stamps: list[int], span_ns: int) -> int:
    """The largest number of stamps in any half-open window."""
    most = first = 0
    for last, stamp in enumerate(stamps):
        while stamp - stamps[first] >= span_ns:
            first += 1
        most = max(most, last - first + 1)
    return most


@given(steps, skews, st.integers(1, 400), st.integers(1, 60))
def test_no_second_has_more_than_limit_and_burst(
    script: list[tuple[int, int, int, int]], skew: list[int], limit: int, burst: int
) -> None:
    stamps = used(script, skew, second(limit, burst), give_back=False)
    assert most_within(stamps, SECOND) <= limit + burst


@given(steps, skews, st.integers(1, 400), st.booleans())
def test_no_second_has_more_than_a_limit_without_burst(
    script: list[tuple[int, int, int, int]], skew: list[int], limit: int, give_back: bool
) -> None:
    stamps = used(script, skew, second(limit, 0), give_back)
    assert most_within(stamps, SECOND) <= limit


@settings(max_examples=20, deadline=None)
@given(
    skews,
    st.integers(50, 3000),
    st.sampled_from([0, 0.2, 1]),
    st.integers(1, 500),
    st.integers(400, 600),
)
def test_leases_saved_up_to_their_last_moment_are_not_too_many(
    skew: list[int], limit: int, part: float, like: int, from_ms: int
) -> None:
    """The worst that can be done: everybody keeps all they can get until it is about to end, and
    from some moment on uses everything at once."""
    burst = int(limit * part)
    rates, stamps = Rates(), []
    ingresses = [Ingress(str(number), skew_ns) for number, skew_ns in enumerate(skew)]
    want = second(limit, burst)(like)
    for now_ns in range(NOW, NOW + 1700 * MILLI, 1 * MILLI):
        hasty = now_ns >= NOW + from_ms * MILLI
        for one in ingresses:
            here_ns = one.clock(now_ns)
            if here_ns >= one.until_ns:
                one.amount = 0
            if not one.amount:
                answer = rates.take((want,), one.name, now_ns)
                if not isinstance(answer, RateShortage):
                    one.amount, one.until_ns = answer[0].amount, answer[0].until_ns
            if one.amount and (hasty or here_ns + MILLI >= one.until_ns) and here_ns < one.until_ns:
                stamps += [here_ns] * one.amount
                one.amount = 0
    assert most_within(sorted(stamps), SECOND) <= limit + burst


@pytest.mark.parametrize(
    ("limit", "burst"), [(2000, 200), (1000, 100), (10, 20), (100, 1), (3, 1), (50_000, 5000)]
)
def test_uneven_use_gets_the_whole_limit(limit: int, burst: int) -> None:
    """Four holders that use up what they have; the first of them nine times as much as the rest."""
    script = [(0 if at % 10 else at // 10 % HOLDERS, 1, limit, limit // 10) for at in range(5000)]
    stamps = used(
        script,
        [0] * HOLDERS,
        second(limit, burst),
        give_back=False,
    )
    assert 5 * limit * 0.99 <= len(stamps) <= 5 * limit + burst
