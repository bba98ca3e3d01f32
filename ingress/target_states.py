"""Which targets all workers leave alone now, as this ingress hears it."""

from ledger.target_states import TargetStates
from schemas.ids import Clock, rfc3339
from schemas.target_events import Circuit, TargetState


class HeardStates:
    """Answers from memory; `ledger.target_states.StateFeed` keeps the states."""

    def __init__(self, states: TargetStates, clock: Clock) -> None:
        self._states = states
        self._clock = clock

    def is_broken(self, provider: str, engine: str) -> bool:
        """Whether calls should rather go elsewhere. A target whose probe is due is not broken: a
        call has to come for it to be probed."""
        if self._states.all_closed:
            return False
        states = self._states.of(provider, engine)
        return bool(states) and max(state.until for state in states) > rfc3339(self._clock.now_ns())

    def of_provider(self, provider: str) -> dict[str, Circuit]:
        """The circuits of a provider that are not closed, by engine; `*` is all of it."""
        return {
            state.engine or "*": state.state
            for state in self._states
            if state.provider == provider and state.state != "closed"
        }

    def whole(self, provider: str) -> TargetState | None:
        """The circuit of a whole provider, where it is not closed."""
        return next(iter(self._states.of(provider, "")), None)
