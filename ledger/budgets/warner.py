"""Tells those who watch: an account crossed its threshold, a call cost more than was wished; and
asks for idle leases where a limit was lowered."""

import asyncio
import logging
from typing import Any

from ledger.budgets.alerts import Costly
from ledger.budgets.desk import Desk
from ledger.budgets.granting import overdrawn
from ledger.budgets.names import budget_of
from ledger.publisher import Refused
from schemas.access import Budget
from schemas.budget_events import BudgetWarning, CostAlert
from schemas.events import LedgerEvent, Outcome
from schemas.money import usd

log = logging.getLogger("nexus.governor")

_LOOK_EVERY = 0.2
_FIELD_OF = {"project": "project", "team": "team", "user": "user", "key": "key_id"}


class Warner:
    """Looks at the accounts that changed, at all of them when budgets did."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._changed: set[str] = set()
        self._version = -1

    def hear(self, event: LedgerEvent) -> None:
        """What an event was charged to is looked at soon."""
        if isinstance(event, Outcome):
            self._changed.update(event.accounts)

    async def run(self) -> None:
        """Runs until cancelled. Raises leading.Deposed."""
        while True:
            self._look_at_limits()
            changed, self._changed = self._changed, set()
            for account in changed:
                await self._warn(account)
            for costly in list(self._desk.fold.alerts.costly.values()):
                await self._alert(costly)
            await asyncio.sleep(_LOOK_EVERY)

    def _look_at_limits(self) -> None:
        desk = self._desk
        version = desk.catalog.version
        if version == self._version:
            return
        self._version = version
        accounts = list(desk.book.accounts())
        self._changed.update(accounts)
        desk.recalls.recall(
            account for account in accounts if overdrawn(desk.book, desk.catalog, account)
        )

    async def _warn(self, account: str) -> None:
        desk = self._desk
        spent = desk.book.settled(account)
        budget = desk.catalog.budget_named(budget_of(account))
        if budget is None or account in desk.fold.alerts.warned or spent <= 0:
            return
        if spent >= budget.warning_threshold * budget.limit_nano:
            event = BudgetWarning(
                **desk.new_event(),
                **_whose(budget),
                budget=budget_of(account),
                account=account,
                spent_nano=spent,
                limit_nano=budget.limit_nano,
                warning_threshold=budget.warning_threshold,
            )
            if await self._store(event, f"{account}.warning"):
                log.warning("budget warning", extra={"account": account, "spent_nano": spent})

    async def _alert(self, costly: Costly) -> None:
        event = CostAlert(
            **self._desk.new_event(),
            call_id=costly.call_id,
            key_id=costly.key_id,
            project=costly.project,
            team=costly.team,
            user=costly.user,
            app=costly.app,
            model=costly.model,
            user_id=costly.user,
            project_id=costly.project,
            current_cost=usd(costly.cost_nano),
            threshold=usd(costly.alert_nano),
            tracking_id=costly.tracking_id,
        )
        await self._store(event, f"{costly.call_id}.alert")

    async def _store(self, event: BudgetWarning | CostAlert, message_id: str) -> bool:
        """Whether it is new; one that the ledger knows comes with the fold."""
        desk = self._desk
        try:
            seq = await desk.ledger.append(event, message_id)
        except Refused as error:
            log.error("alert not recorded", extra={"reason": str(error)})
            return False
        # Once it is folded it is not due any more.
        return seq is not None and await desk.fold.reach(seq, _LOOK_EVERY)


def _whose(budget: Budget) -> dict[str, Any]:
    field = _FIELD_OF.get(budget.scope)
    return {field: budget.id} if field else {}
