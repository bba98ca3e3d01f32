"""The circuits of targets: one by one, and against a plain model under any sequence of events."""

from dataclasses import dataclass
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ledger.target_states import TargetStates
from schemas.config import BreakerConfig
from schemas.ids import Clock
from schemas.target_events import TargetState
from workers.breakers import Breakers, Passage
from workers.failures import Failures
from workers.providers.base import AttemptFailed

SETTINGS = BreakerConfig(max_failures=3, reset_seconds=10.0, longest_reset_seconds=60.0)
FAILURES = Failures("openai", (), Clock())
BROKEN = FAILURES.refused(503, {}, b'{"error": {"message": "overloaded", "code": "busy"}}')
REFUSED = FAILURES.broken("could not be reached", reached=False, network=True)
BAD_KEY = FAILURES.refused(401, {}, b"")
TOO_MANY = FAILURES.refused(429, {}, b"")
GPT = ("openai", "gpt-4o")
MINI = ("openai", "gpt-4o-mini")
CLAUDE = ("anthropic", "claude")


class Bench:
    """Breakers with a clock that the test turns, and the ledger's part done at once."""

    def __init__(self, settings: BreakerConfig = SETTINGS) -> None:
        self.seconds = 1_790_000_000.0
        self.clock = Clock(now_ns=lambda: int(self.seconds * 1e9))
        self.states = TargetStates()
        self.breakers = Breakers(settings, self.states, self.clock)

    def passage(self, target: tuple[str, str] = GPT, *, own_key: bool = False) -> Passage:
        return self.breakers.passage(*target, own_key=own_key)

    def fail(
        self,
        times: int = 1,
        target: tuple[str, str] = GPT,
        failed: AttemptFailed = BROKEN,
        began: float | None = None,
    ) -> TargetState | None:
        """Attempts that began just now, unless `began` says when, fail."""
        opened = None
        began = self.clock.monotonic() if began is None else began
        for _ in range(times):
            opened = self.hold(self.breakers.failed(*target, failed, began))
        return opened

    def probe(self, target: tuple[str, str] = GPT) -> TargetState:
        """Begin the probe that is due."""
        (state,) = self.passage(target).probes
        probe = self.breakers.probe(state, within=5.0)
        self.states.fold(probe)
        return probe

    def hold(self, change: TargetState | None) -> TargetState | None:
        if change is not None:
            self.states.fold(change)
        return change


def test_failures_in_a_row_open_a_target_and_no_other() -> None:
    bench = Bench()
    assert bench.fail(2) is None
    opened = bench.fail()
    assert opened is not None
    assert (opened.state, opened.engine, opened.failures, opened.code) == (
        "open",
        "gpt-4o",
        3,
        "busy",
    )
    assert bench.passage() == Passage(10.0, BROKEN.info.message)
    assert bench.passage(MINI) == bench.passage(CLAUDE) == Passage()


def test_an_answer_in_between_begins_the_count_anew() -> None:
    bench = Bench()
    bench.fail(2)
    bench.breakers.answered(*GPT)
    assert bench.fail(2) is None
    assert bench.fail() is not None


def test_calls_that_hung_while_others_were_answered_open_nothing() -> None:
    bench = Bench()
    began = bench.clock.monotonic()
    bench.breakers.answered(*GPT)
    assert bench.fail(100, began=began) is None
    assert bench.fail(100, failed=REFUSED, began=began) is None
    assert bench.fail(3, MINI, began=began) is not None
    assert bench.fail(3) is not None


def test_what_nobody_is_blamed_for_is_not_counted() -> None:
    assert Bench().fail(100, failed=TOO_MANY) is None


def test_a_connection_that_fails_opens_the_whole_provider() -> None:
    bench = Bench()
    opened = bench.fail(3, failed=REFUSED)
    assert opened is not None and opened.engine == ""
    assert bench.passage(GPT).seconds == bench.passage(MINI).seconds == 10.0
    assert bench.passage(CLAUDE) == Passage()


def test_bad_credentials_of_ours_do_not_stop_a_call_with_a_key_of_its_own() -> None:
    bench = Bench()
    bench.fail(3, failed=BAD_KEY)
    assert bench.passage().seconds == 10.0
    assert bench.passage(own_key=True) == Passage()
    bench = Bench()
    bench.fail(3, failed=REFUSED)
    assert bench.passage(own_key=True).seconds == 10.0


