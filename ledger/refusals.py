"""What the bus refuses for good, in words that say what to do."""

import re
from typing import NamedTuple

_FORBIDDEN = re.compile(r'permissions violation for (publish|subscription) to "([^"]*)"', re.I)
_UNKNOWN = re.compile("authorization (violation|failed)|authentication|tls required", re.I)


class Forbidden(NamedTuple):
    """A missing permission; `hearing` when it is one to subscribe, else it is one to publish."""

    subject: str
    hearing: bool


def forbidden(text: str) -> Forbidden | None:
    """What may not be done, if an error of the server says that."""
    found = _FORBIDDEN.search(text)
    return Forbidden(found[2], found[1].lower() == "subscription") if found else None


def is_final(text: str) -> bool:
    """Whether an error of the server is of a kind that no retry heals."""
    return bool(_FORBIDDEN.search(text) or _UNKNOWN.search(text))


def explained(role: str, text: str) -> str:
    """A final error as its role should tell it to the operator."""
    what = forbidden(text)
    if what is None:
        return (
            f"the bus does not accept who we are as {role} ({text}): check the credentials in "
            "NEXUS_NATS_URL, NEXUS_NATS_USER, NEXUS_NATS_CREDS or NEXUS_NATS_NKEY_SEED"
        )
    verb = "subscribe" if what.hearing else "publish"
    return (
        f"the bus forbids {role} to {verb} to {what.subject}: use the NATS user of this role, with "
        "the permissions that `nexus bus-permissions` prints"
    )
