"""What the bus refuses for good, in words that say what to do."""

import re

_FORBIDDEN = re.compile(r'permissions violation for (publish|subscription) to "([^"]*)"', re.I)
_UNKNOWN = re.compile("authorization violation|authentication|tls required", re.I)


def forbidden_publish(text: str) -> str | None:
    """The subject that may not be published to, if an error of the server says that."""
    found = _FORBIDDEN.search(text)
    return found[2] if found and found[1].lower() == "publish" else None


def is_final(text: str) -> bool:
    """Whether an error of the server is of a kind that no retry heals."""
    return bool(_FORBIDDEN.search(text) or _UNKNOWN.search(text))


def explained(role: str, text: str) -> str:
    """A final error as its role should tell it to the operator."""
    found = _FORBIDDEN.search(text)
    if found is None:
        return (
            f"the bus does not accept who we are as {role} ({text}): check the credentials in "
            "NEXUS_NATS_URL, NEXUS_NATS_USER, NEXUS_NATS_CREDS or NEXUS_NATS_NKEY_SEED"
        )
    what = "publish" if found[1].lower() == "publish" else "subscribe"
    return (
        f"the bus forbids {role} to {what} to {found[2]}: use the NATS user of this role, with "
        "the permissions that `nexus bus-permissions` prints"
    )
