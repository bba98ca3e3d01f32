"""The words of the choice among targets: who could run a call, and what the call needs."""

from typing import NamedTuple

from ingress.conditions import Condition
from schemas.call import Target
from schemas.catalog import ModelFacts


class Candidate(NamedTuple):
    """A target that a call could run at, as the name `model`, and what is known of it.

    One that `stands_in` is tried only after the others, in the order given.
    """

    model: str
    target: Target
    facts: ModelFacts
    region: str = ""
    stands_in: bool = False


class Need(NamedTuple):
    """What a call asks of its target; tokens are estimates, `max_tokens` is what the client set."""

    prompt: int = 0
    output: int = 0
    max_tokens: int | None = None
    stream: bool = False
    images: bool = False
    tools: bool = False
    schema: bool = False

    def rounded(self) -> "Need":
        """The same for all calls of about that size: tokens rounded up, by a quarter at most."""
        return self._replace(
            prompt=_rounded(self.prompt), output=_rounded(self.output), max_tokens=None
        )


class Left(NamedTuple):
    """Why a candidate is no choice: the wish or need that excludes it, and what it has instead."""

    wish: str
    says: str


class Considered(NamedTuple):
    """One candidate as it was seen: `cost_nano` is what the call would probably cost there, None
    for an unknown price; `left` is why it is no choice, None for one that is."""

    candidate: Candidate
    cost_nano: int | None
    condition: Condition
    left: Left | None = None


def place_of(target: Target) -> str:
    """A name for a target that can be sent as `model`."""
    return f"{target.provider}/{target.engine}"


def _rounded(tokens: int) -> int:
    """Up to the next of 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, ..."""
    step = 1 << max(tokens.bit_length() - 3, 0)
    return -(-tokens // step) * step
