"""When to try again: pure functions of the attempt's number, the provider's wish and a random."""

MAX_TRIES = 3
MAX_TRIES_OF_NETWORK = 4
LONGEST_WAIT = 20.0
_FIRST = 0.2
_LONGEST = 5.0


def tries(*, network: bool) -> int:
    """How often a target is asked in all: an error of the network before the first byte has three
    retries, whatever else the provider answered is tried three times."""
    return MAX_TRIES_OF_NETWORK if network else MAX_TRIES


def backoff(attempt: int, retry_after: float | None, chance: float) -> float:
    """Seconds before the next try after try number `attempt`: full jitter, `chance` in [0, 1).

    A provider that names a time is not asked before it.
    """
    jittered = min(_LONGEST, _FIRST * float(2 ** (attempt - 1))) * chance
    return max(jittered, retry_after or 0.0)


def fits(wait: float, left: float) -> bool:
    """Whether to wait for the same target at all, with `left` seconds to the call's deadline: what
    takes longer is better asked elsewhere."""
    return wait < min(left, LONGEST_WAIT)
