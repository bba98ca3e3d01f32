"""What people ask about budgets: how theirs stand, to begin one anew, and why a call could run."""

import msgspec
from fastapi import APIRouter, Request, Response

from analytics.accounts import ExplainParams, Explanation
from analytics.client import Analytics
from ingress import budget_standing as standing
from ingress.admin import bodies
from ingress.answering import json_response
from ingress.auth import Authenticator, Principal
from ingress.body import read_body
from ingress.budget_standing import ScopeBudget
from ingress.governor_client import GovernorClient
from ingress.openapi import described
from ledger.access.registry import Registry
from schemas.access import Budget, BudgetScope, Id, Period, budget_name
from schemas.config import Config
from schemas.errors import NotFound
from schemas.ids import Clock, bare_call_id

_LONGEST_BODY = 16 * 1024


class BudgetStats(msgspec.Struct, frozen=True):
    """The budgets of who asks. The first three are of the whole gateway's day, null without such a
    budget; what is spent is null while the governor is away."""

    daily_limit_usd: float | None
    spent_usd: float | None
    remaining_usd: float | None
    as_of_seq: int | None
    scopes: list[ScopeBudget]


class ResetBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which budget begins anew."""

    scope: BudgetScope = "global"
    id: Id = ""
    period: Period = "day"


def router(
    keys: Authenticator,
    registry: Registry,
    governor: GovernorClient,
    analytics: Analytics,
    config: Config,
    clock: Clock,
) -> APIRouter:
    """`GET /budget/stats` for everybody, of their own budgets; for the admin token also
    `POST /budget/reset` and `GET /admin/calls/{id}/budget`."""
    pages = _Pages(keys, registry, governor, analytics, config, clock)
    api = APIRouter(tags=["budgets"])
    api.get("/budget/stats", **described("budget_stats", BudgetStats))(pages.stats)
    api.post(
        "/budget/reset",
        **described("reset_budget", ScopeBudget, body=ResetBody, errors=(404,)),
    )(pages.reset)
    api.get(
        "/admin/calls/{call_id}/budget",
        **described("explain_call", Explanation, errors=(404,)),
    )(pages.explain)
    return api


class _Pages:
    def __init__(
        self,
        keys: Authenticator,
        registry: Registry,
        governor: GovernorClient,
        analytics: Analytics,
        config: Config,
        clock: Clock,
    ) -> None:
        self._keys = keys
        self._registry = registry
        self._governor = governor
        self._analytics = analytics
        self._limits = msgspec.structs.replace(config.limits, max_body_bytes=_LONGEST_BODY)
        self._zone = config.budget_zone
        self._clock = clock

    async def stats(self, request: Request) -> Response:
        """The budgets that the caller's calls are charged to, and how they stand; for the admin
        token all there are."""
        principal = await self._keys.authenticate(request.scope["headers"])
        budgets = self._budgets_of(principal)
        names = [] if principal.admin else [budget.name for budget in budgets]
        known = standing.Known({}, None)
        if budgets:
            known = await standing.ask(self._governor, names)
        # The admin also sees the accounts of those whom a budget for every id stands for.
        told = list(known.states.values()) if principal.admin else []
        scopes = [standing.of_state(state) for state in told]
        listed = {state.budget for state in told}
        scopes += [self._scope(budget, known) for budget in budgets if budget.name not in listed]
        daily = next((one for one in scopes if (one.scope, one.period) == ("global", "day")), None)
        return _answer(
            BudgetStats(
                daily_limit_usd=daily.limit_usd if daily else None,
                spent_usd=daily.spent_usd if daily else None,
                remaining_usd=daily.remaining_usd if daily else None,
                as_of_seq=known.as_of_seq,
                scopes=scopes,
            ),
            known.as_of_seq,
        )

    async def reset(self, request: Request) -> Response:
        """Begin a budget anew, by default that of the whole gateway's day: from now on it counts
        from zero, and running calls stay on the old account. Nothing is taken from the ledger."""
        principal = await self._keys.require_admin(request.scope["headers"])
        body = await read_body(request.scope, request.receive, self._limits)
        asked = bodies.decode(body, ResetBody)
        bodies.require_whose(asked.scope, asked.id)
        name = budget_name(asked.scope, asked.id, asked.period)
        state = await self._governor.reset(name, principal.tenant.key_id)
        if state is None:
            raise NotFound(f"There is no budget '{name}'.", code="budget_not_found")
        return _answer(standing.of_state(state))

    async def explain(self, call_id: str, request: Request) -> Response:
        """Every number that the admission of a call was decided on: the state of its accounts just
        before its start, told by the ledger. `id` is in any form. Amounts are nano-dollars."""
        await self._keys.require_admin(request.scope["headers"])
        found = await self._analytics.explain(ExplainParams(bare_call_id(call_id)))
        return _answer(found, found.as_of_seq)

    def _budgets_of(self, principal: Principal) -> list[Budget]:
        if principal.admin:
            return list(self._registry.budgets.values())
        return list(self._registry.budgets_for(principal.tenant))

    def _scope(self, budget: Budget, known: standing.Known) -> ScopeBudget:
        state = known.states.get(budget.name)
        if state is not None:
            return standing.of_state(state)
        return standing.of_budget(budget, self._clock.now_ns(), self._zone)


def _answer(content: msgspec.Struct, as_of_seq: int | None = None) -> Response:
    headers = {"Cache-Control": "no-store"}
    if as_of_seq is not None:
        headers["X-Nexus-Ledger-Seq"] = str(as_of_seq)
    return json_response(content, headers)
