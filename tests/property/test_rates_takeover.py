"""Rates hold over the death of a governor: whatever happened before it, whoever takes over lets
nobody use much more, or much less, than was left."""

import asyncio
from collections.abc import Iterator
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.budgets.legacy import Legacy
from ledger.budgets.messages import RateLease, RateShortage, RateWant
from ledger.budgets.rates import Rates
from ledger.budgets.recent import Recent
from ledger.budgets.trails import unpack
from ledger.open_calls import OpenCalls
from schemas.events import LedgerEvent
from tests import sample_events as sample
from tests.property.test_rates import most_within

MILLI = 1_000_000
SECOND = 1000 * MILLI
NOW = sample.NOON
HOLDERS = 3
# The last lease of a predecessor, and the parts into which a window is divided.
SLACK = {60: 4 * SECOND, 3600: 110 * SECOND}


class Bus:
    """The ledger, a governor that leads, and what the next one has folded."""

    def __init__(self) -> None:
        self.now_ns = NOW
        self.rates = Rates()
        self.recent = Recent()
        self.open = OpenCalls()
        self.reign = 0
        self._numbers = count(1)

    def append(self, event: LedgerEvent) -> None:
        self.recent.fold(event, self.open.start_of(event.call_id))
        self.reign = next(self._numbers)
        self.open.fold(self.reign, event)

    def take_over(self, from_checkpoint: bool) -> None:
        if from_checkpoint:
            self.recent = Recent(unpack(asyncio.run(self.recent.packed())))
        self.rates = Rates(Legacy(self.recent, self.open, self.reign, self.now_ns))


class Ingress:
    """Uses what it was granted until it ends, or until it hears of another reign."""

    def __init__(self, bus: Bus, name: str) -> None:
        self.name = name
        self.bus = bus
        self.reign = 0
        self.amount = 0
        self.until_ns = 0

    def expire(self, rate: str) -> None:
        if self.bus.now_ns >= self.until_ns and self.amount:
            self.bus.rates.give_back(self.name, {rate: self.amount}, self.bus.now_ns)
            self.amount = 0

    def lease(self, want: RateWant) -> bool:
        answer = self.bus.rates.take((want,), self.name, self.bus.now_ns)
        if isinstance(answer, RateShortage):
            return False
        self.put(answer[0])
        return True

    def put(self, lease: RateLease) -> None:
        if lease.reign != self.reign:
            self.reign, self.amount = lease.reign, 0
        self.amount += lease.amount
        self.until_ns = lease.until_ns


# (who, milliseconds since the step before, how many calls, how many are liked)
steps = st.lists(
    st.tuples(
        st.integers(0, HOLDERS - 1),
        st.one_of(st.integers(0, 200), st.sampled_from([1000, 2500, 10_000, 25_000])),
        st.integers(1, 30),
        st.integers(0, 60),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(
    steps,
    steps,
    st.integers(1, 150),
    st.sampled_from([60, 3600]),
    st.booleans(),
    st.integers(0, 5000),
)
def test_a_window_goes_on_where_it_was(
    before: list[tuple[int, int, int, int]],
    after: list[tuple[int, int, int, int]],
    limit: int,
    span: int,
    from_checkpoint: bool,
    pause: int,
) -> None:
    bus = Bus()
    ingresses = [Ingress(bus, str(number)) for number in range(HOLDERS)]
    rate = f"key:key_a:requests/{'m' if span == 60 else 'h'}"
    names = (f"call-{number}" for number in count())
    stamps: list[int] = []
    refused: list[tuple[int, int]] = []
    for script in (before, after):
        on_its_way = 0
        if script is after:
            bus.now_ns += pause * MILLI
            bus.take_over(from_checkpoint)
            on_its_way = sum(one.amount for one in ingresses if bus.now_ns < one.until_ns)
        for number, gap, calls, like in script:
            bus.now_ns += gap * MILLI
            one = ingresses[number]
            for _ in range(calls):
                one.expire(rate)
                if not one.amount and not one.lease(RateWant(rate, limit, 1, like, span)):
                    refused.append((bus.now_ns, sum(other.amount for other in ingresses)))
                    break
                one.amount -= 1
                bus.append(sample.start(next(names), bus.now_ns))
                stamps.append(bus.now_ns)
    assert most_within(stamps, span * SECOND) <= limit + on_its_way
    for at_ns, unused in refused:
        first_ns = at_ns - span * SECOND - SLACK[span]
        assert sum(first_ns <= stamp <= at_ns for stamp in stamps) + unused >= limit


# (who, whether a call begins or else the oldest of its calls ends)
turns = st.lists(st.tuples(st.integers(0, HOLDERS - 1), st.booleans()), max_size=60)


@given(turns, turns, st.integers(1, 8), st.booleans())
def test_a_slot_is_free_when_its_call_is_over_and_not_before(
    before: list[tuple[int, bool]],
    after: list[tuple[int, bool]],
    limit: int,
    from_checkpoint: bool,
) -> None:
    bus = Bus()
    names = (f"call-{number}" for number in count())
    running: dict[int, list[tuple[str, int]]] = {number: [] for number in range(HOLDERS)}
    heard = dict.fromkeys(running, 0)
    want = RateWant("key:key_a:calls", limit, 1, seconds=0)
    for step in _with_takeover(before, after):
        if step is None:
            bus.take_over(from_checkpoint)
            continue
        number, begins = step
        if begins:
            answer = bus.rates.take((want,), str(number), bus.now_ns)
            in_use = sum(map(len, running.values()))
            assert isinstance(answer, RateShortage) == (in_use >= limit)
            if not isinstance(answer, RateShortage):
                name = next(names)
                heard[number] = answer[0].reign
                running[number].append((name, answer[0].reign))
                bus.append(sample.start(name, bus.now_ns))
        elif running[number]:
            name, reign = running[number].pop(0)
            bus.append(sample.complete(name, bus.now_ns))
            if reign == heard[number]:
                bus.rates.give_back(str(number), {want.rate: 1}, bus.now_ns)


def _with_takeover(
    before: list[tuple[int, bool]], after: list[tuple[int, bool]]
) -> Iterator[tuple[int, bool] | None]:
    yield from before
    yield None
    yield from after
