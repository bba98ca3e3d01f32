"""How many tokens providers bill for what the rule of thumb expects, learnt from the ledger.

Every ingress learns for itself from the ends of calls that it hears live: all hear the same events,
none asks another, and one that starts anew soon knows again what is in use. `prompt_estimate` in an
event is the rule of thumb and nothing learnt, so that any two ingresses learn the same from it.
"""

import msgspec

from ledger.connection import Connection, Message
from schemas import subjects
from schemas.event import type_of
from schemas.events import RequestComplete
from schemas.usage import Usage

_REMEMBERED = 512
# What an event still counts after each later one of its model.
_FADING = 0.98
# The default counts like one call of so many tokens: a first short call does not decide alone.
_DEFAULT_TOKENS = 200.0
_LOWEST, _HIGHEST = 0.1, 8.0


class _End(msgspec.Struct):
    """What is learnt from of the end of a call."""

    provider: str = ""
    engine: str = ""
    usage: Usage | None = None
    prompt_estimate: int = 0


_decode_end = msgspec.json.Decoder(_End).decode


class Ratios:
    """Billed prompt tokens per expected one, by target: sums over its calls, older ones fading.

    Bounded: of more targets than are kept, those not heard of for longest are forgotten.
    """

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str], tuple[float, float]] = {}

    def __len__(self) -> int:
        return len(self._sums)

    def of(self, provider: str, engine: str) -> float:
        """1.0 for a target that nothing is known of: four bytes a token."""
        billed, expected = self._sums.get((provider, engine), (1.0, 1.0))
        return min(max(billed / expected, _LOWEST), _HIGHEST)

    def learn(self, provider: str, engine: str, expected: int, billed: int) -> None:
        """One call's prompt tokens: by the rule of thumb, and as the provider counted them."""
        if expected <= 0 or billed <= 0:
            return
        place = (provider, engine)
        old = self._sums.pop(place, (_DEFAULT_TOKENS, _DEFAULT_TOKENS))
        if len(self._sums) >= _REMEMBERED:
            del self._sums[next(iter(self._sums))]
        self._sums[place] = (old[0] * _FADING + billed, old[1] * _FADING + expected)

    def listen(self, connection: Connection) -> None:
        """Learn from every call that ends well from now on."""
        connection.subscribe(subjects.live(type_of(RequestComplete)), self._on_end)

    def _on_end(self, message: Message) -> None:
        end = _decode_end(message.data)
        if end.usage is not None and end.usage.status == "reported":
            self.learn(end.provider, end.engine, end.prompt_estimate, end.usage.prompt)
