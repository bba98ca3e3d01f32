"""Events of budgets: what the governor lets ingresses spend, what comes back, and what was refused.

Amounts are nano-dollars. An account is one budget in one of its periods.
"""

import msgspec

from schemas.event import Event


class Movement(msgspec.Struct, frozen=True):
    """Nano-dollars by account that went to a holder, or came back from it, by one request."""

    holder: str
    request: str
    amounts: dict[str, int]


class LeaseGranted(Event, frozen=True, tag="budget.lease.granted"):
    """The governor let ingresses spend from accounts without asking again."""

    movements: tuple[Movement, ...] = ()


class LeaseReturned(Event, frozen=True, tag="budget.lease.returned"):
    """Ingresses gave back what they did not need."""

    movements: tuple[Movement, ...] = ()


class LeaseExpired(Event, frozen=True, tag="budget.lease.expired"):
    """A holder fell silent: all of its leases end, but for the holds of its open calls."""

    holder: str = ""


class HoldTaken(Event, frozen=True, tag="budget.hold.taken"):
    """A further attempt of a call that may cost: held in its accounts beside what it had before."""

    hold_nano: int = 0


class BudgetReset(Event, frozen=True, tag="budget.reset"):
    """A budget begins anew: its next account is that of `epoch`. What was spent stays history."""

    budget: str = ""
    epoch: int = 0
    by: str = ""


class GovernorStarted(Event, frozen=True, tag="governor.started"):
    """A governor took over; whatever another one still tries to append fails from here on."""

    governor: str = ""


class BudgetWarning(Event, frozen=True, tag="model.budget.warning"):
    """An account crossed its warning threshold; once per account."""

    budget: str = ""
    account: str = ""
    spent_nano: int = 0
    limit_nano: int = 0
    warning_threshold: float = 0.8


class BudgetExceeded(Event, frozen=True, tag="model.budget.exceeded"):
    """Calls were refused for want of budget: `refused` of them since the last such event.

    The numbers are those of the last of them, which is `call_id`; `earlier` has what the calls
    before it needed, the last 100 of them.
    """

    budget: str = ""
    account: str = ""
    limit_nano: int = 0
    spent_nano: int = 0
    held_nano: int = 0
    needed_nano: int = 0
    refused: int = 1
    earlier: dict[str, int] = msgspec.field(default_factory=dict)


class CostAlert(Event, frozen=True, tag="model.cost.alert"):
    """A cost passed a threshold that somebody watches; `period` is `request` for one call."""

    user_id: str = ""
    project_id: str = ""
    current_cost: float = 0.0
    threshold: float = 0.0
    period: str = "request"
    tracking_id: str = ""
