"""The purse against a plain model: no nano-dollar is made, and none is lost."""

from collections import Counter
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
)

from ingress.purse import SECOND, Purse, Taken
from ledger.budgets.messages import Lease, Want
from ledger.budgets.names import account_id
from schemas.access import Budget

BUDGETS = tuple(
    Budget(scope="project", id=id, period="day", limit_nano=10**9) for id in ("a", "b", "c")
)
DAY = 100 * SECOND
some_budgets = st.sets(st.sampled_from(BUDGETS), min_size=1).map(tuple)
amounts = st.integers(0, 1000)


class PurseAgainstModel(RuleBasedStateMachine):
    """The model knows, by account, what was granted, taken, returned and dropped."""

    taken = Bundle("taken")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.holders = 1
        self.purse = Purse("h1")
        self.model: Counter[str] = Counter()
        self.epochs: Counter[str] = Counter()

    def account(self, budget: Budget) -> str:
        return account_id(budget.name, f"day-{self.now // DAY:06}", self.epochs[budget.name])

    def left(self, given: dict[str, int]) -> None:
        for account, nano in given.items():
            assert 0 < nano <= self.model[account]
            self.model[account] -= nano

    @rule(budget=st.sampled_from(BUDGETS), need=amounts, like=amounts)
    def grant(self, budget: Budget, need: int, like: int) -> None:
        account = self.account(budget)
        amount = max(need, like)
        lease = Lease(
            budget=budget.name,
            account=account,
            hard=True,
            limit_nano=10**9,
            spent_nano=0,
            held_nano=0,
            amount=amount,
            ends_ns=(self.now // DAY + 1) * DAY,
        )
        self.now += 1
        self.model[account] += amount
        self.left(self.purse.put(Want(budget.name, need, like), lease, self.now, self.now))

    @rule(target=taken, budgets=some_budgets, nano=amounts)
    def take(self, budgets: tuple[Budget, ...], nano: int) -> Any:
        could = all(self.model[self.account(budget)] >= nano for budget in budgets)
        taken = self.purse.take(budgets, nano, self.now)
        if not isinstance(taken, Taken):
            assert not could or nano == 0
            return None
        assert could
        assert taken.accounts == tuple(self.account(budget) for budget in budgets)
        for account in taken.accounts:
            self.model[account] -= nano
        return taken

    @rule(taken=consumes(taken))
    def give_back(self, taken: Taken | None) -> None:
        if taken is not None:
            before = {budget.name: self.purse.free(budget.name) for budget in BUDGETS}
            self.purse.give_back(taken)
            for account in taken.leased:
                name = account.rpartition("@")[0]
                self.model[account] += self.purse.free(name) - before[name]

    @rule(budgets=some_budgets)
    def recall(self, budgets: tuple[Budget, ...]) -> None:
        accounts = tuple(self.account(budget) for budget in budgets)
        self.left(self.purse.recall(accounts))
        assert all(self.model[account] == 0 for account in accounts)

    @rule(budget=st.sampled_from(BUDGETS))
    def reset(self, budget: Budget) -> None:
        account = self.account(budget)
        self.purse.drop((account,), self.now)
        self.model[account] = 0
        self.epochs[budget.name] += 1

    @rule()
    def holder_ends(self) -> None:
        self.holders += 1
        self.purse.begin(f"h{self.holders}")
        self.model.clear()

    @rule(seconds=st.integers(0, 120))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds * SECOND
        self.left(self.purse.surplus(5 * SECOND, self.now))

    @invariant()
    def all_money_is_where_the_model_has_it(self) -> None:
        assert sum(self.model.values()) == sum(self.purse.free(one.name) for one in BUDGETS)
        assert all(self.purse.free(one.name) >= 0 for one in BUDGETS)


TestPurse = PurseAgainstModel.TestCase
