"""The governor's side of rates: how many requests, tokens or running calls are still there, and who
has been granted some of them. In memory only, without I/O; the time is an argument.
"""

from collections.abc import Mapping

from msgspec import structs

from ledger.budgets.legacy import Legacy
from ledger.budgets.messages import RateLease, RateShortage, RateWant
from ledger.budgets.rate_kinds import Rate, rate_for

_MOST_OF_A_SCOPE = 20_000
_OVERFLOW = "~"
_SWEEP_NS = 1_000_000_000


class Rates:
    """All rates that somebody asked for and that are not idle, by name.

    A name is `<scope>:<id>:<what>`. Ids may be invented by clients: past `most` rates of a scope,
    the unknown ones of that scope share one rate for each `<what>`. With a `legacy` they go on
    where another governor left them; without, nothing was used before. `reign` is in all answers.
    """

    def __init__(self, legacy: Legacy | None = None, most: int = _MOST_OF_A_SCOPE) -> None:
        self._most = most
        self._legacy = legacy
        self.reign = legacy.reign if legacy is not None else 0
        self._holders: set[str] = set()
        self._scopes: dict[str, dict[str, Rate]] = {}
        self._swept_ns = 0

    def __len__(self) -> int:
        return sum(map(len, self._scopes.values()))

    def take(
        self, wants: tuple[RateWant, ...], holder: str, now_ns: int
    ) -> tuple[RateLease, ...] | RateShortage:
        """A lease for each of `wants`, or the first of them that has not enough left: then nothing
        was taken."""
        rates = [self._rate(want, now_ns) for want in wants]
        for want, rate in zip(wants, rates, strict=True):
            left = rate.left(now_ns)
            if left < want.need:
                return RateShortage(
                    rate=want.rate,
                    limit=want.limit,
                    left=max(left, 0),
                    resets_ns=rate.resets_ns(now_ns),
                    wait=rate.wait(want.need, now_ns),
                    reign=self.reign,
                )
        self._holders.add(holder)
        return tuple(
            self._lease(want, rate, holder, now_ns) for want, rate in zip(wants, rates, strict=True)
        )

    def give_back(self, holder: str, slots: Mapping[str, int], now_ns: int) -> None:
        """What a holder did not use, by rate: slots of calls that ended, or requests and tokens.

        A negative amount was used beyond what was granted; it is taken even where nothing is left.
        From a holder that was granted nothing here it is of what another governor granted: passed
        over.
        """
        if self._legacy is not None and holder not in self._holders:
            return
        for name, amount in slots.items():
            rate = self._found(name)
            if rate is not None:
                rate.give_back(holder, amount, now_ns)

    def forget(self, holder: str, now_ns: int) -> None:
        """A holder is gone, and with it the slots it had."""
        self._holders.discard(holder)
        for rates in self._scopes.values():
            for rate in rates.values():
                rate.forget(holder, now_ns)
        self.drop_idle(now_ns)

    def drop_idle(self, now_ns: int) -> None:
        """Forget the rates of which everything is there again; to be called once in a while."""
        self._swept_ns = now_ns
        for scope, rates in list(self._scopes.items()):
            for name in [name for name, rate in rates.items() if rate.is_idle(now_ns)]:
                del rates[name]
            if not rates:
                del self._scopes[scope]

    def _rate(self, want: RateWant, now_ns: int) -> Rate:
        rates = self._scopes.setdefault(_scope(want.rate), {})
        name = want.rate
        rate = rates.get(name)
        if rate is None and len(rates) >= self._most:
            if now_ns - self._swept_ns >= _SWEEP_NS:
                self.drop_idle(now_ns)
                rates = self._scopes.setdefault(_scope(want.rate), {})
            if len(rates) >= self._most:
                name = _overflow(name)
                rate = rates.get(name)
        if rate is None or not rate.adopt(want, now_ns):
            fresh = want if name == want.rate else structs.replace(want, rate=name)
            rate = rates[name] = rate_for(fresh, self._legacy, now_ns)
        return rate

    def _lease(self, want: RateWant, rate: Rate, holder: str, now_ns: int) -> RateLease:
        amount, until_ns = rate.take(holder, want.need, want.like, now_ns)
        return RateLease(
            rate=want.rate,
            amount=amount,
            until_ns=until_ns,
            left=max(rate.left(now_ns), 0),
            resets_ns=rate.resets_ns(now_ns),
            reign=self.reign,
        )

    def _found(self, name: str) -> Rate | None:
        rates = self._scopes.get(_scope(name), {})
        return rates.get(name) or rates.get(_overflow(name))


def _scope(name: str) -> str:
    return name.partition(":")[0]


def _overflow(name: str) -> str:
    return f"{_scope(name)}:{_OVERFLOW}:{name.rpartition(':')[2]}"
