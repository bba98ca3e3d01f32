"""How budgets stand, and how one begins anew."""

import logging
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable

from ledger.budgets.desk import Desk
from ledger.budgets.door import Reply
from ledger.budgets.granting import account_now
from ledger.budgets.messages import BudgetState, Reset, StateAsk, States
from ledger.budgets.names import budget_of, for_every_id
from ledger.publisher import Refused
from schemas.budget_events import BudgetReset

log = logging.getLogger("nexus.governor")

_MOST_STATES = 3000
_RESETS_KEPT = 256


class Standing:
    """Answers from the book as it is; resets wait for their turn between two grants."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._resets: deque[tuple[Reset, Reply]] = deque()
        self._done: dict[str, BudgetState] = {}
        self._names: list[str] = []

    @property
    def waiting(self) -> bool:
        return bool(self._resets)

    def tell(self, ask: StateAsk, reply: Reply) -> None:
        """The states of the budgets that are named; else of 3,000 at a time of all there were when
        the first of them was asked for, with each id that a `*` budget has an account for."""
        names, following = ask.budgets, None
        if not names:
            if not (ask.after and self._names):
                self._names = sorted(self._all())
            first = bisect_right(self._names, ask.after)
            names = tuple(self._names[first : first + _MOST_STATES])
            following = names[-1] if first + len(names) < len(self._names) else None
        states = (self._state(name) for name in names)
        known = tuple(one for one in states if one is not None)
        reply(States(self._desk.book.seq, known, following))

    def reset(self, reset: Reset, reply: Reply) -> None:
        """Take it for the next turn."""
        self._resets.append((reset, reply))

    async def do_resets(self) -> None:
        """Open the next account of each budget. As no grant is on its way meanwhile, whoever hears
        of it has heard of all leases before. Raises leading.Deposed."""
        while self._resets:
            reset, reply = self._resets.popleft()
            if reset.request not in self._done:
                state = await self._do(reset)
                if state is None:
                    reply(None)
                    continue
                self._done[reset.request] = state
                if len(self._done) > _RESETS_KEPT:
                    del self._done[next(iter(self._done))]
            reply(self._done[reset.request])

    async def _do(self, reset: Reset) -> BudgetState | None:
        desk = self._desk
        before = self._state(reset.budget)
        if before is None:
            return None
        event = BudgetReset(
            **desk.new_event(),
            budget=reset.budget,
            epoch=desk.book.next_epoch(reset.budget),
            by=reset.by,
        )
        try:
            seq = await desk.ledger.append(event, f"{reset.request}.reset")
        except Refused as error:
            log.error("reset not recorded", extra={"reason": str(error)})
            return None
        if seq is not None:
            await desk.fold.reach(seq)
            for account in self._accounts_before(reset.budget, before.account):
                desk.recalls.drop(account)
        return self._state(reset.budget)

    def _accounts_before(self, budget: str, account: str) -> Iterable[str]:
        """What the budget's leases were of; a `*` budget has an account for each id."""
        _, _, label = account.rpartition("@")
        ends = f"@{label}"
        every = [
            one
            for one in self._desk.book.accounts()
            if one.endswith(ends) and _stands_for(budget, budget_of(one))
        ]
        return {account, *every}

    def _all(self) -> Iterable[str]:
        """The recorded budgets, then those that have an account by way of a `*` budget."""
        recorded = self._desk.catalog.budgets
        yield from recorded
        book = self._desk.book
        for name in dict.fromkeys(budget_of(account) for account in book.accounts()):
            if name not in recorded:
                yield name

    def _state(self, name: str) -> BudgetState | None:
        desk = self._desk
        budget = desk.catalog.budget_named(name)
        now = account_now(desk.book, desk.catalog, name, desk.clock.now_ns(), desk.zone)
        if budget is None or now is None:
            return None
        account, window = now
        return BudgetState(
            budget=name,
            account=account,
            scope=budget.scope,
            id=budget.id,
            period=budget.period,
            limit_nano=budget.limit_nano,
            spent_nano=desk.book.settled(account),
            held_nano=desk.book.leased(account),
            hard=budget.hard_stop,
            ends_ns=window.ends_ns,
        )


def _stands_for(budget: str, other: str) -> bool:
    """Whether the account of `other` is one of this budget."""
    return budget in (other, for_every_id(other))
