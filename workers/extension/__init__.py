"""A provider of another package, by its entry point: loaded, checked, and wrapped if it is a class.

An entry point gives either a function `create(name, config, http, clock)` as the modules in
`workers/providers/` have it, or a class of document 001 (`wrapped.py`).
"""

import inspect
from importlib.metadata import EntryPoint
from typing import Any

from schemas.config import ProviderConfig, Unusable
from schemas.ids import Clock
from workers.extension.wrapped import wrap
from workers.http import Http
from workers.providers import origin
from workers.providers.base import Provider

_SEAM = ("complete", "stream", "embed", "close")


def create(
    entry: EntryPoint, name: str, config: ProviderConfig, http: Http, clock: Clock
) -> Provider:
    """The provider behind an entry point. Raises Unusable, naming package and entry point."""
    try:
        given = _loaded(entry)
        if isinstance(given, type):
            return wrap(given, name, config, clock)
        return _native(given, name, config, http, clock)
    except ValueError as error:
        text = str(error)
        setting = "" if text.startswith(f"providers.{name}.") else f"providers.{name}.dialect: "
        raise Unusable(f"{setting}{text} ({origin(entry)})") from error


def _loaded(entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except (Exception, SystemExit) as error:
        why = f"it cannot be loaded: {type(error).__name__}: {error}"
        if isinstance(error, ImportError) and (error.name or "").startswith("model_gateway"):
            why += "; a provider needs no base class, leave that import out"
        raise Unusable(why) from error


def _native(given: Any, name: str, config: ProviderConfig, http: Http, clock: Clock) -> Provider:
    if not _takes_four(given):
        raise Unusable(
            "it gives neither a class with complete and stream nor a function"
            " create(name, config, http, clock)"
        )
    try:
        provider: Provider = given(name, config, http, clock)
    except ValueError:
        raise
    except Exception as error:
        raise Unusable(f"its create() fails: {type(error).__name__}: {error}") from error
    if lacking := [one for one in _SEAM if not callable(getattr(provider, one, None))]:
        raise Unusable(f"what its create() gives has no {' and no '.join(lacking)}")
    return provider


def _takes_four(given: Any) -> bool:
    try:
        inspect.signature(given).bind("name", "config", "http", "clock")
    except (TypeError, ValueError):
        return False
    return True
