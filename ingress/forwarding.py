"""Which request headers go on to the provider: what the client made for it, never what is ours."""

from ingress.auth import Headers, Keys

_OURS = (b"x-nexus-", b"x-forwarded-")
_NEVER = frozenset({b"x-api-key", b"x-real-ip"})
# For somewhere else: a provider that is not asked for them has no business with them.
_CREDENTIALS = (b"-api-key", b"-token", b"-secret", b"-password", b"-auth", b"-authorization")
_VENDOR = (b"openai-", b"anthropic-")


def forwarded(headers: Headers, keys: Keys) -> dict[str, str]:
    """All `X-*` but our own, the proxies' and credentials, and the vendors' own prefixes.

    `OpenAI-*` and `anthropic-*` are for their own vendor: the adapters drop those of others. No
    header whose value holds a key of this gateway goes on.
    """
    passed: dict[str, str] = {}
    for name, value in headers:
        if not name.startswith(_VENDOR):
            if not name.startswith(b"x-") or name.startswith(_OURS):
                continue
            if name in _NEVER or name.endswith(_CREDENTIALS):
                continue
        if keys.hold_any(value):
            continue
        key, text = name.decode("latin-1"), _text(value)
        passed[key] = f"{passed[key]}, {text}" if key in passed else text
    return passed


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
