"""AWS Signature Version 4: the headers that prove who sent a request, and that nobody changed it.

Source: docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, urlsplit

_ALGORITHM = "AWS4-HMAC-SHA256"
_PORTS = {"http": 80, "https": 443}


class Credentials(NamedTuple):
    """An access key; `session_token` is empty unless the key is a temporary one."""

    access_key_id: str
    secret_access_key: str
    session_token: str = ""

    def __repr__(self) -> str:
        return f"Credentials({self.access_key_id!r})"


class Scope(NamedTuple):
    """What a signature is good for: one region of one service."""

    region: str
    service: str


def signed(
    credentials: Credentials,
    scope: Scope,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    now_ns: int,
) -> dict[str, str]:
    """The given headers, and those that sign the request with them; `now_ns` since 1970.

    The URL must be encoded as it goes out. Every header given is signed, so none may change on its
    way; headers that are not signed may be added.
    """
    parts = urlsplit(url)
    time = datetime.fromtimestamp(now_ns // 1_000_000_000, UTC).strftime("%Y%m%dT%H%M%SZ")
    result = {**headers, "Host": _host(parts.scheme, parts.netloc), "X-Amz-Date": time}
    if credentials.session_token:
        result["X-Amz-Security-Token"] = credentials.session_token
    by_name = {name.lower(): " ".join(value.split()) for name, value in result.items()}
    names = ";".join(sorted(by_name))
    request = "\n".join(
        (
            method,
            _canonical_path(parts.path),
            _canonical_query(parts.query),
            *(f"{name}:{by_name[name]}" for name in sorted(by_name)),
            "",
            names,
            hashlib.sha256(body).hexdigest(),
        )
    )
    where = f"{time[:8]}/{scope.region}/{scope.service}/aws4_request"
    text = f"{_ALGORITHM}\n{time}\n{where}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = _signing_key(credentials.secret_access_key, time[:8], scope)
    result["Authorization"] = (
        f"{_ALGORITHM} Credential={credentials.access_key_id}/{where},"
        f" SignedHeaders={names}, Signature={_mac(key, text).hex()}"
    )
    return result


def _host(scheme: str, netloc: str) -> str:
    """As an HTTP client says it: without a port that goes without saying."""
    host = netloc.rpartition("@")[2]
    return host.removesuffix(f":{_PORTS.get(scheme, '')}")


def _canonical_path(path: str) -> str:
    """Without empty and dotted segments, and encoded once more than it goes out."""
    segments: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del segments[-1:]
        elif segment not in ("", "."):
            segments.append(segment)
    last = "/" if segments and path.endswith("/") else ""
    return "/" + quote("/".join(segments), safe="/~") + last


def _canonical_query(query: str) -> str:
    """Sorted by name, then by value; each name has a value, if an empty one."""
    pairs = sorted(pair.partition("=")[::2] for pair in query.split("&")) if query else []
    return "&".join(f"{name}={value}" for name, value in pairs)


@lru_cache(maxsize=16)
def _signing_key(secret: str, day: str, scope: Scope) -> bytes:
    """The same all day."""
    key = f"AWS4{secret}".encode()
    for step in (day, scope.region, scope.service, "aws4_request"):
        key = _mac(key, step)
    return key


def _mac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")
