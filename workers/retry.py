"""When to try again: pure functions of the attempt's number, the provider's wish and a random."""

MAX_TRIES = 3
LONGEST_WAIT = 20.0
_FIRST = 0.2
_LONGEST = 5.0


def backoff(attempt: int, retry_after: float | None, chance: float) -> float:
    """Seconds before the next try after try number `attempt`: full jitter, `chance` in [0, 1).

    A provider that names a time is not asked before it.
    """
    jittered = min(_LONGEST, _FIRST * float(2 ** (attempt - 1))) * chance
    return max(jittered, retry_after or 0.0)
