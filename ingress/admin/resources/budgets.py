"""`/admin/budgets`: what a key, a user, a project, a team or all together may cost in a period."""

from collections.abc import Sequence
from functools import partial
from typing import get_args

from fastapi import APIRouter, Depends, Request, Response

from ingress.admin import bodies
from ingress.admin.budget_events import budget_removed, budget_set
from ingress.admin.desk import Author, Desk, Page, Removed, missing, unhurried
from ingress.admin.views import BudgetAccountView, BudgetView, budget_account_view, budget_view
from ingress.budget_standing import Known, ask, bounds
from ingress.openapi import described
from ledger.access.registry import Registry
from ledger.budgets.names import bounded, for_every_id
from schemas.access import Budget, BudgetScope, BudgetSettings, Period, budget_name

_ASKED_AT_ONCE = 1000


def routes(desk: Desk) -> APIRouter:
    """`/admin/budgets`."""
    api = APIRouter(prefix="/budgets")
    admin = Depends(desk.admit)

    @api.post("", **described("set_budget", BudgetView, body=BudgetSettings))
    async def set_(request: Request, author: Author = admin) -> Response:
        """Set the budget of a scope, id and period, in place of the one that may be there."""
        asked = bodies.decode(await desk.body(request), BudgetSettings)
        bodies.require_whose(asked.scope, asked.id)
        name = budget_name(asked.scope, asked.id, asked.period)
        decide = partial(budget_set, scope=asked.scope, id=asked.id, terms=asked, author=author)
        event = await desk.change(name, decide)
        return desk.answer(budget_view(event.record, desk.registry.configured))

    @api.get("", **described("list_budgets", Page[BudgetAccountView]))
    async def show_all(scope: BudgetScope | None = None, id: str = "") -> Response:
        """All budgets, or those of a scope or of an id, and how they stand. With both, what a
        budget for every id of the scope gives to this one is among them."""
        seq = desk.registry.seq
        budgets = [
            one
            async for one in unhurried(desk.registry.budgets.values())
            if (scope is None or one.scope == scope) and (not id or one.id == id)
        ]
        if scope is not None and id:
            budgets += _by_way_of_every_id(desk.registry, scope, id)
        views = await _views(desk, budgets)
        return desk.answer_list(views, _as_of(views, seq))

    @api.get("/{name:path}", **described("get_budget", BudgetAccountView, errors=(404,)))
    async def show(name: str) -> Response:
        """One budget by its name, such as `project:shop:month` or `global:day`, and how it
        stands. Where no such budget is set and one for every id stands for it, `user:ana:month`
        is what `user:*:month` gives to that one user."""
        budget = desk.registry.budget_named(_as_accounts_have_it(name))
        if budget is None:
            raise missing("budget", name)
        (view,) = views = await _views(desk, [budget])
        return desk.answer(view, as_of=_as_of(views, desk.registry.seq))

    @api.delete("/{name:path}", **described("delete_budget", Removed, errors=(404,)))
    async def remove(name: str, author: Author = admin) -> Response:
        """Forget a budget. What was spent stays in the ledger."""
        await desk.change(name, partial(budget_removed, name=name, author=author))
        return desk.answer(Removed("budget", name, True))

    return api


def _by_way_of_every_id(registry: Registry, scope: BudgetScope, id: str) -> list[Budget]:
    """The budgets that an id has only as one of all."""
    names = [budget_name(scope, bounded(id), period) for period in get_args(Period)]
    found = (registry.budget_named(name) for name in names if not registry.has_budget(name))
    return [one for one in found if one is not None]


def _record_of(registry: Registry, name: str) -> str:
    """The name of the record that a budget is by: its own, or that of the budget for every id."""
    return name if registry.has_budget(name) else for_every_id(name) or name


def _as_accounts_have_it(name: str) -> str:
    """A budget's name whose id may be longer than any that is recorded, as calls are charged."""
    scope, _, rest = name.partition(":")
    id, colon, period = rest.rpartition(":")
    return f"{scope}:{bounded(id)}:{period}" if colon else name


def _as_of(views: Sequence[BudgetAccountView], seq: int) -> int:
    """The sequence that all of them are as of: the governor's, or else the registry's."""
    return min((one.as_of_seq for one in views if one.as_of_seq is not None), default=seq)


async def _views(desk: Desk, budgets: Sequence[Budget]) -> list[BudgetAccountView]:
    now_ns, zone = desk.clock.now_ns(), desk.config.budget_zone
    registry = desk.registry
    views: list[BudgetAccountView] = []
    for first in range(0, len(budgets), _ASKED_AT_ONCE):
        part = budgets[first : first + _ASKED_AT_ONCE]
        known: Known = await ask(desk.governor, [one.name for one in part])
        views += [
            budget_account_view(
                one,
                registry.configured,
                known,
                bounds(one.period, now_ns, zone),
                _record_of(registry, one.name),
            )
            for one in part
        ]
    return views
