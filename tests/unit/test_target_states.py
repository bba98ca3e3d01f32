"""What is known of the circuits of targets: a fold, the plan's question, the metric."""

from prometheus_client.parser import text_string_to_metric_families

from ingress.target_states import HeardStates
from ledger.beats import Processes
from ledger.checkpoint import Checkpoint
from ledger.exposition import Exposition, Position
from ledger.fold import Fold
from ledger.reader import Stored
from ledger.target_states import TargetStates
from ledger.telemetry import Telemetry
from schemas import subjects
from schemas.events import encode_event
from schemas.ids import Clock, rfc3339
from schemas.target_events import Circuit, TargetState

NOON = 1_790_000_000
CLOCK = Clock(now_ns=lambda: NOON * 10**9)


def state(circuit: Circuit, engine: str = "gpt-4o", *, left: int = 0) -> TargetState:
    return TargetState(
        event_id=f"{engine}-{circuit}",
        time=rfc3339(NOON * 10**9),
        v=1,
        provider="openai",
        engine=engine,
        state=circuit,
        until=rfc3339((NOON + left) * 10**9),
    )


def heard(*events: TargetState) -> HeardStates:
    return HeardStates(TargetStates(events), CLOCK)


def test_an_open_target_is_broken_until_its_probe_is_due() -> None:
    assert heard(state("open", left=1)).is_broken("openai", "gpt-4o")
    assert heard(state("half_open", left=1)).is_broken("openai", "gpt-4o")
    assert not heard(state("open")).is_broken("openai", "gpt-4o")
    assert not heard(state("open", left=1), state("closed")).is_broken("openai", "gpt-4o")
    assert not heard().is_broken("openai", "gpt-4o")


def test_what_breaks_as_a_whole_breaks_all_that_a_provider_has_and_nobody_else() -> None:
    states = heard(state("open", "", left=1), state("open", "gpt-4o"))
    assert states.is_broken("openai", "gpt-4o") and states.is_broken("openai", "other")
    assert not states.is_broken("azure", "gpt-4o")
    assert states.of_provider("openai") == {"*": "open", "gpt-4o": "open"}
    assert states.of_provider("azure") == {}


def test_the_last_state_stands_and_old_ones_make_room() -> None:
    states = TargetStates([state("open"), state("half_open")])
    assert [one.state for one in states.of("openai", "gpt-4o")] == ["half_open"]
    for number in range(5000):
        states.fold(state("open", f"engine-{number}"))
    assert len(list(states)) == 4096
    assert not states.of("openai", "gpt-4o")
    states.clear()
    assert states.all_closed and not list(states)


async def test_a_governor_goes_on_with_the_states_of_the_one_before() -> None:
    fold = Fold(Checkpoint())
    for seq, event in enumerate((state("open"), state("closed", "other")), start=1):
        fold.take(Stored(seq, subjects.LEDGER_STATES, encode_event(event)))
    successor = Fold(await fold.checkpoint())
    assert list(successor.targets) == [state("open"), state("closed", "other")]


def test_the_metric_has_every_target_that_was_ever_left_alone() -> None:
    targets = TargetStates([state("open"), state("half_open", "a"), state("closed", "")])
    exposition = Exposition(Telemetry(), Processes(CLOCK), lambda: Position(0, 0), targets)
    (family,) = [
        one
        for one in text_string_to_metric_families(exposition.text().decode())
        if one.name == "nexus_ai_provider_state"
    ]
    found = {(one.labels["provider"], one.labels["engine"]): one.value for one in family.samples}
    assert found == {("openai", "gpt-4o"): 2, ("openai", "a"): 1, ("openai", ""): 0}
