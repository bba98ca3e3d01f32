"""What a call must have before it starts: money in every hard budget that applies to it.

Where the purse has it, nothing is awaited. Amounts are nano-dollars.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from ingress.lease_client import LeaseClient
from ingress.purse import Missing, Taken
from ingress.waiting import GovernorAway, Waiting
from ledger.budgets.messages import Shortage
from ledger.budgets.names import account_id
from ledger.budgets.windows import window_at
from schemas.access import Budget, moment
from schemas.budget_events import BudgetExceeded
from schemas.errors import RateLimited, Unavailable
from schemas.ids import Clock, rfc3339
from schemas.money import format_usd, usd

log = logging.getLogger("nexus.ingress")

_PATIENCE = 1.0
_TELL_EVERY = 1.0
_HOUR_NS = 3600 * 1_000_000_000
_HOLDS_END_SOON = 1.0
_EARLIER_TOLD = 100
_NOTHING = Taken((), "", 0)
_TENANT_FIELD = {"key": "key_id", "project": "project", "team": "team", "user": "user"}


class Budgeting:
    """The gate's last question but one, before the ledger hears of a call.

    `append` takes the events that tell of refusals: one per account and second, with their number.
    """

    def __init__(
        self,
        leases: LeaseClient,
        zone: str,
        clock: Clock,
        append: Callable[[BudgetExceeded], None],
    ) -> None:
        self._leases = leases
        self._waiting = Waiting(leases, clock)
        self._zone = zone
        self._clock = clock
        self._append = append
        self._refused: dict[str, BudgetExceeded | None] = {}

    async def admit(
        self,
        budgets: Sequence[Budget],
        hold_nano_hard: int,
        estimate_nano: int,
        patience: float = _PATIENCE,
        call_id: str = "",
    ) -> Taken:
        """Hold money in all budgets or in none: the bound where one is hard, else the estimate.
        A refusal is told as that of `call_id`.

        Raises RateLimited when one has not enough left, and Unavailable when nobody can say so
        within `patience` seconds. Soft budgets refuse nothing: without the governor the call is
        charged to the account last heard of, or else to the one that calendar and last known epoch
        name, which is epoch 0 where no reset was heard of.
        """
        if not budgets:
            return _NOTHING
        nano = estimate_nano
        for budget in budgets:
            if budget.hard_stop:
                nano = hold_nano_hard
                break
        taken = self._leases.take(budgets, nano)
        if isinstance(taken, Taken):
            return taken
        return await self._obtained(budgets, nano, patience, call_id)

    def confirm(self, taken: Taken) -> bool:
        """Whether the money is still ours, to be asked once the call's start is in the ledger: from
        then on it stays held until the call ends."""
        return not taken.holder or self._leases.may_spend(taken.holder)

    def give_back(self, taken: Taken) -> None:
        """The call was not admitted after all, and no event of it was or will be appended."""
        self._leases.purse.give_back(taken)

    def doubt(self, taken: Taken) -> None:
        """Nobody knows whether the call's start is in the ledger: what was taken is not used again
        before the governor has ended the holder."""
        if taken.holder:
            self._leases.retire(taken.holder)

    async def _obtained(
        self, budgets: Sequence[Budget], nano: int, patience: float, call_id: str
    ) -> Taken:
        if self._leases.away:
            taken = self._without_governor(budgets, nano)
            if taken is not None:
                return taken
        try:
            result = await self._waiting.obtain(budgets, nano, patience)
        except GovernorAway:
            taken = self._without_governor(budgets, nano)
            if taken is not None:
                return taken
            raise Unavailable(
                "The budgets of this call cannot be checked now. Try again shortly.",
                code="budget_unavailable",
                retry_after=1.0,
            ) from None
        if isinstance(result, Taken):
            return result
        raise self._refusal(budgets, result, call_id)

    def _without_governor(self, budgets: Sequence[Budget], nano: int) -> Taken | None:
        """What can be had while it is away: all, unless a hard budget has no lease."""
        hard = [budget for budget in budgets if budget.hard_stop]
        taken = self._leases.take(hard, nano) if hard else Taken((), "", nano)
        if isinstance(taken, Missing):
            return None
        leased = iter(taken.accounts)
        accounts = [
            next(leased) if budget.hard_stop else self._likely_account(budget) for budget in budgets
        ]
        return taken._replace(accounts=tuple(accounts))

    def _likely_account(self, budget: Budget) -> str:
        now_ns = self._clock.now_ns()
        purse = self._leases.purse
        known = purse.known_account(budget.name, now_ns)
        if known is not None:
            return known
        label = window_at(budget.period, now_ns, self._zone).label
        return account_id(budget.name, label, purse.known_epoch(budget.name))

    def _refusal(self, budgets: Sequence[Budget], shortage: Shortage, call_id: str) -> RateLimited:
        budget = next(one for one in budgets if one.name == shortage.budget)
        log.info(
            "call refused by a budget",
            extra={
                "call_id": call_id,
                "scope": shortage.budget,
                "limit": usd(shortage.limit_nano),
                "value": usd(shortage.spent_nano + shortage.held_nano),
                "needed": usd(shortage.needed_nano),
            },
        )
        self._tell(budget, shortage, call_id)
        return RateLimited(
            _message(budget, shortage),
            code="budget_exceeded",
            retry_after=_wait(shortage, self._clock.now_ns()),
            should_retry=False,
        )

    def _tell(self, budget: Budget, shortage: Shortage, call_id: str) -> None:
        """The first refusal is told at once, those of the second after it together."""
        whose: dict[str, Any] = {_TENANT_FIELD[budget.scope]: budget.id} if budget.id else {}
        event = BudgetExceeded(
            event_id=self._clock.new_id(),
            time=rfc3339(self._clock.now_ns()),
            v=1,
            call_id=call_id,
            **whose,
            budget=shortage.budget,
            account=shortage.account,
            limit_nano=shortage.limit_nano,
            spent_nano=shortage.spent_nano,
            held_nano=shortage.held_nano,
            needed_nano=shortage.needed_nano,
        )
        account = shortage.account
        if account not in self._refused:
            self._append(event)
            self._refused[account] = None
            asyncio.get_running_loop().call_later(_TELL_EVERY, self._tell_rest, account)
            return
        before = self._refused[account]
        self._refused[account] = event if before is None else _together(before, event)

    def _tell_rest(self, account: str) -> None:
        rest = self._refused.pop(account)
        if rest is not None:
            self._append(rest)
            self._refused[account] = None
            asyncio.get_running_loop().call_later(_TELL_EVERY, self._tell_rest, account)


def _together(before: BudgetExceeded, last: BudgetExceeded) -> BudgetExceeded:
    """One event for the refusals of one, and a further one."""
    earlier = {**before.earlier, before.call_id: before.needed_nano}
    if len(earlier) > _EARLIER_TOLD:
        del earlier[next(iter(earlier))]
    return msgspec.structs.replace(last, refused=before.refused + 1, earlier=earlier)


def _message(budget: Budget, shortage: Shortage) -> str:
    whose = f"{budget.scope} '{budget.id}'" if budget.id else "the whole gateway"
    span = "in all" if budget.period == "total" else f"per {budget.period}"
    if shortage.ends_ns is None:
        after = "It does not renew itself: ask who runs this gateway to raise or reset it."
    else:
        when = moment(shortage.ends_ns).strftime("%Y-%m-%dT%H:%M:%SZ")
        after = f"It resets at {when}."
    if shortage.spent_nano < shortage.limit_nano:
        after += " A call that needs less may pass now: send less, or set a lower 'max_tokens'."
    return (
        f"The budget of {whose} is exceeded: ${format_usd(shortage.limit_nano)} {span},"
        f" ${format_usd(shortage.spent_nano)} spent, ${format_usd(shortage.held_nano)} held for"
        f" running calls; this call needs up to ${format_usd(shortage.needed_nano)}. {after}"
    )


def _wait(shortage: Shortage, now_ns: int) -> float | None:
    """Seconds after which the same call may pass, None where waiting does not help."""
    if shortage.needed_nano > shortage.limit_nano:
        return None
    if shortage.spent_nano + shortage.needed_nano <= shortage.limit_nano:
        return _HOLDS_END_SOON
    if shortage.ends_ns is not None and shortage.ends_ns - now_ns < _HOUR_NS:
        return (shortage.ends_ns - now_ns) / 1e9
    return None
