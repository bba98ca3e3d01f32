"""Budgets by name and by whom they are for, so that a call finds its own with a few look-ups."""

from collections.abc import Iterable, Mapping
from typing import get_args

from msgspec.structs import replace

from ledger.budgets.names import bounded, for_every_id
from schemas.access import Budget, Period, budget_name
from schemas.call import Tenant

_PERIODS = get_args(Period)


class BudgetIndex:
    """The budgets that the configuration declares, which win, and those of the ledger.

    `recorded` are the ledger's, by name; `put` and `remove` are the only ways to change them.
    """

    def __init__(self, configured: Mapping[str, Budget]) -> None:
        self._configured = configured
        self.recorded: dict[str, Budget] = {}
        self._by_id: dict[tuple[str, str], tuple[Budget, ...]] = {}
        for budget in configured.values():
            self._note(budget)

    def put(self, budget: Budget) -> None:
        self.recorded[budget.name] = budget
        self._note(budget)

    def remove(self, name: str) -> None:
        budget = self.recorded.pop(name, None)
        if budget is not None:
            self._note(budget)

    def _note(self, changed: Budget) -> None:
        """Which budgets there are now for the scope and id of one that came, changed or went."""
        names = (budget_name(changed.scope, changed.id, period) for period in _PERIODS)
        found = tuple(budget for name in names if (budget := self.get(name)) is not None)
        if found:
            self._by_id[changed.scope, changed.id] = found
        else:
            self._by_id.pop((changed.scope, changed.id), None)

    def get(self, name: str) -> Budget | None:
        """The budget that is recorded under this very name."""
        return self._configured.get(name) or self.recorded.get(name)

    def resolve(self, name: str) -> Budget | None:
        """A budget by its name, by way of its scope's `*` where it has no record of its own: then
        `user:ana:month` is what `user:*:month` says, for that one user."""
        own = self.get(name)
        if own is not None:
            return own
        every = self.get(for_every_id(name) or "")
        if every is None:
            return None
        return replace(every, id=name.removeprefix(f"{every.scope}:").rpartition(":")[0])

    def of(self, scope: str, id: str) -> tuple[Budget, ...]:
        """Those recorded for one id: one per period at most."""
        return self._by_id.get((scope, id), ())

    def of_tenant(self, tenant: Tenant) -> tuple[Budget, ...]:
        """All that a call of this tenant is charged to: the global ones, then those of its team,
        project, user and key."""
        return (
            *self.of("global", ""),
            *self._with_every("team", tenant.team),
            *self._with_every("project", tenant.project),
            *self._with_every("user", tenant.user),
            *self._with_every("key", tenant.key_id),
        )

    def _with_every(self, scope: str, id: str) -> Iterable[Budget]:
        """An id's own budgets, and those of `*` for the periods it has none of its own for."""
        if not id:
            return ()
        id = bounded(id)
        own = self.of(scope, id)
        every = self.of(scope, "*")
        if not every or id == "*":
            return own
        periods = [budget.period for budget in own]
        return (*own, *(replace(one, id=id) for one in every if one.period not in periods))
