"""Provider adapters: one module per dialect, found by its name, here or in another package.

Another package gives a dialect by an entry point of the group `nexus.providers`. To know what there
is, no code of it is loaded: all roles agree on the names, workers alone load what is behind them.
"""

import pkgutil
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from schemas.config import ProviderConfig, Unusable
from schemas.ids import Clock

if TYPE_CHECKING:
    from workers.http import Http
    from workers.providers.base import Provider

GROUP = "nexus.providers"


def built_in() -> tuple[str, ...]:
    """The dialects of this folder: its modules."""
    return tuple(
        sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base")
    )


def extensions() -> tuple[EntryPoint, ...]:
    """The dialects of other packages that are installed here, by name and package."""
    return tuple(sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, origin(entry))))


def dialects() -> tuple[str, ...]:
    """The names a configuration may use as `dialect`."""
    return tuple(sorted({*built_in(), *(entry.name for entry in extensions())}))


def origin(entry: EntryPoint) -> str:
    """Where a dialect of another package is from, for messages."""
    package = f"package {entry.dist.name}" if entry.dist else "an unknown package"
    return f"entry point '{entry.name} = {entry.value}' of {package}"


def objection(dialect: str) -> str:
    """Why a dialect cannot be used, as a phrase; empty if it can.

    What is given twice could be either: neither is used.
    """
    given = [origin(entry) for entry in extensions() if entry.name == dialect]
    if dialect in built_in():
        given.insert(0, "built in")
    if not given:
        return f"expected one of {', '.join(dialects())}, got {dialect!r}"
    if len(given) > 1:
        return f"{dialect!r} is both {' and '.join(given)}; rename or uninstall one of them"
    return ""


def make(name: str, config: ProviderConfig, http: "Http", clock: Clock) -> "Provider":
    """The provider `name` as configured.

    Raises Unusable, naming the setting, for a dialect nobody speaks or a wrong setting; for a
    dialect of another package that cannot be used it names package and entry point too.
    """
    if wrong := objection(config.dialect):
        raise Unusable(f"providers.{name}.dialect: {wrong}")
    if config.dialect not in built_in():
        from workers.extension import create

        (entry,) = (entry for entry in extensions() if entry.name == config.dialect)
        return create(entry, name, config, http, clock)
    module = import_module(f"{__name__}.{config.dialect}")
    try:
        provider: Provider = module.create(name, config, http, clock)
    except ValueError as error:
        raise Unusable(str(error)) from error
    return provider
