"""What every event of the ledger has; its kinds are in the modules beside this one."""

import msgspec


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="event_type"):
    """What every event has: its own id, UTC time with microseconds, version, and whose it is."""

    event_id: str
    time: str
    v: int
    call_id: str = ""
    key_id: str = ""
    project: str = ""
    team: str = ""
    user: str = ""
    app: str = ""
    model: str = ""
    provider: str = ""


def type_of(event: Event | type[Event]) -> str:
    """`model.request.start` and so on."""
    return str(event.__struct_config__.tag)
