"""Frames come late, twice and out of order; what is given out is in order and once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingress.sequencer import Interrupted, Sequencer
from schemas.errors import ErrorInfo
from schemas.frames import Chunk, Failure, Fence, Frame, Moved, Timings


def chunk(fence: Fence, index: int) -> Chunk:
    return Chunk(fence=fence, index=index, parts=(b"%d" % index,))


def failure(fence: Fence, index: int) -> Failure:
    info = ErrorInfo(status=502, type="server_error", message="gone")
    return Failure(fence, index, "event", 1, info, Timings(total=1.0), 1)


FIRST = Fence(7, 1, 1)


@given(
    total=st.integers(1, 30),
    data=st.data(),
)
def test_any_arrival_order_with_repeats_gives_each_frame_once_and_in_order(
    total: int, data: st.DataObject
) -> None:
    frames = [chunk(FIRST, index) for index in range(1, total + 1)]
    repeats = data.draw(st.lists(st.sampled_from(frames), max_size=total))
    arrivals = data.draw(st.permutations(frames + repeats))
    sequencer = Sequencer()
    given_out: list[Frame] = []
    for frame in arrivals:
        given_out += sequencer.accept(frame)
    assert given_out == frames
    assert not sequencer.has_gap


@given(missing=st.integers(1, 10), later=st.integers(1, 10))
def test_nothing_after_a_gap_is_given_out_until_it_is_filled(missing: int, later: int) -> None:
    sequencer = Sequencer()
    for index in range(1, missing):
        assert sequencer.accept(chunk(FIRST, index))
    for index in range(missing + 1, missing + 1 + later):
        assert sequencer.accept(chunk(FIRST, index)) == []
    assert sequencer.has_gap
    assert len(sequencer.accept(chunk(FIRST, missing))) == later + 1
    assert not sequencer.has_gap


def test_a_frame_below_the_highest_fence_is_dropped() -> None:
    sequencer = Sequencer()
    sequencer.accept(Moved(Fence(7, 2, 1), 1, 1, 2))
    assert sequencer.accept(chunk(FIRST, 1)) == []


def test_a_higher_fence_restarts_an_answer_of_which_nothing_was_shown() -> None:
    sequencer = Sequencer()
    assert sequencer.accept(chunk(FIRST, 2)) == []
    second = chunk(Fence(7, 2, 1), 1)
    assert sequencer.accept(second) == [second]
    assert not sequencer.has_gap


def test_a_higher_fence_after_a_byte_went_out_interrupts_the_answer() -> None:
    sequencer = Sequencer()
    sequencer.accept(chunk(FIRST, 1))
    with pytest.raises(Interrupted):
        sequencer.accept(chunk(Fence(7, 2, 1), 1))


def test_a_failure_of_a_higher_fence_is_the_answers_own_end() -> None:
    sequencer = Sequencer()
    sequencer.accept(chunk(FIRST, 1))
    end = failure(Fence(7, 2, 1), 1)
    assert sequencer.accept(end) == [end]
