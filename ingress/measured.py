"""How targets fare, put together: what the ledger measured, what is broken, what runs here now."""

from ingress.balancing import Loads
from ingress.conditions import Condition
from ingress.target_states import HeardStates
from ingress.target_statistics import TargetStatistics


class Measured:
    """The conditions that an ingress decides by: dictionaries, no I/O."""

    def __init__(self, statistics: TargetStatistics, loads: Loads, states: HeardStates) -> None:
        self._statistics = statistics
        self._loads = loads
        self._states = states

    def of(self, provider: str, engine: str) -> Condition:
        """One target now; what is not known of it is None."""
        figures = self._statistics.of(provider, engine)
        load = self._loads.of(provider, engine)
        broken = self._states.is_broken(provider, engine)
        return Condition(broken, *figures, *load)
