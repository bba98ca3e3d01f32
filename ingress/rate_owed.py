"""What this process owes the governor of its rates: slots of calls that ended, leases that were not
used up, and the difference between the tokens that were estimated and those that were used.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from ingress.rate_pocket import Pockets
from ledger.budgets.messages import Answer, RateLease, RateWant, Want
from ledger.budgets.rate_kinds import FOR_EVER_NS
from schemas.ids import Clock

_SOON = 0.05
_AWAY = 1.0


class Lender(Protocol):
    """Who speaks with the governor: `ingress.lease_client.LeaseClient`."""

    @property
    def holder(self) -> str: ...

    @property
    def away(self) -> bool: ...

    @property
    def reign(self) -> int:
        """The one that was last told of, 0 before."""
        ...

    async def ask(
        self, wants: Sequence[Want] = (), rates: Sequence[RateWant] = ()
    ) -> Answer | None:
        """The answer, whenever it comes; None: the holder is another one now."""
        ...

    def give(self, amounts: Mapping[str, int], slots: Mapping[str, int] | None = None) -> None: ...


class Term(NamedTuple):
    """As whom this process has its leases, and of whose reign: with either they all end."""

    holder: str
    reign: int


class Owed:
    """Collects for a moment, and gives back together. Slots go back at once: the client's next call
    may come to another process."""

    def __init__(self, pockets: Pockets, lender: Lender, clock: Clock) -> None:
        self._pockets = pockets
        self._lender = lender
        self._clock = clock
        self._told = 0
        self._term = Term(lender.holder, 0)
        self._amounts: dict[str, int] = {}
        self._slots: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, rate: str, amount: int) -> None:
        """Not used after all; below 0: used beyond what was granted."""
        self._amounts[rate] = self._amounts.get(rate, 0) + amount
        self._give_in(_SOON)

    def add_slot(self, rate: str) -> None:
        """A call is over; until the slot is given back, the next call here may have it."""
        pocket = self._pockets.of(rate, self._clock.now_ns())
        pocket.until_ns = FOR_EVER_NS
        pocket.amount += 1
        pocket.open()
        self._slots.add(rate)
        self._give_in(0)

    def watch(self, lease: RateLease, now_ns: int) -> None:
        """What is not used of a new lease will be owed."""
        if lease.until_ns >= FOR_EVER_NS:
            self._slots.add(lease.rate)
            self._give_in(_SOON)
        elif lease.amount > 1:
            delay = (lease.until_ns - now_ns) / 1e9
            asyncio.get_running_loop().call_later(delay, self.collect, lease.rate)

    def collect(self, rate: str) -> None:
        """Take what is left of a lease that ended."""
        pocket = self._pockets.by_rate.get(rate)
        unused = 0 if pocket is None else pocket.expire(self._clock.now_ns())
        if unused:
            self.add(rate, unused)

    def follow(self) -> Term:
        """The term now. What another holder before this one was granted, or owed, is gone, and so
        is all of another reign."""
        reign = self._term.reign
        if self._lender.reign != self._told:
            reign = self._told = self._lender.reign
        return self._begin(Term(self._lender.holder, reign))

    def obey(self, reign: int) -> Term:
        """A governor has answered. What another before it granted, it does not know of."""
        return self._begin(self._term._replace(reign=reign))

    def _begin(self, term: Term) -> Term:
        if term != self._term:
            self._term = term
            self._amounts.clear()
            self._slots.clear()
            self._pockets.empty()
        return term

    def _give_in(self, seconds: float) -> None:
        if self._timer is not None:
            if seconds:
                return
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._give)

    def _give(self) -> None:
        self._timer = None
        if self._lender.away:
            self._give_in(_AWAY)
            return
        self.follow()
        for rate in self._slots:
            pocket = self._pockets.by_rate.get(rate)
            if pocket is not None and pocket.amount:
                self._amounts[rate], pocket.amount = pocket.amount, 0
        self._slots.clear()
        amounts, self._amounts = self._amounts, {}
        self._lender.give({}, {rate: amount for rate, amount in amounts.items() if amount})
