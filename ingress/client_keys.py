"""The keys of their own for providers that clients bring along."""

import hmac
import re

from ingress.auth import Principal
from ingress.credentials import OUR_PREFIX, Headers, is_client_key, provider_keys, sent_in
from ingress.routing import PASS_THROUGH
from schemas.config import Config
from schemas.errors import InvalidRequest

_MOST = 16
# Some providers take access tokens of other clouds, which are far longer than keys.
_KEY = re.compile(rb"[\x21-\x7e]{1,4096}")
_PARAM = "X-Nexus-Provider-Key"


def brought(headers: Headers, principal: Principal, config: Config) -> dict[str, bytes]:
    """The client's own keys by provider: those of X-Nexus-Provider-Key, and for who is known by
    such a key only (`target_url`) that one.

    Raises InvalidRequest, which says what is expected and never what was sent as a key.
    """
    keys: dict[str, bytes] = {}
    for name, key in provider_keys(headers):
        if len(keys) == _MOST:
            raise _invalid(f"at most {_MOST} keys at once")
        provider = name.decode("latin-1")
        _check(provider, key, config)
        if provider in keys:
            raise _invalid(f"one key per provider, but {provider} is named twice")
        keys[provider] = key
    if principal.kind == "client" and PASS_THROUGH not in keys:
        sent = sent_in(headers)
        own = (sent.api_key, sent.bearer)
        keys[PASS_THROUGH] = next(
            text for text in own if is_client_key(text) and not _is_ours(text, config)
        )
    return keys


def _check(provider: str, key: bytes, config: Config) -> None:
    known = config.providers.get(provider)
    if known is None:
        # It may be anything, a key without its provider too: it is not shown.
        takers = (name for name, one in config.providers.items() if one.client_keys != "refused")
        raise _invalid(f"expected '<provider>=<key>' with one of {', '.join(takers) or 'none'}")
    if known.client_keys == "refused":
        raise _invalid(f"{provider} is not to be asked with keys of clients here")
    if _KEY.fullmatch(key) is None:
        raise _invalid(f"expected '{provider}=<key>' with a key of up to 4096 visible characters")
    if key.startswith(OUR_PREFIX) or _is_ours(key, config):
        raise _invalid(f"this is a key of the gateway: expected your own key for {provider}")


def _is_ours(text: bytes, config: Config) -> bool:
    ours = (config.admin_token, *config.api_keys, *(entry.key for entry in config.keys.values()))
    return any(hmac.compare_digest(text, known.encode()) for known in ours if known)


def _invalid(what: str) -> InvalidRequest:
    return InvalidRequest(f"{_PARAM}: {what}.", code="invalid_provider_key", param=_PARAM)
