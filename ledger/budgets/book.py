"""The money of every account, as a pure fold of the ledger.

What an account has spent (`settled`), what holders may spend of it without asking (`free`), and
what open calls may cost at most (`held`); all in nano-dollars.
"""

from collections.abc import Iterator, Mapping

from ledger.budgets.book_state import AccountState, BookState, CallState
from ledger.budgets.holders import Holder
from ledger.budgets.holds import Hold, Holds
from ledger.budgets.names import for_every_id, parts_of, period_of
from ledger.budgets.once import KEPT_SECONDS, Once, second_of
from ledger.budgets.pending import Pending
from ledger.budgets.windows import is_long_over
from schemas.budget_events import (
    BudgetReset,
    HoldTaken,
    LeaseExpired,
    LeaseGranted,
    LeaseReturned,
    Movement,
)
from schemas.events import LedgerEvent, Outcome, RequestStart, Terminal

_EXPIRED_HOLDERS = 4096
_DAY = 86_400 * 1_000_000_000


class _Account:
    __slots__ = ("free", "held", "settled")

    def __init__(self, settled: int = 0) -> None:
        self.settled = settled
        self.free = 0
        self.held = 0


class Book:
    """Feed it the events of the ledger in order.

    Nothing counts twice: an event at or below `seq` is passed over, whoever delivers it again, and
    a `snapshot` has everything, the holds of open calls too. So a successor may read the ledger
    from anywhere at or before the sequence after its snapshot. An event of a call that the ledger
    has twice counts once, also where the second one comes minutes later: within `kept` seconds.

    What was decided and is not in the ledger yet is `apply`ed: it counts as leased from then on,
    and beside the fold, so that a snapshot never has it. When its event is folded it moves over;
    when its event is known not to be in the ledger, `withdraw` takes it back.
    """

    def __init__(self, kept: int = KEPT_SECONDS) -> None:
        self.seq = 0
        self._accounts: dict[str, _Account] = {}
        self._holders: dict[str, Holder] = {}
        self._holds = Holds()
        self._expired: dict[str, None] = {}
        self._epochs: dict[str, int] = {}
        self._forgotten_ns = 0
        self._forgotten_epochs: dict[str, int] = {}
        self._pending = Pending()
        self._once = Once(kept)
        self._remembered_from: int | None = None
        self._started: set[str] = set()

    @classmethod
    def restore(cls, state: BookState, kept: int = KEPT_SECONDS) -> "Book":
        """The book that a snapshot was made of."""
        book = cls(kept)
        book.seq = state.seq
        book._expired = dict.fromkeys(state.expired)
        book._epochs = dict(state.epochs)
        book._forgotten_ns = state.forgotten_ns
        book._forgotten_epochs = dict(state.forgotten_epochs)
        book._once = Once(kept, state.counted)
        book._remembered_from = state.remembered_from
        for one in state.accounts:
            book._accounts[one.account] = _Account(one.settled)
        for told in state.holders:
            holder = book._holders[told.holder] = Holder.restore(told)
            for account, nano in told.free.items():
                book._give(holder, account, nano)
        for call in state.calls:
            book._holds.start(call.call_id, Hold(call.accounts, call.nano, call.taken))
            book._add_held(call.accounts, call.nano)
        for call_id in state.early_ends:
            book._holds.remember(call_id)
        return book

    def snapshot(self) -> BookState:
        """All that was folded up to `seq`; nothing of what was only applied."""
        return BookState(
            seq=self.seq,
            accounts=tuple(AccountState(name, one.settled) for name, one in self._accounts.items()),
            holders=tuple(one.state(name) for name, one in self._holders.items()),
            calls=tuple(
                CallState(call_id, hold.accounts, hold.nano, hold.taken)
                for call_id, hold in self._holds.items()
            ),
            early_ends=self._holds.early(),
            expired=tuple(self._expired),
            epochs=dict(self._epochs),
            forgotten_ns=self._forgotten_ns,
            forgotten_epochs=dict(self._forgotten_epochs),
            counted=self._once.state(),
            remembered_from=self._remembered_from,
        )

    def fold(self, seq: int, event: LedgerEvent) -> bool:
        """Take the event at a sequence of the ledger; False for one that counts nothing, because
        it was taken before or is a copy of one that was."""
        if seq <= self.seq:
            if self._remembered_from is not None and seq >= self._remembered_from:
                self._recollect(event)
            return False
        self._remembered_from = None
        self._started.clear()
        self.seq = seq
        if isinstance(event, Outcome) and not self._once.is_new(event):
            return False
        self._take(event)
        return True

    def _take(self, event: LedgerEvent) -> None:
        match event:
            case RequestStart():
                self._start(event)
            case Outcome():
                self._spend(event)
                if isinstance(event, Terminal):
                    self._end(event.call_id)
            case LeaseGranted():
                second = second_of(event)
                for movement in event.movements:
                    self._grant(movement, second)
            case LeaseReturned():
                second = second_of(event)
                for movement in event.movements:
                    self._return(movement, second)
            case LeaseExpired():
                self._expire(event.holder)
            case HoldTaken():
                self._take_hold(event)
            case BudgetReset():
                self._epochs[event.budget] = max(event.epoch, self._epochs.get(event.budget, 0))
            case _:
                pass

    def _recollect(self, event: LedgerEvent) -> None:
        """What counts already, and has to be known for a while lest it count twice."""
        match event:
            case RequestStart():
                self._started.add(event.call_id)
            case Outcome():
                self._once.is_new(event)
                if isinstance(event, Terminal) and event.call_id not in self._started:
                    self._holds.remember(event.call_id)
            case LeaseGranted() | LeaseReturned():
                for movement in event.movements:
                    holder = self._holders.get(movement.holder)
                    if holder is not None:
                        holder.recollect(
                            movement, isinstance(event, LeaseGranted), second_of(event)
                        )
            case LeaseExpired():
                self._remember_expired(event.holder)
            case _:
                pass

    def _start(self, start: RequestStart) -> None:
        """The hold comes out of what its holder has free, as far as that goes: a holder that is
        not known any more has nothing, and its call still holds. A call that ended already holds
        nothing, but its holder has spent that part of its lease."""
        if self._holds.get(start.call_id) is not None:
            return
        nano = max(start.hold_nano, 0)
        accounts = tuple(dict.fromkeys(start.accounts))
        for name in accounts:
            self._account(name)
        if self._holds.start(start.call_id, Hold(accounts, nano)):
            self._add_held(accounts, nano)
        holder = self._holders.get(start.holder)
        if holder is not None:
            holder.seq = self.seq
            for name in accounts:
                self._take_free(holder, name, nano)

    def _spend(self, outcome: Outcome) -> None:
        if outcome.billed_to == "client":
            return
        for name in dict.fromkeys(outcome.accounts):
            account = self._account(name)
            if account is not None:
                account.settled += outcome.cost_nano or 0

    def _end(self, call_id: str) -> None:
        hold = self._holds.end(call_id)
        if hold is not None:
            self._add_held(hold.accounts, -hold.nano)

    def _take_hold(self, event: HoldTaken) -> None:
        self._pending.drop(event.call_id, event.event_id)
        hold = self._holds.get(event.call_id)
        if hold is None or event.event_id in hold.taken:
            return
        nano = max(event.hold_nano, 0)
        hold.nano += nano
        hold.taken += (event.event_id,)
        self._add_held(hold.accounts, nano)

    def _add_held(self, accounts: tuple[str, ...], nano: int) -> None:
        for name in accounts:
            account = self._accounts.get(name)
            if account is not None:
                account.held += nano

    def _grant(self, movement: Movement, second: int) -> None:
        self._pending.drop(movement.holder, movement.request)
        holder = self._holders.setdefault(movement.holder, Holder(self.seq))
        holder.seq = self.seq
        if movement.request in holder.granted:
            return
        holder.granted.remember(movement.request, movement.amounts, second)
        for name, nano in movement.amounts.items():
            self._give(holder, name, max(nano, 0))

    def _return(self, movement: Movement, second: int) -> None:
        holder = self._holders.get(movement.holder)
        if holder is None or movement.request in holder.returned:
            return
        holder.seq = self.seq
        holder.returned.remember(movement.request, None, second)
        for name, nano in movement.amounts.items():
            self._take_free(holder, name, max(nano, 0))

    def _give(self, holder: Holder, name: str, nano: int) -> None:
        account = self._account(name)
        if account is not None and nano:
            holder.give(name, nano)
            account.free += nano

    def _take_free(self, holder: Holder, name: str, nano: int) -> None:
        taken = holder.take(name, nano)
        if taken:
            self._accounts[name].free -= taken

    def _expire(self, name: str) -> None:
        self._remember_expired(name)
        holder = self._holders.pop(name, None)
        if holder is not None:
            for account, nano in holder.free.items():
                self._accounts[account].free -= nano

    def _remember_expired(self, name: str) -> None:
        self._expired[name] = None
        if len(self._expired) > _EXPIRED_HOLDERS:
            del self._expired[next(iter(self._expired))]

    def _account(self, name: str) -> _Account | None:
        """An account, begun if need be; None for one that is forgotten."""
        account = self._accounts.get(name)
        if account is None and not self._is_history(name):
            account = self._accounts[name] = _Account()
        return account

    def apply(self, decided: Movement | HoldTaken) -> None:
        """Count as leased what was decided just now, until its event is folded; once only."""
        if isinstance(decided, Movement):
            self._pending.add(decided.holder, decided.request, decided.amounts)
        else:
            hold = self._holds.get(decided.call_id)
            amounts = dict.fromkeys(hold.accounts if hold else (), decided.hold_nano)
            self._pending.add(decided.call_id, decided.event_id, amounts)

    def withdraw(self, decided: Movement | HoldTaken) -> None:
        """Its event is not in the ledger and will not be."""
        if isinstance(decided, Movement):
            self._pending.drop(decided.holder, decided.request)
        else:
            self._pending.drop(decided.call_id, decided.event_id)

    def is_applied(self, holder: str, request: str) -> bool:
        """Whether a request was decided and its event is not folded yet."""
        return (holder, request) in self._pending

    def settled(self, account: str) -> int:
        """What the account has spent."""
        found = self._accounts.get(account)
        return found.settled if found else 0

    def free(self, account: str) -> int:
        """What holders may still spend of it without asking."""
        found = self._accounts.get(account)
        return found.free if found else 0

    def held(self, account: str) -> int:
        """What open calls hold of it."""
        found = self._accounts.get(account)
        return found.held if found else 0

    def leased(self, account: str) -> int:
        """Free, held, and applied."""
        found = self._accounts.get(account)
        pending = self._pending.nano(account)
        return found.free + found.held + pending if found else pending

    def knows(self, account: str) -> bool:
        """Whether anything was told of an account, and it is not forgotten."""
        return account in self._accounts

    def accounts(self) -> Iterator[str]:
        """The names of all accounts that are kept."""
        return iter(self._accounts)

    @property
    def account_count(self) -> int:
        return len(self._accounts)

    @property
    def open_calls(self) -> int:
        return len(self._holds)

    def epoch(self, budget: str) -> int:
        """How often a budget began anew, by itself or with the `*` budget of its scope."""
        return _epoch_in(self._epochs, budget)

    def next_epoch(self, budget: str) -> int:
        """The epoch of the budget's next reset; that of `*` is new to every id of the scope."""
        if budget == for_every_id(budget):
            own = (nr for name, nr in self._epochs.items() if for_every_id(name) == budget)
            return max(own, default=0) + 1
        return self.epoch(budget) + 1

    def holders(self) -> Mapping[str, int]:
        """Who holds leases: the last sequence that told of each."""
        return {name: holder.seq for name, holder in self._holders.items()}

    def is_expired(self, holder: str) -> bool:
        """Whether it is one of the last that expired, and is to begin anew under another id."""
        return holder in self._expired

    def free_of(self, holder: str) -> Mapping[str, int]:
        """What a holder has free, by account."""
        found = self._holders.get(holder)
        return dict(found.free) if found else {}

    def granted(self, holder: str, request: str) -> Mapping[str, int] | None:
        """What one of a holder's last requests got, once that is in the ledger."""
        found = self._holders.get(holder)
        return found.granted.get(request) if found else None

    def returned(self, holder: str, request: str) -> bool:
        """Whether one of a holder's last returns is in the ledger."""
        found = self._holders.get(holder)
        return found is not None and request in found.returned

    def hold_of(self, call_id: str) -> int | None:
        """What an open call holds in each of its accounts; None for a call that is not open."""
        hold = self._holds.get(call_id)
        return hold.nano if hold else None

    def has_taken(self, call_id: str, event_id: str) -> bool:
        """Whether an open call holds already what a `HoldTaken` event of that id added."""
        hold = self._holds.get(call_id)
        return hold is not None and event_id in hold.taken

    def forget(self, now_ns: int) -> int:
        """Drop accounts of long ended periods and of epochs before the last one, where nothing is
        free or held; returns how many. To be called once the ledger is read to its end; looks
        once a day, the rest of the day it costs nothing.

        An event that names such an account later adds nothing to anything.
        """
        if now_ns // _DAY <= self._forgotten_ns // _DAY:
            return 0
        # Of then, not of later resets: a lease that is on its way may be of an epoch before those.
        self._forgotten_ns, self._forgotten_epochs = now_ns, dict(self._epochs)
        idle = [name for name, one in self._accounts.items() if not (one.free or one.held)]
        old = [name for name in idle if self._is_history(name)]
        for name in old:
            del self._accounts[name]
        return len(old)

    def _is_history(self, name: str) -> bool:
        if not self._forgotten_ns or (parts := parts_of(name)) is None:
            return False
        if parts.epoch < _epoch_in(self._forgotten_epochs, parts.budget) - 1:
            return True
        return is_long_over(period_of(parts.budget), parts.label, self._forgotten_ns)


def _epoch_in(epochs: Mapping[str, int], budget: str) -> int:
    own = epochs.get(budget, 0)
    every = for_every_id(budget) if epochs else None
    return max(own, epochs.get(every, 0)) if every else own
