"""The money that one ingress may spend without asking: a decision is a subtraction in memory.

Pure and without I/O; `ingress/lease_client.py` fills it. Amounts are nano-dollars, times
nanoseconds since 1970 UTC.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ledger.budgets.messages import Lease, Want
from ledger.budgets.names import for_every_id, parts_of
from schemas.access import Budget

SECOND = 1_000_000_000
# What this much time needs is asked for at once.
_AHEAD = SECOND // 2
_AT_LEAST = SECOND // 50
# After a grant of no more than what was needed, no more than that is asked for so long.
_TIGHT = SECOND
# How long the governor's word counts that a budget is soft: longer where that is no surprise.
_REFRESH = 10 * SECOND
_SURPRISE = SECOND
_FORGOTTEN_AFTER = 60 * SECOND
_FOR_EVER = 1 << 63
_NEVER = -1


class Taken(NamedTuple):
    """A call was paid for in advance: `hold_nano` in each of `accounts`, out of what `holder` had.

    `leased` are those of hard budgets; where there is none, `holder` is empty.
    """

    accounts: tuple[str, ...]
    holder: str
    hold_nano: int
    leased: tuple[str, ...] = ()


class Missing(NamedTuple):
    """What to ask for, by budget: the whole need of the call, 0 where only a name is wanted."""

    needs: dict[str, int]


class Slot:
    """What is known and left of one budget. `good_until` is the end of its period, or 0 while the
    account may not be used; below `mark` it is time to ask for more."""

    __slots__ = (
        "account", "dropped_ns", "ends_ns", "free", "good_until", "hard", "held_nano",
        "limit_nano", "mark", "seen_ns", "since_ns", "spent_nano", "taken_ns", "tight_until",
        "used",
    )  # fmt: skip

    def __init__(self, lease: Lease, now_ns: int) -> None:
        self.free = 0
        self.used = 0
        self.since_ns = self.taken_ns = now_ns
        self.tight_until = self.dropped_ns = 0
        self.mark = _NEVER
        self.learn(lease, now_ns)

    def learn(self, lease: Lease, now_ns: int) -> None:
        """How the budget stands, as the governor says it."""
        self.account = lease.account
        self.hard = lease.hard
        self.limit_nano = lease.limit_nano
        self.spent_nano = lease.spent_nano
        self.held_nano = lease.held_nano
        self.ends_ns = self.good_until = _FOR_EVER if lease.ends_ns is None else lease.ends_ns
        self.seen_ns = now_ns

    def soon(self, now_ns: int) -> int:
        """What half a second takes, as things went since the last grant."""
        return self.used * _AHEAD // max(now_ns - self.since_ns, _AT_LEAST)

    def fill(self, amount: int, now_ns: int) -> None:
        """Add what was granted; grants that come close together are measured as one."""
        self.free += amount
        self.mark = amount // 2
        if now_ns - self.since_ns > _AT_LEAST:
            self.used = 0
            self.since_ns = now_ns


class Purse:
    """Free money by budget, of one holder at a time.

    Budgets of many ids may share one account, where ids are too many for each to have its own.
    `low` has the names of budgets that should be asked for before they are needed.
    """

    def __init__(self, holder: str) -> None:
        self.holder = holder
        self.low: set[str] = set()
        self._slots: dict[str, Slot] = {}
        self._sharers: dict[str, dict[str, Slot]] = {}
        self._epochs: dict[str, int] = {}

    def take(self, budgets: Sequence[Budget], nano: int, now_ns: int) -> Taken | Missing:
        """Hold `nano` in every hard budget, all or nothing; a soft one only names its account."""
        slots = self._slots
        found: list[tuple[str, Slot]] = []
        for budget in budgets:
            name = budget.name
            slot = slots.get(name)
            if slot is None or now_ns >= slot.good_until:
                return self.missing(budgets, nano, now_ns)
            if slot.free < nano if slot.hard else _in_doubt(slot, budget, now_ns):
                return self.missing(budgets, nano, now_ns)
            found.append((name, slot))
        leased: list[str] = []
        for name, slot in found:
            slot.taken_ns = now_ns
            if slot.hard:
                leased.append(slot.account)
                slot.free -= nano
                slot.used += nano
                if slot.free < slot.mark:
                    slot.mark = _NEVER
                    self.low.add(name)
            elif now_ns - slot.seen_ns > _REFRESH:
                slot.seen_ns = now_ns
                self.low.add(name)
        accounts = tuple([slot.account for _, slot in found])
        return Taken(accounts, self.holder if leased else "", nano, tuple(leased))

    def missing(self, budgets: Sequence[Budget], nano: int, now_ns: int) -> Missing:
        """The budgets among these that could not be taken from now."""
        needs: dict[str, int] = {}
        for budget in budgets:
            slot = self._slots.get(budget.name)
            if slot is None or now_ns >= slot.good_until:
                needs[budget.name] = nano if budget.hard_stop else 0
            elif slot.free < nano if slot.hard else _in_doubt(slot, budget, now_ns):
                needs[budget.name] = nano
        return Missing(needs)

    def give_back(self, taken: Taken) -> None:
        """Undo `take`: the call was not admitted after all, and the ledger has not heard of it."""
        if taken.holder != self.holder:
            return
        for account in taken.leased:
            slot = next(iter(self._sharers.get(account, {}).values()), None)
            if slot is not None and slot.good_until:
                slot.free += taken.hold_nano
                slot.used = max(0, slot.used - taken.hold_nano)

    def wants(self, needs: Mapping[str, int], waiting: int, now_ns: int) -> tuple[Want, ...]:
        """What to ask for: at least the needs, and what `waiting` callers and the next half second
        will take, except from budgets that had no more than the need the last time."""
        return tuple(self._want(name, need, waiting, now_ns) for name, need in needs.items())

    def _want(self, name: str, need: int, waiting: int, now_ns: int) -> Want:
        slot = self._slots.get(name)
        if slot is None:
            return Want(name, need, max(waiting, 2 * need))
        if now_ns < slot.tight_until:
            return Want(name, need, need)
        return Want(name, need, max(waiting + slot.soon(now_ns), 2 * need) if slot.hard else need)

    def put(self, want: Want, lease: Lease, asked_ns: int, now_ns: int) -> dict[str, int]:
        """Take in what was granted for a want of `asked_ns`; gives, by account, what has to be
        returned because its period or epoch is over."""
        name, left = lease.budget, dict[str, int]()
        slot = self._slots.get(name)
        if slot is None:
            slot = self._slots[name] = Slot(lease, now_ns)
        elif slot.account == lease.account:
            if asked_ns <= slot.dropped_ns:
                return {}
            slot.learn(lease, now_ns)
        elif _order(lease.account) < _order(slot.account):
            return {lease.account: lease.amount} if lease.amount else {}
        else:
            if slot.free:
                left[slot.account] = slot.free
            self._part(name, slot)
            slot.free = 0
            slot.learn(lease, now_ns)
        self._sharers.setdefault(lease.account, {})[name] = slot
        parts = parts_of(lease.account)
        self._learn_epoch(name, parts.epoch if parts else 0)
        slot.fill(lease.amount, now_ns)
        if lease.amount <= want.need < want.like:
            slot.tight_until = now_ns + _TIGHT
            slot.mark = _NEVER
        return left

    def recall(self, accounts: Sequence[str]) -> dict[str, int]:
        """Give up all that is free in these accounts."""
        given: dict[str, int] = {}
        for account in accounts:
            for slot in self._sharers.get(account, {}).values():
                if slot.free:
                    given[account] = given.get(account, 0) + slot.free
                    slot.free = 0
                    slot.mark = _NEVER
        return given

    def drop(self, accounts: Sequence[str], now_ns: int) -> None:
        """These accounts were reset: what was free in them is nobody's any more, nor is what was
        asked for before now. An account of `*` stands for those of every single id."""
        for account in accounts:
            parts = parts_of(account)
            if parts is None:
                continue
            self._learn_epoch(parts.budget, parts.epoch + 1)
            dropped = list(self._sharers.get(account, {}).values())
            if parts.budget == for_every_id(parts.budget):
                dropped += [
                    slot for name, slot in self._slots.items() if for_every_id(name) == parts.budget
                ]
            for slot in dropped:
                slot.free = slot.good_until = slot.ends_ns = 0
                slot.dropped_ns = now_ns
                slot.mark = _NEVER

    def surplus(self, idle_ns: int, now_ns: int) -> dict[str, int]:
        """What to return by account: that of periods that are over, and what nothing was taken from
        for `idle_ns`. Forgets what was long not used."""
        given: dict[str, int] = {}
        for name, slot in list(self._slots.items()):
            idle = now_ns - slot.taken_ns
            over = now_ns >= slot.good_until
            if slot.free and (over or idle > idle_ns):
                given[slot.account] = given.get(slot.account, 0) + slot.free
                slot.free = 0
                slot.mark = _NEVER
            elif not slot.free and idle > _FORGOTTEN_AFTER:
                self._part(name, slot)
                del self._slots[name]
        return given

    def empty(self) -> dict[str, int]:
        """Give up all that is free."""
        return self.recall(tuple(self._sharers))

    def begin(self, holder: str) -> None:
        """Another holder begins with nothing; only the names of accounts stay known."""
        self.holder = holder
        self.low.clear()
        for slot in self._slots.values():
            slot.free = slot.good_until = slot.tight_until = 0
            slot.mark = _NEVER

    def known_account(self, budget: str, now_ns: int) -> str | None:
        """The last account heard of for a budget, as long as its period lasts."""
        slot = self._slots.get(budget)
        return slot.account if slot is not None and now_ns < slot.ends_ns else None

    def known_epoch(self, budget: str) -> int:
        """The last epoch heard of for a budget, 0 where none was."""
        every = for_every_id(budget)
        return max(self._epochs.get(budget, 0), self._epochs.get(every, 0) if every else 0)

    def free(self, budget: str) -> int:
        """What may be taken from a hard budget without asking."""
        slot = self._slots.get(budget)
        return slot.free if slot is not None else 0

    def _part(self, name: str, slot: Slot) -> None:
        """A slot leaves its account."""
        sharers = self._sharers[slot.account]
        del sharers[name]
        if not sharers:
            del self._sharers[slot.account]

    def _learn_epoch(self, budget: str, epoch: int) -> None:
        if epoch > self._epochs.get(budget, 0):
            self._epochs[budget] = epoch


def _in_doubt(slot: Slot, budget: Budget, now_ns: int) -> bool:
    """Whether the governor is asked again about a budget that it said was soft, and we say is hard:
    one of us has not heard of a change yet, and the governor decides."""
    return budget.hard_stop and now_ns - slot.seen_ns > _SURPRISE


def _order(account: str) -> tuple[str, int]:
    """Accounts of one budget in the order of their beginning: label, then epoch."""
    parts = parts_of(account)
    return (parts.label, parts.epoch) if parts else ("", 0)
