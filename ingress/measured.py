"""How targets fare, put together: what the ledger measured, what is broken, what runs here now."""

from typing import Protocol

from ingress.balancing import Loads
from ingress.conditions import Condition
from ingress.target_statistics import TargetStatistics


class Breakers(Protocol):
    """Who knows which targets are left alone now."""

    def is_broken(self, provider: str, engine: str) -> bool: ...


class NothingBroken:
    """Of an ingress that hears of no breakers."""

    def is_broken(self, provider: str, engine: str) -> bool:
        return False


class Measured:
    """The conditions that an ingress decides by: dictionaries, no I/O."""

    def __init__(self, statistics: TargetStatistics, loads: Loads, breakers: Breakers) -> None:
        self._statistics = statistics
        self._loads = loads
        self._breakers = breakers

    def of(self, provider: str, engine: str) -> Condition:
        """One target now; what is not known of it is None."""
        figures = self._statistics.of(provider, engine)
        load = self._loads.of(provider, engine)
        broken = self._breakers.is_broken(provider, engine)
        return Condition(broken, *figures, *load)
