"""The state of a provider as a fold of its recent attempts."""

from ledger.health import Health, ProviderState
from schemas.errors import ErrorInfo
from tests import sample_events as sample
from tests.sample_events import NOON, SECOND


def state(health: Health, at_ns: int = NOON) -> ProviderState:
    return health.states(at_ns)["openai"]


def answers(health: Health, count: int, network_ms: float = 200.0) -> None:
    for number in range(count):
        health.fold(sample.complete(f"ok-{number}", network_ms=network_ms))


def failures(health: Health, count: int) -> None:
    for number in range(count):
        health.fold(sample.failed(f"bad-{number}"))


def test_a_provider_that_answers_is_healthy_with_its_median_latency() -> None:
    health = Health()
    for latency in (100.0, 200.0, 900.0):
        health.fold(sample.complete("a", network_ms=latency))
    assert state(health) == ProviderState("healthy", 200.0, 0.0, 3)


def test_a_fifth_of_failures_degrades_and_less_does_not() -> None:
    health = Health()
    answers(health, 9)
    failures(health, 2)
    assert state(health).status == "healthy"
    failures(health, 1)
    assert state(health) == ProviderState("degraded", 200.0, 0.25, 12)


def test_four_fifths_of_failures_make_a_provider_unhealthy() -> None:
    health = Health()
    answers(health, 1)
    failures(health, 4)
    assert state(health).status == "unhealthy"


def test_one_failure_alone_does_not_condemn_a_provider() -> None:
    health = Health()
    failures(health, 2)
    assert state(health) == ProviderState("degraded", None, 1.0, 2)
    failures(health, 1)
    assert state(health).status == "unhealthy"


def test_what_a_provider_holds_against_a_clients_own_key_says_nothing_of_the_provider() -> None:
    health = Health()
    answers(health, 1)
    for kind in ("authentication_error", "rate_limit_error"):
        error = ErrorInfo(status=429, type=kind, message="Not with that key.", provider="openai")
        for number in range(3):
            call_id = f"{kind}-{number}"
            health.fold(sample.failed(call_id, error=error, billed_to="client"))
            health.fold(sample.attempt_failed(call_id, error=error, billed_to="client"))
    assert state(health) == ProviderState("healthy", 200.0, 0.0, 1)
    health.fold(sample.failed("down", billed_to="client"))
    assert state(health).error_rate == 0.5


def test_failed_attempts_count_as_failed_calls_do() -> None:
    health = Health()
    for number in range(3):
        health.fold(sample.attempt_failed(f"call-{number}"))
    assert state(health).status == "unhealthy"


def test_a_provider_thrice_as_slow_as_usual_is_degraded() -> None:
    health = Health()
    answers(health, 100, network_ms=200.0)
    answers(health, 20, network_ms=300.0)
    assert state(health).status == "healthy"
    answers(health, 20, network_ms=1_500.0)
    assert state(health).status == "degraded"


def test_only_the_last_twenty_attempts_count() -> None:
    health = Health()
    failures(health, 50)
    answers(health, 20)
    assert state(health).status == "healthy"


def test_after_five_quiet_minutes_nothing_speaks_against_a_provider() -> None:
    health = Health()
    failures(health, 20)
    assert state(health, NOON + 300 * SECOND).status == "unhealthy"
    assert state(health, NOON + 301 * SECOND) == ProviderState("healthy", None, None, 0)


def test_what_a_client_did_wrong_shows_that_the_provider_answers() -> None:
    refused = ErrorInfo(
        status=400, type="invalid_request_error", message="too long", provider="openai"
    )
    health = Health()
    for number in range(5):
        health.fold(sample.failed(f"call-{number}", error=refused))
    assert state(health) == ProviderState("healthy", None, 0.0, 5)


def test_errors_of_our_own_say_nothing_about_a_provider() -> None:
    ours = [
        ErrorInfo(status=502, type="server_error", message="worker lost"),
        ErrorInfo(status=504, type="provider_error", message="deadline", code="timeout"),
        ErrorInfo(
            status=429, type="rate_limit_error", message="", code="queue_full", provider="openai"
        ),
    ]
    health = Health()
    for error in ours:
        health.fold(sample.failed("a", error=error))
    health.fold(sample.cancelled("b"))
    health.fold(sample.rejected("c"))
    assert health.states(NOON) == {}
