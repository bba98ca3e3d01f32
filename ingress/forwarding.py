"""Which request headers go on to the provider: what the client made for it, never what is ours."""

from ingress.auth import Headers

_OURS = (b"x-nexus-", b"x-api-key", b"x-forwarded-", b"x-real-ip", b"x-request-id")
_VENDOR = (b"openai-", b"anthropic-")


def forwarded(headers: Headers) -> dict[str, str]:
    """All `X-*` but our own and the proxies', and the vendors' own prefixes.

    `OpenAI-*` and `anthropic-*` are for their own vendor: the adapters drop those of others.
    """
    passed: dict[str, str] = {}
    for name, value in headers:
        if (name.startswith(b"x-") and not name.startswith(_OURS)) or name.startswith(_VENDOR):
            passed[name.decode("latin-1")] = value.decode("latin-1")
    return passed
