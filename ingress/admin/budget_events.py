"""Budgets as events, each decided on what the registry holds."""

from collections.abc import Iterable
from functools import partial
from typing import Annotated, Any

import msgspec

from ingress.admin.desk import Author, Desk, declared, missing
from ingress.routing import shown
from ledger.access.registry import Registry
from ledger.budgets.names import for_every_id
from schemas.access import Budget, BudgetScope, BudgetTerms, budget_name, budget_of
from schemas.access_events import BudgetRemoved, BudgetSet
from schemas.errors import InvalidRequest

# There are four periods, and one budget for each at most.
Budgets = Annotated[tuple[BudgetTerms, ...], msgspec.Meta(max_length=4)]

_TENANT_FIELDS = {"key": "key_id", "project": "project", "team": "team", "user": "user"}


def budget_set(
    registry: Registry, scope: BudgetScope, id: str, terms: BudgetTerms, author: Author
) -> BudgetSet:
    """The budget as it is from now on, whether or not there was one before."""
    budget = budget_of(scope, id, terms, author.clock.now_ns())
    if budget.name in registry.configured.budgets:
        raise declared("budget", budget.name)
    before = registry.budgets.get(budget.name)
    if before is not None:
        budget = msgspec.structs.replace(budget, created_at=before.created_at)
    return BudgetSet(**author.signs(), **_tenant(budget), record=budget)


async def begin_budgets(
    desk: Desk, scope: BudgetScope, id: str, budgets: Iterable[BudgetTerms], author: Author
) -> None:
    """The budgets of a record that is about to be made. Raises InvalidRequest, Unavailable.

    They come before it: made without them, because of a crash in between, it would have no bounds.
    """
    for terms in budgets:
        name = budget_name(scope, id, terms.period)
        decide = partial(budget_begun, scope=scope, id=id, terms=terms, author=author)
        await desk.change(name, decide)


def budget_begun(
    registry: Registry, scope: BudgetScope, id: str, terms: BudgetTerms, author: Author
) -> BudgetSet:
    """The budget of a record that is about to be made: one that is there already says the same.

    So two who make the same record at once do not change each other's budget.
    """
    event = budget_set(registry, scope, id, terms, author)
    before = registry.budgets.get(event.record.name)
    if before is not None and _terms(before) != _terms(event.record):
        raise InvalidRequest(
            f"There is a budget '{event.record.name}' with other terms already.",
            code="already_exists",
            param="budgets",
        )
    return event


def budget_removed(registry: Registry, name: str, author: Author) -> BudgetRemoved:
    budget = registry.budgets.get(name)
    if budget is None:
        every = for_every_id(name)
        stands_in = every is not None and registry.has_budget(every)
        raise missing(
            "budget", name, f"; '{shown(every or '')}' stands for it" if stands_in else ""
        )
    if name in registry.configured.budgets:
        raise declared("budget", name)
    return BudgetRemoved(**author.signs(), **_tenant(budget), name=name)


def _tenant(budget: Budget) -> dict[str, Any]:
    """Whose budget it is, in the field of its scope."""
    field = _TENANT_FIELDS.get(budget.scope)
    return {field: budget.id} if field else {}


def _terms(budget: Budget) -> tuple[int, bool, float]:
    return budget.limit_nano, budget.hard_stop, budget.warning_threshold
