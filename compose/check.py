"""What `nexus check` prints: the effective configuration, with the origin of each value."""

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import msgspec

from compose.config_file import PathTo, dotted
from compose.decode import is_secret
from compose.settings import ConfigError
from schemas.config import Config

__all__ = ["ConfigError", "describe"]

DEFAULT_ORIGIN = "default"


def describe(config: Config, origins: Mapping[str, str]) -> str:
    """One line per value: `path = value  (origin)`; secrets are `set` or `unset`, never shown.

    What is `none` is empty, what is `unset` is left to other settings or without a bound.
    """
    rows = [
        (dotted(path), _shown(path, value), _origin(path, origins))
        for path, value in _values(config, ())
    ]
    width = max(len(f"{path} = {value}") for path, value, _ in rows if len(value) <= 60)
    return "\n".join(f"{f'{path} = {value}':<{width}}  ({origin})" for path, value, origin in rows)


def _values(value: Any, path: PathTo) -> Iterator[tuple[PathTo, Any]]:
    """The values by their paths; what is empty or a list of plain values is one value."""
    parts: Iterable[tuple[str, Any]] = ()
    if isinstance(value, msgspec.Struct):
        parts = ((name, getattr(value, name)) for name in value.__struct_fields__)
    elif isinstance(value, dict) and not _is_headers(path):
        parts = value.items()
    elif isinstance(value, tuple) and any(isinstance(item, msgspec.Struct) for item in value):
        parts = ((str(place), item) for place, item in enumerate(value))
    inner = [pair for name, item in parts for pair in _values(item, (*path, name))]
    yield from inner or [(path, value)]


def _is_headers(path: PathTo) -> bool:
    return path[0:1] == ("providers",) and path[2:] == ("headers",)


def _origin(path: PathTo, origins: Mapping[str, str]) -> str:
    for length in range(len(path), 0, -1):
        if origin := origins.get(dotted(path[:length])):
            return origin
    return DEFAULT_ORIGIN


def _shown(path: PathTo, value: Any) -> str:
    if is_secret(path):
        count = f" ({len(value)})" if isinstance(value, tuple) and value else ""
        return f"set{count}" if value else "unset"
    if value is None:
        return "unset"
    if value in ("", (), {}):
        return "none"
    if _is_headers(path):
        return f"set ({', '.join(sorted(value))})"
    if isinstance(value, tuple):
        return ", ".join(_shown((*path, ""), item) for item in value)
    if isinstance(value, float):
        return f"{Decimal(str(value)):f}"
    if isinstance(value, str):
        first, *more = value.splitlines() or [value]
        text = f"{first} ..." if more else value
        return ",".join(map(_without_credentials, text.split(","))) if "://" in text else text
    return msgspec.json.encode(value).decode().strip('"')


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    return parts._replace(netloc=f"***@{parts.netloc.rpartition('@')[2]}").geturl()