def test_a_probe_that_fails_opens_for_longer_up_to_a_bound() -> None:
    bench = Bench()
    bench.fail(3)
    waited = []
    for _ in range(5):
        waited.append(bench.passage().seconds)
        bench.seconds += waited[-1]
        bench.hold(bench.breakers.reopen(bench.probe(), BROKEN))
    assert waited == [10.0, 20.0, 40.0, 60.0, 60.0]


def test_a_probe_that_is_answered_closes_and_the_next_opening_is_a_first_one() -> None:
    bench = Bench()
    bench.fail(3)
    bench.seconds += 10
    bench.hold(bench.breakers.reopen(bench.probe(), BROKEN))
    bench.seconds += 20
    bench.hold(bench.breakers.close(bench.probe()))
    assert bench.passage() == Passage()
    assert bench.fail(2) is None
    assert bench.fail() is not None
    assert bench.passage().seconds == 10.0


def test_while_a_probe_runs_all_others_wait_shortly_until_it_is_overdue() -> None:
    bench = Bench()
    bench.fail(3)
    bench.seconds += 10
    probe = bench.probe()
    assert 0 < bench.passage().seconds <= 2.0
    bench.seconds += 5
    assert bench.passage().probes == (probe,)


def test_a_probe_without_a_verdict_makes_room_for_another_at_once() -> None:
    bench = Bench()
    bench.fail(3)
    bench.seconds += 10
    released = bench.hold(bench.breakers.release(bench.probe()))
    assert bench.passage().probes == (released,)


def test_calls_that_were_under_way_when_it_opened_change_nothing() -> None:
    bench = Bench()
    bench.fail(3)
    until = bench.passage().seconds
    assert bench.fail(10) is None
    assert bench.passage().seconds == until


def test_without_a_number_of_failures_nothing_ever_opens() -> None:
    bench = Bench(BreakerConfig(max_failures=0))
    assert bench.fail(100) is None
    assert bench.passage() == Passage()


@dataclass
class Model:
    """A circuit as one would explain it to a colleague."""

    failures: int = 0
    opened: int = 0
    until: float | None = None
    probing: bool = False


class Circuit(RuleBasedStateMachine):
    """One target under any sequence of answers, failures, probes and time."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench()
        self.model = Model()
        self.running: TargetState | None = None

    @property
    def now(self) -> float:
        return self.bench.seconds

    @rule(seconds=st.integers(1, 70))
    def wait(self, seconds: int) -> None:
        self.bench.seconds += seconds

    @rule()
    def an_answer(self) -> None:
        self.bench.breakers.answered(*GPT)
        self.model.failures = 0

    @rule()
    def a_failure(self) -> None:
        opened = self.bench.fail()
        model = self.model
        if model.until is not None:
            assert opened is None
            return
        model.failures += 1
        assert (opened is not None) == (model.failures == SETTINGS.max_failures)
        if opened is not None:
            self.model = Model(opened=1, until=self.now + 10)

    @rule(verdict=st.sampled_from(["answers", "fails", "is cut off", "is killed"]))
    def a_probe(self, verdict: str) -> None:
        model = self.model
        if model.until is None or self.now < model.until:
            assert not self.bench.passage().probes
            return
        probe = self.bench.probe()
        breakers = self.bench.breakers
        if verdict == "answers":
            self.bench.hold(breakers.close(probe))
            self.model = Model(failures=model.failures)
        elif verdict == "fails":
            opened = model.opened + 1
            self.bench.hold(breakers.reopen(probe, BROKEN))
            self.model = Model(opened=opened, until=self.now + min(60, 10 * 2 ** (opened - 1)))
        elif verdict == "is cut off":
            self.bench.hold(breakers.release(probe))
            self.model = Model(opened=model.opened, until=self.now)
        else:
            self.model = Model(opened=model.opened, until=self.now + 5, probing=True)

    @invariant()
    def passes_as_the_model_says(self) -> None:
        passage, model = self.bench.passage(), self.model
        if model.until is None:
            assert passage == Passage()
        elif self.now >= model.until:
            assert passage.probes and not passage.seconds
        else:
            left = model.until - self.now
            expected = min(left, 2.0) if model.probing else left
            assert abs(passage.seconds - expected) < 0.002 and not passage.probes


TestCircuit: Any = Circuit.TestCase
TestCircuit.settings = settings(max_examples=60, stateful_step_count=40)
