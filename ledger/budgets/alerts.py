"""Who is still to be told that money is short or was spent: a pure fold of the ledger.

What is due stays so until its event is in the ledger, whichever governor writes it.
"""

import msgspec

from schemas.budget_events import BudgetWarning, CostAlert
from schemas.events import LedgerEvent, Outcome, RequestStart, Terminal

REMEMBERED = 20_000
_WATCHED = 1_000


class Costly(msgspec.Struct, frozen=True, omit_defaults=True):
    """A call that ended: what it cost, and above which cost its client wants to hear of it;
    nano-dollars."""

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
    cheap: tuple[Costly, ...] = ()
    spent: dict[str, int] = {}


class Alerts:
    """Feed it the ledger in order, each event with the start of its call while that is open.

    `warned` are the accounts whose warning was written, the last 20,000; `costly` the calls whose
    alert was not. What a call cost is the sum over its events: of an open one they are added up
    only where its client wants an alert, of one that has ended as long as it is among the last
    1,000 such calls.
    """

    def __init__(self, told: Told) -> None:
        self.warned: dict[str, None] = dict.fromkeys(told.warned)
        self.costly: dict[str, Costly] = {one.call_id: one for one in told.costly}
        self._cheap: dict[str, Costly] = {one.call_id: one for one in told.cheap}
        self._spent = dict(told.spent)

    def fold(self, event: LedgerEvent, start: RequestStart | None) -> None:
        """Take one event."""
        if isinstance(event, Outcome):
            self._charge(event, start)
        elif isinstance(event, BudgetWarning):
            self.warned[event.account] = None
            if len(self.warned) > REMEMBERED:
                del self.warned[next(iter(self.warned))]
        elif isinstance(event, CostAlert):
            self.costly.pop(event.call_id, None)

    def snapshot(self) -> Told:
        return Told(
            warned=tuple(self.warned),
            costly=tuple(self.costly.values()),
            cheap=tuple(self._cheap.values()),
            spent=dict(self._spent),
        )

    def _charge(self, outcome: Outcome, start: RequestStart | None) -> None:
        nano, call_id = outcome.cost_nano or 0, outcome.call_id
        ended = self.costly.get(call_id) or self._cheap.get(call_id)
        if ended is not None:
            self._file(msgspec.structs.replace(ended, cost_nano=ended.cost_nano + nano))
        elif start is not None and start.alert_nano is not None:
            nano += self._spent.pop(call_id, 0)
            if isinstance(outcome, Terminal):
                self._file(_of(start, start.alert_nano, nano))
            elif nano:
                self._spent[call_id] = nano

    def _file(self, ended: Costly) -> None:
        self.costly.pop(ended.call_id, None)
        self._cheap.pop(ended.call_id, None)
        if ended.cost_nano > ended.alert_nano:
            self.costly[ended.call_id] = ended
            return
        self._cheap[ended.call_id] = ended
        if len(self._cheap) > _WATCHED:
            del self._cheap[next(iter(self._cheap))]


def _of(start: RequestStart, alert_nano: int, cost_nano: int) -> Costly:
    return Costly(
        call_id=start.call_id,
        cost_nano=cost_nano,
        alert_nano=alert_nano,
        key_id=start.key_id,
        project=start.project,
        team=start.team,
        user=start.user,
        app=start.app,
        model=start.model,
        tracking_id=start.tracking_id,
    )
