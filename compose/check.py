"""What `nexus check` prints: the effective configuration, with the origin of each value."""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import msgspec

from compose.decode import is_secret
from compose.settings import ConfigError
from schemas.config import Config

__all__ = ["ConfigError", "describe"]

DEFAULT_ORIGIN = "default"


def describe(config: Config, origins: Mapping[str, str]) -> str:
    """One line per value: `path = value  (origin)`; secrets are `set` or `unset`, never shown."""
    rows = [
        (path, _shown(path, value), _origin(path, origins))
        for path, value in _values(msgspec.to_builtins(config), "")
    ]
    width = max(len(f"{path} = {value}") for path, value, _ in rows if len(value) <= 60)
    return "\n".join(f"{f'{path} = {value}':<{width}}  ({origin})" for path, value, origin in rows)


def _values(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The values by dotted path; what is empty or a list is one value."""
    if isinstance(value, dict) and value and not path.endswith(".headers"):
        for name, item in value.items():
            yield from _values(item, f"{path}.{name}" if path else name)
    else:
        yield path, value


def _origin(path: str, origins: Mapping[str, str]) -> str:
    while path:
        if path in origins:
            return origins[path]
        path = path.rpartition(".")[0]
    return DEFAULT_ORIGIN


def _shown(path: str, value: Any) -> str:
    name = path.rpartition(".")[2]
    if is_secret(path.partition(".")[0], name):
        count = f" ({len(value)})" if isinstance(value, list | tuple) and value else ""
        return f"set{count}" if value else "unset"
    if name == "headers" and value:
        return f"set ({', '.join(sorted(value))})"
    if value is None or len(value if isinstance(value, str | list | tuple | dict) else "-") == 0:
        return "none"
    if isinstance(value, float):
        return f"{Decimal(str(value)):f}"
    if isinstance(value, str):
        return ",".join(map(_without_credentials, value.split(","))) if "://" in value else value
    return msgspec.json.encode(value).decode()


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    return parts._replace(netloc=f"***@{parts.netloc.rpartition('@')[2]}").geturl()
