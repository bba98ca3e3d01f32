"""The metric of calls that passed their rates because no governor answered."""

from prometheus_client.parser import text_string_to_metric_families

from ledger.beats import LET_THROUGH, Beat, Processes
from ledger.exposition import Exposition, Position
from ledger.telemetry import Telemetry
from schemas.ids import Clock


def shown(processes: Processes) -> dict[str, float]:
    """All numbers, without labels those that have none."""
    text = Exposition(Telemetry(), processes, lambda: Position(0, 0)).text().decode()
    return {
        sample.name + "".join(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_it_is_there_from_the_start() -> None:
    assert shown(Processes(Clock()))["nexus_ai_rate_let_through_total"] == 0


def test_it_is_the_sum_over_all_processes_and_no_error() -> None:
    processes = Processes(Clock())
    processes.fold(Beat("ingress", "a", {LET_THROUGH: 3}))
    processes.fold(Beat("ingress", "b", {LET_THROUGH: 1, "not_found_error": 2}))
    processes.fold(Beat("ingress", "a", {LET_THROUGH: 5}))
    found = shown(processes)
    assert found["nexus_ai_rate_let_through_total"] == 6
    assert found["nexus_ai_errors_totalnot_found_error"] == 2
    assert not any("error" in name and LET_THROUGH in name for name in found)


def test_a_successor_goes_on_with_it() -> None:
    before = Processes(Clock())
    before.fold(Beat("ingress", "a", {LET_THROUGH: 3}))
    successor = Processes(Clock(), before.refusals())
    successor.fold(Beat("ingress", "a", {LET_THROUGH: 4}))
    assert shown(successor)["nexus_ai_rate_let_through_total"] == 4
