"""What ingresses and workers ask the governor about money and rates, and what it answers.

msgpack over request/reply, but for `Recall`, which everybody hears. Amounts are nano-dollars, times
nanoseconds since 1970 UTC. A question has an id of its holder's: repeated, it gets the same answer.
"""

from typing import Literal

import msgspec


class Want(msgspec.Struct, frozen=True, omit_defaults=True):
    """Out of one budget: what is needed at least, and what would be liked for the next calls.

    `budget` is the name of its record (`schemas.access.budget_name`).
    """

    budget: str
    need: int
    like: int = 0


class RateWant(msgspec.Struct, frozen=True, omit_defaults=True):
    """Out of one rate: so many requests, tokens or slots at least, so many if possible.

    `limit` per `seconds` with `burst` on top; `seconds` 0 is a number of slots, to be given back.
    """

    rate: str
    limit: float
    need: int
    like: int = 0
    seconds: float = 1.0
    burst: int = 0


class Ask(msgspec.Struct, frozen=True, omit_defaults=True):
    """All or nothing: everything that one call, or the next few, need."""

    holder: str
    request: str
    wants: tuple[Want, ...] = ()
    rates: tuple[RateWant, ...] = ()


class Lease(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was granted out of a budget, in which account, and how that stands.

    `ends_ns` is the end of the account's period (None: never). A soft budget (`hard` false) needs
    no lease: its account is named, `amount` is 0. `held_nano` is all that is leased or held, this
    lease included.
    """

    budget: str
    account: str
    hard: bool
    limit_nano: int
    spent_nano: int
    held_nano: int
    amount: int = 0
    ends_ns: int | None = None


class RateLease(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was granted out of a rate; unused, it ends at `until_ns`. `left` is what is still there
    for others, `resets_ns` when the whole limit is there again. `reign` is whose governor's it is:
    with another one all leases before it are gone, and nothing of them is to be given back."""

    rate: str
    amount: int
    until_ns: int
    left: int
    resets_ns: int
    reign: int = 0


class Shortage(msgspec.Struct, frozen=True, omit_defaults=True):
    """The first budget that has not enough left, with every number of that decision."""

    budget: str
    account: str
    limit_nano: int
    spent_nano: int
    held_nano: int
    needed_nano: int
    ends_ns: int | None = None


class RateShortage(msgspec.Struct, frozen=True, omit_defaults=True):
    """The first rate that has not enough left; `wait` is in seconds, `reign` that of a lease."""

    rate: str
    limit: float
    left: int
    resets_ns: int
    wait: float
    reign: int = 0


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """Exactly one of: leases and rates, a shortage of either kind, or `stranger`: the holder is not
    known any more, all it had is gone, and it begins anew under another id. To a pulse nothing but
    the `reign`."""

    leases: tuple[Lease, ...] = ()
    rates: tuple[RateLease, ...] = ()
    shortage: Shortage | None = None
    rate_shortage: RateShortage | None = None
    stranger: bool = False
    reign: int = 0


class Return(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a holder gives back: money by account, slots by rate."""

    holder: str
    request: str
    amounts: dict[str, int] = {}
    slots: dict[str, int] = {}


class Pulse(msgspec.Struct, frozen=True, omit_defaults=True):
    """A holder is alive; the answer tells the reign. `before` are the names under
    which it had leases until lately: it does not use them any more, and what they have is free."""

    holder: str
    before: tuple[str, ...] = ()


class Recall(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whoever has idle leases of these accounts gives them back, at once. With `drop` they are not
    to be used any more: their budget was reset. With a `reign`, one has just begun: leases of rates
    from before are gone."""

    accounts: tuple[str, ...] = ()
    drop: bool = False
    reign: int = 0


class HoldAsk(msgspec.Struct, frozen=True, omit_defaults=True):
    """A further attempt of a running call wants its own hold; the answer is an `Answer` with a
    shortage or without."""

    call_id: str
    request: str
    hold_nano: int
    accounts: tuple[str, ...]


class Reset(msgspec.Struct, frozen=True, omit_defaults=True):
    """A budget begins anew; the answer is a `BudgetState`, or nothing for an unknown budget."""

    budget: str
    request: str
    by: str


class StateAsk(msgspec.Struct, frozen=True, omit_defaults=True):
    """How budgets stand: those of these names; where there are none all, those behind `after` in
    the order of their names, as many as one answer holds."""

    budgets: tuple[str, ...] = ()
    after: str = ""


class BudgetState(msgspec.Struct, frozen=True, omit_defaults=True):
    """One budget now."""

    budget: str
    account: str
    scope: str
    id: str
    period: Literal["day", "week", "month", "total"]
    limit_nano: int
    spent_nano: int
    held_nano: int
    hard: bool
    ends_ns: int | None = None


class States(msgspec.Struct, frozen=True):
    """Budgets as of one ledger sequence; they go on behind `next` where that is set."""

    seq: int
    budgets: tuple[BudgetState, ...] = ()
    next: str | None = None


encode = msgspec.msgpack.Encoder().encode
decode_ask = msgspec.msgpack.Decoder(Ask).decode
decode_answer = msgspec.msgpack.Decoder(Answer).decode
decode_return = msgspec.msgpack.Decoder(Return).decode
decode_pulse = msgspec.msgpack.Decoder(Pulse).decode
decode_recall = msgspec.msgpack.Decoder(Recall).decode
decode_hold_ask = msgspec.msgpack.Decoder(HoldAsk).decode
decode_reset = msgspec.msgpack.Decoder(Reset).decode
decode_state_ask = msgspec.msgpack.Decoder(StateAsk).decode
decode_states = msgspec.msgpack.Decoder(States).decode
