"""What travels between the analytics role and whoever asks it about accounts of budgets.

Amounts are nano-dollars.
"""

import msgspec


class TotalsParams(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which sequence, and behind which account to begin."""

    through: int
    after: str = ""


class Spent(msgspec.Struct, frozen=True):
    """Nano-dollars of an account: a sum over events, and what the rollup `budget_spend` says."""

    account: str
    events_nano: int
    rollup_nano: int


class Totals(msgspec.Struct, frozen=True):
    """The state of the database at `through`; while `as_of_seq` is below it, nothing of that.

    `rows` and `sequences` up to there differ where a sequence stands twice; `first_missing` is the
    lowest sequence that is not there, `highest` the highest that is. `accounts` go on behind `next`
    where that is set.
    """

    through: int
    as_of_seq: int
    rows: int = 0
    sequences: int = 0
    first_missing: int | None = None
    highest: int = 0
    accounts: tuple[Spent, ...] = ()
    next: str | None = None


class ExplainParams(msgspec.Struct, frozen=True):
    """Which call, by its bare id."""

    call_id: str


class Recorded(msgspec.Struct, frozen=True):
    """An event of the call as the ledger has it."""

    seq: int
    event: msgspec.Raw


class Moved(msgspec.Struct, frozen=True):
    """What the call's holder was granted out of an account, or (below zero) gave back."""

    seq: int
    time: str
    request: str
    amount_nano: int


class AccountThen(msgspec.Struct, frozen=True):
    """An account of the call, as the ledger had it just before the call's start.

    `limit_nano` comes from the event at `limit_seq`, without one from the configuration of today;
    None is without a limit. `spent_nano` is what had been charged, `held_nano` what was held for
    open calls, `leased_nano` what lay free with all holders and `holder_nano` with the call's own;
    `moves` are the newest movements of that one. `remaining_nano` is what the governor could still
    have granted. Then what the call itself held and was charged.
    """

    account: str
    budget: str
    limit_nano: int | None
    hard_stop: bool | None
    limit_seq: int | None
    spent_nano: int
    held_nano: int
    leased_nano: int
    holder_nano: int
    remaining_nano: int | None
    hold_nano: int
    cost_nano: int
    moves: tuple[Moved, ...]


class RefusedBy(msgspec.Struct, frozen=True):
    """A budget that had not enough left for the call, or for a further attempt of it, and the
    numbers of that decision. `together`: of so many refusals within a second, which are told by one
    event; then `spent_nano` and `held_nano` are those of the last of them."""

    seq: int
    time: str
    budget: str
    account: str
    limit_nano: int
    spent_nano: int
    held_nano: int
    needed_nano: int
    together: int = 1


class Explanation(msgspec.Struct, frozen=True):
    """Every number that the admission of a call was decided on, and what came of it.

    `start_seq` None is a call that never started; it has no accounts. `prompt_estimate` is None
    before any end is known.
    """

    call_id: str
    as_of_seq: int
    start_seq: int | None
    time: str | None
    model: str | None
    plan: tuple[str, ...]
    holder: str | None
    hold_nano: int | None
    prompt_estimate: int | None
    accounts: tuple[AccountThen, ...]
    events: tuple[Recorded, ...]
    refused_by: tuple[RefusedBy, ...] = ()
