"""When a target is left alone, as the file and the variables of document 004 say it."""

import pytest

from compose.config_file import ConfigError
from schemas.config import BreakerConfig
from tests.given_settings import from_env, from_yaml

MOST, RESET = "GATEWAY_CIRCUIT_BREAKER_MAX_FAILURES", "GATEWAY_CIRCUIT_BREAKER_RESET_SECONDS"


def test_the_defaults_are_those_of_document_004() -> None:
    config, _, _ = from_env()
    assert config.breaker == BreakerConfig(max_failures=5, reset_seconds=30.0)


def test_the_variables_of_document_004_are_enforced() -> None:
    config, origins, notices = from_env(**{MOST: "7", RESET: "12.5"})
    assert (config.breaker.max_failures, config.breaker.reset_seconds) == (7, 12.5)
    assert origins["breaker.max_failures"] == f"environment {MOST}"
    assert not any("CIRCUIT" in notice for notice in notices)


def test_a_variable_wins_over_the_file() -> None:
    text = "breaker: {max_failures: 3, longest_reset_seconds: 60}"
    config, _, _ = from_yaml(text, {MOST: "0"})
    assert config.breaker == BreakerConfig(max_failures=0, longest_reset_seconds=60.0)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("breaker: {max_failures: -1}", "breaker.max_failures"),
        ("breaker: {reset_seconds: 0}", "breaker.reset_seconds"),
        ("breaker: {resets: 3}", "breaker"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_path(text: str, path: str) -> None:
    with pytest.raises(ConfigError, match=path):
        from_yaml(text)
