"""Routes by weight and to canaries, from the file and as document 004 writes them."""

import pytest

from schemas.config import RoutePolicy, RouteTarget
from tests.given_settings import complaint, complaint_of, from_env, from_yaml

UPSTREAMS = "primary=http://127.0.0.1:8001;canary=mock://local"
WEIGHTED = """{
  "chat": {
    "strategy": "weighted",
    "targets": [{"name":"primary","weight":90},{"name":"canary","weight":10}]
  }
}"""
CANARY = '{"chat": {"strategy":"canary","primary":"primary","canary":"canary","percent":5}}'


def test_both_policies_of_document_004_are_read_as_it_writes_them() -> None:
    weighted = from_env(GATEWAY_UPSTREAMS=UPSTREAMS, GATEWAY_ROUTE_POLICIES=WEIGHTED)
    targets = (RouteTarget("primary", 90), RouteTarget("canary", 10))
    assert weighted.config.routes == {"chat": RoutePolicy("weighted", targets)}
    assert weighted.origins["routes.chat.strategy"] == "environment GATEWAY_ROUTE_POLICIES"
    canary = from_env(GATEWAY_UPSTREAMS=UPSTREAMS, GATEWAY_ROUTE_POLICIES=CANARY)
    policy = RoutePolicy("canary", primary="primary", canary="canary", percent=5)
    assert canary.config.routes == {"chat": policy}
    assert not any("ROUTE_POLICIES" in notice for notice in canary.notices)


def test_the_file_has_the_same_and_a_route_may_have_fallbacks() -> None:
    loaded = from_yaml(
        """
models: {one: {provider: mock}, chat: {fallbacks: [mock]}}
routes: {chat: {strategy: canary, primary: one, canary: mock/other, percent: 0.5}}
defaults: {talk: chat, think: auto}
"""
    )
    assert loaded.config.routes["chat"].names == ("one", "mock/other")
    assert loaded.config.routes["chat"].percent == 0.5


def test_targets_that_cannot_be_used_are_told() -> None:
    _, _, notices = from_yaml(
        "routes: {chat: {strategy: weighted, targets: [{name: gpt-4o-mini}, {name: mock}]}}"
    )
    assert any(
        notice.startswith("routes.chat.gpt-4o-mini: not available, set OPENAI_API_KEY")
        for notice in notices
    )


@pytest.mark.parametrize(
    ("route", "message"),
    [
        ("{strategy: random}", "routes.r.strategy: expected one of weighted, canary, got 'random'"),
        ("{targets: []}", "routes.r.strategy: missing, it has no default"),
        ("{strategy: weighted}", "routes.r.targets: missing, the strategy weighted needs it"),
        ("{strategy: canary, primary: mock}", "routes.r.canary: missing, the strategy canary"),
        (
            "{strategy: canary, primary: mock, canary: mock/b}",
            "routes.r.percent: missing, the strategy canary needs it",
        ),
        (
            "{strategy: canary, primary: mock, canary: mock/b, percent: 101}",
            "routes.r.percent: expected a number",
        ),
        (
            "{strategy: canary, primary: mock, canary: mock, percent: 1}",
            "routes.r: a target is named twice",
        ),
        (
            "{strategy: weighted, targets: [{name: mock}], percent: 1}",
            "routes.r.percent: not for the strategy weighted",
        ),
        (
            "{strategy: weighted, targets: [{name: mock, weight: 0}]}",
            "routes.r.targets: at least one weight must be above 0",
        ),
        (
            "{strategy: weighted, targets: [{name: mock, weight: -1}]}",
            "routes.r.targets.0.weight: expected a whole number",
        ),
        (
            "{strategy: weighted, targets: [{name: nobody}]}",
            "routes.r: unknown model 'nobody'; add it under models:",
        ),
        (
            "{strategy: weighted, target: [{name: mock}]}",
            "routes.r.target: unknown setting; did you mean routes.r.targets?",
        ),
        ("[]", "routes.r: expected a mapping of settings"),
    ],
)
def test_a_wrong_policy_is_told_by_its_setting(route: str, message: str) -> None:
    assert complaint(f"routes: {{r: {route}}}").startswith(message)


def test_wrong_policies_in_the_environment_are_told_with_an_example() -> None:
    for text in ("chat", "[]", '{"chat": '):
        told = complaint_of({"GATEWAY_ROUTE_POLICIES": text})
        assert told.startswith("GATEWAY_ROUTE_POLICIES: expected JSON such as {")
    unknown = complaint_of({"GATEWAY_ROUTE_POLICIES": CANARY})
    assert unknown == "routes.chat: unknown model 'primary'; add it under models:"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: {'gpt-*': {engine: x}}", "models.gpt-*.provider: missing, it says where all"),
        (
            "models: {'m-*': {provider: mock, limits: {burst: 2, requests_per_second: 1}}}",
            "models.m-*.limits: not for a pattern; name each model that has limits",
        ),
        (
            "routes: {'r*': {strategy: weighted, targets: [{name: mock}]}}",
            "routes.'r*': a name is 1 to 200 printable characters, without * and ?",
        ),
    ],
)
def test_a_pattern_that_cannot_work_is_told(text: str, message: str) -> None:
    assert complaint(text).startswith(message)


def test_a_name_that_fits_a_pattern_may_be_a_fallback() -> None:
    loaded = from_yaml("models: {'m-*': {provider: mock}, one: {provider: mock, fallbacks: [m-2]}}")
    assert loaded.notices == [notice for notice in loaded.notices if "m-" not in notice]
