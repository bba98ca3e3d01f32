"""Good ends of calls, for tests of what is learnt from them."""

from schemas.call import Target
from schemas.frames import FIRST_FENCE, Finish, Timings
from schemas.usage import Usage


def finish(target: Target, ms: float, attempts: int = 1) -> Finish:
    """The end of a call that a target answered, so long after it was received."""
    return Finish(
        fence=FIRST_FENCE,
        index=1,
        event_id="",
        time_ns=0,
        provider=target.provider,
        engine=target.engine,
        usage=Usage(),
        cost=None,
        price_id="",
        timings=Timings(total=ms),
        attempts=attempts,
    )
