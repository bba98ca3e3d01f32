"""How many calls a pool runs at once, after refusals and answers."""

from hypothesis import given
from hypothesis import strategies as st

from schemas.ids import Clock
from workers.slots import Slots


class Turned:
    """Slots with a clock that the test turns, and what they told."""

    def __init__(self, most: int = 16, running: int = 16) -> None:
        self.now = 100.0
        self.told = 0
        self.slots = Slots("up", most, Clock(monotonic=lambda: self.now))
        self.slots.running = lambda: running
        self.slots.on_change = self._count

    def _count(self) -> None:
        self.told += 1

    def refused(self, after: float = 0.0) -> int:
        self.now += after
        self.slots.refused()
        return self.slots.allowed

    def answered(self, after: float = 0.0) -> int:
        self.now += after
        self.slots.answered()
        return self.slots.allowed


def test_a_refusal_halves_what_ran_and_not_what_was_allowed() -> None:
    assert Turned(running=16).refused() == 8
    assert Turned(running=6).refused() == 3
    assert Turned(running=1).refused() == 1


def test_refusals_of_one_second_count_once() -> None:
    turned = Turned()
    assert [turned.refused(), turned.refused(0.5), turned.refused(0.6)] == [8, 8, 4]


def test_each_second_with_an_answer_gives_one_slot_back() -> None:
    turned = Turned()
    turned.refused()
    assert [turned.answered(0.5), turned.answered(0.5), turned.answered(0.5)] == [8, 9, 9]
    assert [turned.answered(1.0) for _ in range(9)] == [10, 11, 12, 13, 14, 15, 16, 16, 16]


def test_everybody_is_told_of_a_change_and_of_nothing_else() -> None:
    turned = Turned()
    turned.answered(5)
    assert turned.told == 0
    turned.refused()
    turned.refused()
    turned.answered(1)
    assert turned.told == 2


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 3)), max_size=60), st.integers(1, 64))
def test_there_is_always_a_slot_and_never_more_than_configured(
    story: list[tuple[bool, float]], most: int
) -> None:
    turned = Turned(most=most, running=most)
    for is_refused, seconds in story:
        turned.refused(seconds) if is_refused else turned.answered(seconds)
        assert 1 <= turned.slots.allowed <= most
