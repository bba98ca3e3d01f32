"""Who is still to be told that money is short or was spent: a pure fold of the ledger.

What is due stays so until its event is in the ledger, whichever governor writes it.
"""

import msgspec

from schemas.budget_events import BudgetWarning, CostAlert
from schemas.events import LedgerEvent, Outcome, RequestStart, Terminal

_REMEMBERED = 20_000


class Costly(msgspec.Struct, frozen=True, omit_defaults=True):
    """A call that ended and cost more than its client had wished to hear of; nano-dollars."""

    call_id: str
    cost_nano: int
    alert_nano: int
    key_id: str = ""
    project: str = ""
    team: str = ""
    user: str = ""
    app: str = ""
    model: str = ""
    tracking_id: str = ""


class Told(msgspec.Struct, frozen=True):
    """What a successor goes on from."""

    warned: tuple[str, ...] = ()
    costly: tuple[Costly, ...] = ()


class Alerts:
    """Feed it the ledger in order, each event with the start of its call while that is open.

    `warned` are the accounts whose warning was written, the last 20,000; `costly` the calls whose
    alert was not.
    """

    def __init__(self, told: Told) -> None:
        self.warned: dict[str, None] = dict.fromkeys(told.warned)
        self.costly: dict[str, Costly] = {one.call_id: one for one in told.costly}

    def fold(self, event: LedgerEvent, start: RequestStart | None) -> None:
        """Take one event."""
        if isinstance(event, Terminal):
            if start is not None and _is_costly(event, start.alert_nano):
                self.costly[event.call_id] = _costly(event, start)
        elif isinstance(event, BudgetWarning):
            self.warned[event.account] = None
            if len(self.warned) > _REMEMBERED:
                del self.warned[next(iter(self.warned))]
        elif isinstance(event, CostAlert):
            self.costly.pop(event.call_id, None)

    def snapshot(self) -> Told:
        return Told(tuple(self.warned), tuple(self.costly.values()))


def _is_costly(end: Outcome, alert_nano: int | None) -> bool:
    return alert_nano is not None and end.cost_nano is not None and end.cost_nano > alert_nano


def _costly(end: Outcome, start: RequestStart) -> Costly:
    assert end.cost_nano is not None and start.alert_nano is not None
    return Costly(
        call_id=start.call_id,
        cost_nano=end.cost_nano,
        alert_nano=start.alert_nano,
        key_id=start.key_id,
        project=start.project,
        team=start.team,
        user=start.user,
        app=start.app,
        model=start.model,
        tracking_id=start.tracking_id,
    )
