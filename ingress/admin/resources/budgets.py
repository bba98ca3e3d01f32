"""`/admin/budgets`: what a key, a user, a project, a team or all together may cost in a period."""

from functools import partial

from fastapi import APIRouter, Depends, Request, Response

from ingress.admin import bodies
from ingress.admin.budget_events import budget_removed, budget_set
from ingress.admin.desk import Author, Desk, Page, Removed, missing, unhurried
from ingress.admin.views import BudgetView, budget_view
from ingress.openapi import described
from schemas.access import BudgetScope, BudgetSettings, budget_name


def routes(desk: Desk) -> APIRouter:
    """`/admin/budgets`."""
    api = APIRouter(prefix="/budgets")
    admin = Depends(desk.admit)

    @api.post("", **described("set_budget", BudgetView, body=BudgetSettings))
    async def set_(request: Request, author: Author = admin) -> Response:
        """Set the budget of a scope, id and period, in place of the one that may be there."""
        asked = bodies.decode(await desk.body(request), BudgetSettings)
        if asked.scope == "global" and asked.id:
            raise bodies.invalid("id", "the scope global is everything, it has no id")
        if asked.scope != "global" and not asked.id:
            raise bodies.invalid("id", f"missing, it names the {asked.scope}")
        name = budget_name(asked.scope, asked.id, asked.period)
        decide = partial(budget_set, scope=asked.scope, id=asked.id, terms=asked, author=author)
        event = await desk.change(name, decide)
        return desk.answer(budget_view(event.record, desk.registry.configured))

    @api.get("", **described("list_budgets", Page[BudgetView]))
    async def show_all(scope: BudgetScope | None = None, id: str = "") -> Response:
        """All budgets, or those of a scope or of an id."""
        seq, configured = desk.registry.seq, desk.registry.configured
        views = [
            budget_view(one, configured)
            async for one in unhurried(desk.registry.budgets.values())
            if (scope is None or one.scope == scope) and (not id or one.id == id)
        ]
        return desk.answer_list(views, seq)

    @api.get("/{name:path}", **described("get_budget", BudgetView, errors=(404,)))
    async def show(name: str) -> Response:
        """One budget by its name, such as `project:shop:month` or `global:day`."""
        budget = desk.registry.budgets.get(name)
        if budget is None:
            raise missing("budget", name)
        return desk.answer(budget_view(budget, desk.registry.configured))

    @api.delete("/{name:path}", **described("delete_budget", Removed, errors=(404,)))
    async def remove(name: str, author: Author = admin) -> Response:
        """Forget a budget. What was spent stays in the ledger."""
        await desk.change(name, partial(budget_removed, name=name, author=author))
        return desk.answer(Removed("budget", name, True))

    return api
