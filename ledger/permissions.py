"""What each user of the bus may publish and hear: its own work and nothing else.

Who wrote an event is told by its subject, so these permissions are what makes the ledger's word
good. Nobody may publish `agent.events.>`: the server does, for what it has stored.
"""

import msgspec

from schemas import subjects
from schemas.subjects import BLOBS, LEDGER, RESP, SETTINGS, SNAPSHOTS, WORK, api

STREAMS = (LEDGER, WORK, RESP, BLOBS, SNAPSHOTS, SETTINGS)
OPERATOR = "operator"
MONITOR = "monitor"


class Permissions(msgspec.Struct, frozen=True):
    """Subjects with wildcards; what is not listed is forbidden.

    `answers`: may also publish one answer to each question it hears.
    """

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    answers: bool = False


def _reads(*streams: str) -> tuple[str, ...]:
    return tuple(api("DIRECT.GET", stream) for stream in streams)


# Whether all is set up. To set it up is the operator's.
_LOOKS = (
    *(api("STREAM.INFO", stream) for stream in STREAMS),
    api("CONSUMER.INFO", WORK, "*"),
)

_INGRESS = Permissions(
    publish=(
        subjects.ledger_of("ingress"),
        subjects.WORK_SUBJECTS,
        subjects.BLOB_SUBJECTS,
        subjects.CANCELS,
        subjects.PINGS,
        subjects.QUESTIONS,
        subjects.GOVERNOR_BEAT,
        subjects.GOVERNOR_METRICS,
        subjects.GOVERNOR_STATE,
        subjects.GOVERNOR_LEASE,
        subjects.GOVERNOR_RETURN,
        subjects.GOVERNOR_PULSE,
        subjects.GOVERNOR_RESET,
        subjects.GOVERNOR_BUDGETS,
        subjects.setting("events.ticket"),
        api("STREAM.MSG.DELETE", WORK),
        *_reads(LEDGER, RESP, BLOBS, SNAPSHOTS, SETTINGS),
        *_LOOKS,
    ),
    subscribe=(
        f"{subjects.inbox('ingress')}.>",
        subjects.RESP_SUBJECTS,
        subjects.LIVE_EVENTS,
        subjects.GOVERNOR_RECALL,
        subjects.TARGETS,
    ),
)

_WORKER = Permissions(
    publish=(
        subjects.ledger_of("worker"),
        subjects.WORK_SUBJECTS,
        subjects.RESP_SUBJECTS,
        subjects.BLOB_SUBJECTS,
        subjects.RUNNING,
        subjects.GOVERNOR_BEAT,
        subjects.GOVERNOR_HOLD,
        subjects.acks(WORK),
        api("CONSUMER.MSG.NEXT", WORK, "*"),
        *_reads(LEDGER, RESP, BLOBS),
        *_LOOKS,
    ),
    subscribe=(
        f"{subjects.inbox('worker')}.>",
        subjects.PINGS,
        subjects.CANCELS,
        subjects.RUNNING,
        subjects.LIVE_STATES,
    ),
    answers=True,
)

_GOVERNOR = Permissions(
    publish=(
        subjects.ledger_of("governor"),
        subjects.SNAPSHOT_SUBJECTS,
        subjects.setting("access.>"),
        subjects.setting("governor.>"),
        subjects.GOVERNOR_RECALL,
        subjects.OPENING,
        api("STREAM.PURGE", SNAPSHOTS),
        *_reads(LEDGER, SNAPSHOTS, SETTINGS),
        *_LOOKS,
    ),
    subscribe=(
        f"{subjects.inbox('governor')}.>",
        subjects.LIVE_EVENTS,
        subjects.GOVERNOR_BEAT,
        subjects.GOVERNOR_METRICS,
        subjects.GOVERNOR_STATE,
        subjects.GOVERNOR_LEASE,
        subjects.GOVERNOR_RETURN,
        subjects.GOVERNOR_PULSE,
        subjects.GOVERNOR_HOLD,
        subjects.GOVERNOR_RESET,
        subjects.GOVERNOR_BUDGETS,
    ),
    answers=True,
)

_ANALYTICS = Permissions(
    publish=(
        api("STREAM.INFO", LEDGER),
        api("CONSUMER.DURABLE.CREATE", LEDGER, subjects.PROJECTOR),
        api("CONSUMER.INFO", LEDGER, subjects.PROJECTOR),
        api("CONSUMER.RESET", LEDGER, subjects.PROJECTOR),
        api("CONSUMER.MSG.NEXT", LEDGER, subjects.PROJECTOR),
        subjects.acks(LEDGER, subjects.PROJECTOR),
        subjects.TARGETS,
        *_reads(LEDGER),
    ),
    subscribe=(
        f"{subjects.inbox('analytics')}.>",
        subjects.QUESTIONS,
    ),
    answers=True,
)

ROLES: dict[str, Permissions] = {
    "ingress": _INGRESS,
    "worker": _WORKER,
    "governor": _GOVERNOR,
    "analytics": _ANALYTICS,
    MONITOR: Permissions(publish=(), subscribe=(subjects.LIVE_EVENTS,)),
}
"""By user; the operator has none of them, which means that it may do everything."""

USERS = (*ROLES, OPERATOR)
