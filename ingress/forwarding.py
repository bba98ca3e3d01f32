"""Which request headers go on to the provider: what the client made for it, never what is ours."""

from ingress.auth import Authenticator
from ingress.credentials import Headers, secrets_in, words

_OURS = (b"x-nexus-", b"x-forwarded-")
_NEVER = frozenset({b"x-api-key", b"x-real-ip"})
# For somewhere else: a provider that is not asked for them has no business with them.
_CREDENTIALS = (b"-api-key", b"-token", b"-secret", b"-password", b"-auth", b"-authorization")
_VENDOR = (b"openai-", b"anthropic-")
# A shorter text is found by chance in anything: it counts as a whole word only.
_TELLING = 8


def forwarded(headers: Headers, keys: Authenticator) -> dict[str, str]:
    """All `X-*` but our own, the proxies' and credentials, and the vendors' own prefixes.

    `OpenAI-*` and `anthropic-*` are for their own vendor: the adapters drop those of others. No
    header whose value holds a key of this gateway, or any credential of this request, goes on.
    """
    passed: dict[str, str] = {}
    secrets: set[bytes] | None = None
    for name, value in headers:
        if not name.startswith(_VENDOR):
            if not name.startswith(b"x-") or name.startswith(_OURS):
                continue
            if name in _NEVER or name.endswith(_CREDENTIALS):
                continue
        if secrets is None:
            secrets = secrets_in(headers)
        if keys.hold_any(value) or _holds(value, secrets):
            continue
        key, text = name.decode("latin-1"), _text(value)
        passed[key] = f"{passed[key]}, {text}" if key in passed else text
    return passed


def _holds(value: bytes, secrets: set[bytes]) -> bool:
    if any(len(secret) >= _TELLING and secret in value for secret in secrets):
        return True
    short = {secret for secret in secrets if len(secret) < _TELLING}
    return bool(short) and not short.isdisjoint(words(value))


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
