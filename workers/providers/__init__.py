"""Provider adapters: one file per dialect, found by its name."""

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING

from schemas.config import ProviderConfig
from schemas.ids import Clock

if TYPE_CHECKING:
    from workers.http import Http
    from workers.providers.base import Provider


def dialects() -> tuple[str, ...]:
    """The names a configuration may use as `dialect`: the modules of this folder."""
    return tuple(
        sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base")
    )


def make(name: str, config: ProviderConfig, http: "Http", clock: Clock) -> "Provider":
    """The provider `name` as configured.

    Raises ValueError, naming the setting, for a dialect nobody speaks or a wrong setting.
    """
    if config.dialect not in dialects():
        known = ", ".join(dialects())
        raise ValueError(
            f"providers.{name}.dialect: unknown dialect {config.dialect!r}, expected one of {known}"
        )
    module = import_module(f"{__name__}.{config.dialect}")
    provider: Provider = module.create(name, config, http, clock)
    return provider
