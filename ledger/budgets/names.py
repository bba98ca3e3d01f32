"""How an account is named: by its budget, by the first day of its period, and by its epoch."""

import hashlib
from typing import NamedTuple

_LONGEST_ID = 128


class AccountName(NamedTuple):
    """The parts of an account's name."""

    budget: str
    label: str
    epoch: int


def account_id(budget: str, label: str, epoch: int) -> str:
    """`project:shop:month@2026-11-01.0`; a reset begins the next epoch."""
    return f"{budget}@{label}.{epoch}"


def budget_of(account: str) -> str:
    """The name of an account's budget."""
    return account.rpartition("@")[0]


def parts_of(account: str) -> AccountName | None:
    """What an account is named by; None for a text that names none."""
    budget, at, rest = account.rpartition("@")
    label, dot, epoch = rest.rpartition(".")
    return AccountName(budget, label, int(epoch)) if at and dot and epoch.isdecimal() else None


def period_of(budget: str) -> str:
    """The period in the name of a budget."""
    return budget.rpartition(":")[2]


def for_every_id(budget: str) -> str | None:
    """The budget that stands in where this one has no record: `user:*:month` for
    `user:ana:month`; None for a budget without an id."""
    scope, _, rest = budget.partition(":")
    id, colon, period = rest.rpartition(":")
    return f"{scope}:*:{period}" if colon and id else None


def bounded(id: str) -> str:
    """An id as budgets are named by it: hashed when it is longer than any id that is recorded."""
    if len(id) <= _LONGEST_ID:
        return id
    return f"=h{hashlib.sha256(id.encode('utf-8', 'surrogatepass')).hexdigest()}"
