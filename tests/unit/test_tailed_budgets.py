"""How `nexus tail` shows what happens to money."""

from typing import Any

import pytest

from compose import show
from compose.client import LedgerEvent

WARNING = {
    "event_type": "model.budget.warning",
    "budget": "project:shop:day",
    "account": "project:shop:day@2026-11-21.0",
    "spent_nano": 8_000_000_000,
    "limit_nano": 10_000_000_000,
}
EXCEEDED = {
    "event_type": "model.budget.exceeded",
    "budget": "global:day",
    "account": "global:day@2026-11-21.0",
    "held_nano": 500_000_000,
    "limit_nano": 1_000_000_000,
    "needed_nano": 700_000_000,
}


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (WARNING, "model.budget.warning project:shop:day $8 spent of $10"),
        (EXCEEDED, "model.budget.exceeded global:day $0 spent, $0.5 held of $1 $0.7 needed"),
        (
            {**EXCEEDED, "refused": 7, "model": "m"},
            "model.budget.exceeded global:day $0 spent, $0.5 held of $1 $0.7 needed"
            " 7 calls refused",
        ),
        (
            {"event_type": "budget.reset", "budget": "global:day", "epoch": 1, "by": "admin"},
            "budget.reset global:day by admin",
        ),
        (
            {
                "event_type": "model.cost.alert",
                "model": "gpt-4o",
                "current_cost": 0.0143,
                "threshold": 0.0005,
            },
            "model.cost.alert gpt-4o $0.0143, more than $0.0005",
        ),
    ],
)
def test_an_event_of_money_says_of_which_budget_and_how_it_stands(
    fields: dict[str, Any], told: str
) -> None:
    line = show.event(LedgerEvent(b"", {"time": "2026-11-20T10:11:12.345678Z", **fields}))
    assert line.split() == ["10:11:12.345", *told.split()]
