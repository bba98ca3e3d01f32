"""What this process has of one rate: a lease that can be used without asking, or the news that
nothing is left. Without I/O.
"""

from collections.abc import Mapping

from ingress.limits import Rule
from ledger.budgets.messages import RateLease, RateShortage, RateWant

_MOST = 20_000
SHORTEST_CLOSED_NS = 5_000_000
LONGEST_CLOSED_NS = 250_000_000


class Pocket:
    """`amount` may be used until `until_ns`; `left` is what the governor still had for all, and
    `resets_ns` when it has everything again; `wait` are the seconds that the last shortage said."""

    __slots__ = (
        "_closed_until_ns",
        "_lease_ns",
        "_short_need",
        "_wanted",
        "_wanted_since_ns",
        "amount",
        "left",
        "resets_ns",
        "until_ns",
        "wait",
    )

    def __init__(self, now_ns: int) -> None:
        self.amount = 0
        self.until_ns = 0
        self.left = 0
        self.resets_ns = now_ns
        self.wait = 0.0
        self._lease_ns = 0
        self._wanted = 0
        self._wanted_since_ns = now_ns
        self._short_need = 0
        self._closed_until_ns = 0

    @property
    def remaining(self) -> int:
        """What is left as far as this process knows, its own lease included."""
        return self.left + self.amount

    def has(self, need: int, now_ns: int) -> bool:
        return self.amount >= need and now_ns < self.until_ns

    def missing(self, need: int, now_ns: int) -> int:
        """How much more must be leased."""
        return need - self.amount if now_ns < self.until_ns else need

    def want(self, need: int) -> None:
        """Somebody asks for so much: what is wanted now says what will be wanted next."""
        self._wanted += need

    def forecast(self, now_ns: int) -> int:
        """What will probably be wanted while the next lease lasts; begins a new measurement."""
        elapsed_ns = max(now_ns - self._wanted_since_ns, self._lease_ns // 4, 1)
        expected = self._wanted * self._lease_ns // elapsed_ns
        self._wanted, self._wanted_since_ns = 0, now_ns
        return expected

    def put(self, lease: RateLease, now_ns: int) -> bool:
        """Add a lease; False where it came too late to be used. Two that run together end with the
        first of them."""
        self.left, self.resets_ns = lease.left, lease.resets_ns
        self._lease_ns = max(0, lease.until_ns - now_ns)
        self._closed_until_ns = 0
        if lease.until_ns <= now_ns:
            return False
        if now_ns < self.until_ns and self.amount > 0:
            self.until_ns = min(self.until_ns, lease.until_ns)
        else:
            self.until_ns, self.amount = lease.until_ns, 0
        self.amount += lease.amount
        return True

    def expire(self, now_ns: int) -> int:
        """Empty a lease that is over; what was not used of it."""
        if now_ns < self.until_ns:
            return 0
        unused, self.amount = self.amount, 0
        return unused

    def close(self, need: int, shortage: RateShortage, now_ns: int) -> None:
        """Whoever needs as much as `need` need not ask for a moment."""
        self.left, self.resets_ns = shortage.left, shortage.resets_ns
        self.wait = shortage.wait
        closed_ns = min(max(int(shortage.wait * 1e9), SHORTEST_CLOSED_NS), LONGEST_CLOSED_NS)
        self._closed_until_ns = now_ns + closed_ns
        self._short_need = need

    def open(self) -> None:
        """Something came back: asking may help again."""
        self._closed_until_ns = 0

    def closed_for_ns(self, need: int, now_ns: int) -> int:
        """For how long asking for so much is of no use; 0: ask."""
        if need < self._short_need or self.has(need, now_ns):
            return 0
        return max(0, self._closed_until_ns - now_ns)

    def is_idle(self, now_ns: int) -> bool:
        """Whether nothing is lost by forgetting it."""
        return (not self.amount or now_ns >= self.until_ns) and now_ns >= self._closed_until_ns


class Pockets:
    """The pockets of this process, by the name of their rate."""

    def __init__(self) -> None:
        self._pockets: dict[str, Pocket] = {}

    @property
    def by_rate(self) -> Mapping[str, Pocket]:
        return self._pockets

    def of(self, rate: str, now_ns: int) -> Pocket:
        pocket = self._pockets.get(rate)
        if pocket is None:
            if len(self._pockets) >= _MOST:
                self._drop_idle(now_ns)
            pocket = self._pockets[rate] = Pocket(now_ns)
        return pocket

    def measure(self, rules: tuple[Rule, ...], tokens: int, now_ns: int) -> None:
        """A call of about so many tokens comes."""
        for rule in rules:
            self.of(rule.rate, now_ns).want(needed(rule, tokens))

    def take(self, rules: tuple[Rule, ...], tokens: int, now_ns: int) -> bool:
        """Everything that the call needs, or nothing."""
        pockets = [self.of(rule.rate, now_ns) for rule in rules]
        for rule, pocket in zip(rules, pockets, strict=True):
            if not pocket.has(needed(rule, tokens), now_ns):
                return False
        for rule, pocket in zip(rules, pockets, strict=True):
            pocket.amount -= needed(rule, tokens)
        return True

    def wants(
        self, rules: tuple[Rule, ...], tokens: int, others: tuple[int, int], now_ns: int
    ) -> list[RateWant]:
        """What is missing for a call, and what would be liked: `others` are the tokens, and the
        number, of the calls that wait behind it."""
        wants = []
        for rule in rules:
            pocket = self.of(rule.rate, now_ns)
            missing = pocket.missing(needed(rule, tokens), now_ns)
            if missing > 0:
                like = others[0] if rule.what == "tokens" else others[1]
                if rule.what != "calls":
                    like = max(like, pocket.forecast(now_ns))
                wants.append(
                    RateWant(rule.rate, rule.limit, missing, like, rule.seconds, rule.burst)
                )
        return wants

    def closed_for_ns(self, rules: tuple[Rule, ...], tokens: int, now_ns: int) -> int:
        """For how long the call need not ask."""
        return max(
            self.of(rule.rate, now_ns).closed_for_ns(needed(rule, tokens), now_ns) for rule in rules
        )

    def empty(self) -> None:
        """All leases are somebody else's now."""
        for pocket in self._pockets.values():
            pocket.amount = 0

    def _drop_idle(self, now_ns: int) -> None:
        for rate in [rate for rate, one in self._pockets.items() if one.is_idle(now_ns)]:
            del self._pockets[rate]


def needed(rule: Rule, tokens: int) -> int:
    """What a call of about so many tokens needs of a rate."""
    return tokens if rule.what == "tokens" else 1
