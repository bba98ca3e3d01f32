"""How targets fare, as far as the choice among them asks: what the ledger measured, what is broken
now, and how much this ingress has running there."""

from typing import NamedTuple, Protocol


class Condition(NamedTuple):
    """One target now. Milliseconds and shares are of the recent past, None while nothing is known;
    `running` are the calls of this ingress that have not ended there, `peak_ms` is how long its own
    calls took there last."""

    broken: bool = False
    first_byte_ms: float | None = None
    total_ms: float | None = None
    total_p95_ms: float | None = None
    error_rate: float | None = None
    running: int = 0
    peak_ms: float | None = None


UNKNOWN = Condition()


class Conditions(Protocol):
    """Looked up once for each target that is considered: a dictionary, no I/O."""

    def of(self, provider: str, engine: str) -> Condition: ...


class NoConditions:
    """Of an ingress that has measured nothing."""

    def of(self, provider: str, engine: str) -> Condition:
        return UNKNOWN
