"""How an account is named: by its budget, by the first day of its period, and by its epoch."""


def account_id(budget: str, label: str, epoch: int) -> str:
    """`project:shop:month@2026-11-01.0`; a reset begins the next epoch."""
    return f"{budget}@{label}.{epoch}"


def budget_of(account: str) -> str:
    """The name of an account's budget."""
    return account.rpartition("@")[0]
