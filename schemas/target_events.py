"""Events of targets: which of them are left alone because they fail, and which answer again."""

from typing import Literal

from schemas.event import Event

Circuit = Literal["open", "half_open", "closed"]


class TargetState(Event, frozen=True, tag="provider.state"):
    """The circuit of a target changed, for every worker and ingress.

    With an empty `engine` it is that of all the provider's targets. `until` is UTC like `time`: of
    an open circuit when one call may probe the target, of a half open one by when the probe that
    this event has begun must have told its end, else another may begin; empty when closed. `opened`
    counts how often it has opened since it was last closed, and `failures` those in a row that
    opened it; `reason` and `code` are of the last of them. `follows` is the `event_id` of the state
    before it, empty for the first one.
    """

    engine: str = ""
    state: Circuit = "closed"
    reason: str = ""
    code: str = ""
    failures: int = 0
    opened: int = 0
    until: str = ""
    follows: str = ""


def message_id_of_probe(follows: str) -> str:
    """Msg-Id of the event that begins a probe: of all workers that want to, one does."""
    return f"{follows}.probe"
