"""The credentials that a request presents, as they stand in its headers."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ledger.access.key_text import PREFIX

Headers = list[tuple[bytes, bytes]]

OUR_PREFIX = PREFIX.encode()
PROVIDER_KEY = b"x-nexus-provider-key"
_VISIBLE = re.compile(rb"[\x21-\x7e]+")
_BETWEEN_WORDS = re.compile(rb"[\s,;:=\"'()<>\[\]{}]+")
_SIGN = re.compile(rb"[,;:=\"'()<>\[\]{}]")
_CLIENT_KEY = re.compile(rb"sk-[\x21-\x7e]{5,509}")


class Sent(NamedTuple):
    """What a request says of who sends it; empty where it says nothing.

    `other_scheme`: there was an Authorization of another scheme than Bearer.
    """

    token: bytes = b""
    api_key: bytes = b""
    bearer: bytes = b""
    other_scheme: bool = False
    app: bytes = b""


def sent_in(headers: Headers) -> Sent:
    """The first value of each header that counts."""
    token = api_key = bearer = app = b""
    other_scheme = False
    for name, value in headers:
        if name == b"authorization":
            scheme, _, rest = value.strip().partition(b" ")
            if scheme.lower() == b"bearer":
                bearer = bearer or rest.strip()
            else:
                other_scheme = bool(scheme)
        elif name == b"x-api-key":
            api_key = api_key or value.strip()
        elif name == b"x-nexus-token":
            token = token or value.strip()
        elif name == b"x-nexus-app":
            app = app or value.strip()
    return Sent(token, api_key, bearer, other_scheme, app)


def provider_keys(headers: Headers) -> Iterator[tuple[bytes, bytes]]:
    """Provider and key of each `<provider>=<key>` that the client brought, as they were written;
    the key is empty where there was no `=`."""
    for name, value in headers:
        if name == PROVIDER_KEY:
            for entry in value.split(b","):
                provider, _, key = entry.partition(b"=")
                yield provider.strip(), key.strip()


def secrets_in(headers: Headers) -> set[bytes]:
    """Every credential in the headers, valid or not, also where one was sent twice."""
    found = {key for _, key in provider_keys(headers)}
    for name, value in headers:
        if name in (b"x-nexus-token", b"x-api-key"):
            found.add(value.strip())
        elif name == b"authorization":
            found.add(value.strip())
            found.add(value.strip().partition(b" ")[2].strip())
    return found - {b""}


def words(text: bytes) -> Sequence[bytes]:
    """The words of a header's value, between spaces and between any signs that may separate."""
    spaced = text.split()
    if _SIGN.search(text) is None:
        return spaced
    return spaced + _BETWEEN_WORDS.split(text)


def is_visible(text: bytes) -> bool:
    """Whether the text consists of visible ASCII characters only, as every credential does."""
    return _VISIBLE.fullmatch(text) is not None


def is_client_key(text: bytes) -> bool:
    """Whether the text can be a client's own key for `target_url`: `sk-`, 8 to 512 characters."""
    return _CLIENT_KEY.fullmatch(text) is not None
