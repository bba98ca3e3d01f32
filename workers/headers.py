"""Which of the client's headers a provider sees."""

from collections.abc import Mapping

_NEVER_PASSED_ON = frozenset(
    {
        "accept-encoding",
        "api-key",
        "authorization",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-amz-security-token",
        "x-api-key",
        "x-goog-api-key",
    }
)
# Whose account it is: nothing of the gateway's may stand beside a client's own key.
_OF_AN_ACCOUNT = frozenset(
    {
        "anthropic-workspace-id",
        "api-key",
        "authorization",
        "openai-organization",
        "openai-project",
        "x-api-key",
        "x-goog-api-key",
    }
)
_OF_VENDORS = ("openai-", "anthropic-")


def passed_on(
    client: Mapping[str, str], own: Mapping[str, str], vendor: str = ""
) -> Mapping[str, str]:
    """The gateway's `own` headers and, behind them, those of the client.

    Left out are the client's that are about its own connection, body or credentials, that are for
    another vendor than `vendor`, that we set ourselves (in any case of letters), or that hold what
    HTTP cannot carry.
    """
    if not client:
        return own
    never = _NEVER_PASSED_ON.union(name.lower() for name in own)
    merged = dict(own)
    for name, value in client.items():
        lower = name.lower()
        foreign = lower.startswith(_OF_VENDORS) and not lower.startswith(f"{vendor}-")
        if not foreign and lower not in never and not any(mark in value for mark in "\r\n\0"):
            merged[name] = value
    return merged


def without_account(own: Mapping[str, str], api_key: str) -> dict[str, str]:
    """The gateway's `own` headers but those that name its account, or hold its `api_key`."""
    return {
        name: value
        for name, value in own.items()
        if name.lower() not in _OF_AN_ACCOUNT and not (api_key and api_key in value)
    }
