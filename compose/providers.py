"""Which providers can be used: those of the configuration and the built-in vendors with a key."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from compose.config_file import ConfigError, PathTo, Tree
from compose.decode import decode
from compose.environment import NAME, Setting
from schemas.catalog import Vendor
from schemas.config import ProviderConfig
from workers.providers import dialects

_NOT_A_VENDOR = Vendor(name="")


class Providers(NamedTuple):
    """The usable providers in order of preference, where their values came from, and why others
    that were meant to be used are not."""

    usable: dict[str, ProviderConfig]
    settings: list[Setting]
    notices: list[str]


def choose(
    declared: Tree,
    unset: Mapping[PathTo, str],
    vendors: Mapping[str, Vendor],
    env: Mapping[str, str],
) -> Providers:
    """The providers to use, of the entries under `providers:` and the vendors.

    `unset` has the variables that are referred to but not set. A provider is used when it has what
    it needs: an address, and a key where the vendor's own address asks for one and clients do not
    bring theirs.
    Raises ConfigError for a wrong entry, also of a provider that would not be used.
    """
    found = Providers({}, [], [])
    for name in [*vendors, *(name for name in declared if name not in vendors)]:
        vendor = vendors.get(name, _NOT_A_VENDOR)
        config = _decoded(name, declared.get(name), vendor)
        added = list(_from_environment(name, config, vendor, env))
        values = {setting.path[-1]: setting.value for setting in added}
        config = _with_address(name, msgspec.structs.replace(config, **values), vendor)
        if name not in declared and not added and config.dialect != "mock":
            continue
        _check_client_keys(name, config, added)
        missing = _missing(config, vendor, unset.get(("providers", name, "api_key"), ""))
        if missing:
            found.notices.append(f"providers.{name}: not used, {missing} is not set")
        else:
            found.usable[name] = config
            found.settings.extend(added)
    return found


def pass_through(target_url: str) -> ProviderConfig:
    """The provider behind `target_url`: clients bring their own keys for it. Raises ConfigError."""
    if not is_http(target_url):
        raise ConfigError(f"target_url: expected an http:// or https:// URL, got {target_url!r}")
    return ProviderConfig(base_url=_with_version(target_url), client_keys="required")


def is_http(url: str) -> bool:
    """Whether it is a URL that can be asked by HTTP."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _decoded(name: str, entry: object, vendor: Vendor) -> ProviderConfig:
    path = f"providers.{name}"
    if not NAME.fullmatch(name):
        raise ConfigError(f"{path}: a name has letters, digits, '-', '_' and '.', at most 64")
    given = {} if entry is None else entry
    if isinstance(given, dict):
        given = {"dialect": vendor.dialect, **given}
    config = decode(given, ProviderConfig, ("providers", name))
    if config.dialect not in dialects():
        known = ", ".join(dialects())
        raise ConfigError(f"{path}.dialect: expected one of {known}, got {config.dialect!r}")
    if config.pool and not NAME.fullmatch(config.pool):
        raise ConfigError(f"{path}.pool: a name has letters, digits, '-', '_' and '.', at most 64")
    return config


def _from_environment(
    name: str, config: ProviderConfig, vendor: Vendor, env: Mapping[str, str]
) -> Iterator[Setting]:
    """A key in the file is itself a reference to the environment, and the more precise one."""
    url = env.get(vendor.url_env, "").strip()
    if url:
        address = url.rstrip("/")
        if vendor.url_path and not urlsplit(address).path:
            address += vendor.url_path
        yield Setting(("providers", name, "base_url"), address, f"environment {vendor.url_env}")
    key = env.get(vendor.key_env, "").strip()
    if key and not config.api_key:
        yield Setting(("providers", name, "api_key"), key, f"environment {vendor.key_env}")


def _with_address(name: str, config: ProviderConfig, vendor: Vendor) -> ProviderConfig:
    """The provider with its full base URL; one without a path gets `/v1`."""
    if config.dialect == "mock":
        return config
    if not config.base_url:
        if not vendor.base_url and not vendor.url_env:
            raise ConfigError(f"providers.{name}.base_url: missing, it has no default")
        return msgspec.structs.replace(config, base_url=vendor.base_url)
    if not is_http(config.base_url):
        raise ConfigError(
            f"providers.{name}.base_url: expected an http:// or https:// URL,"
            f" got {config.base_url!r}"
        )
    openai = config.dialect == "openai"
    url = _with_version(config.base_url) if openai else config.base_url.rstrip("/")
    return msgspec.structs.replace(config, base_url=url)


def _with_version(url: str) -> str:
    """An address of the openai dialect; one without a path gets `/v1`."""
    url = url.rstrip("/")
    return url if urlsplit(url).path else urlsplit(url)._replace(path="/v1").geturl()


def _check_client_keys(name: str, config: ProviderConfig, added: list[Setting]) -> None:
    if config.dialect == "mock" or config.client_keys != "required" or not config.api_key:
        return
    from_environment = [setting.origin for setting in added if setting.path[-1] == "api_key"]
    origin = "".join(f" ({one})" for one in from_environment)
    raise ConfigError(
        f"providers.{name}.client_keys: required means that only clients have a key, but api_key"
        f" is set{origin}; unset it, or write allowed"
    )


def _missing(config: ProviderConfig, vendor: Vendor, unset: str) -> str:
    """The variable without which a provider cannot be used, or nothing."""
    if config.dialect == "mock":
        return ""
    if config.api_key or config.client_keys == "required":
        return "" if config.base_url else vendor.url_env
    its_own_address = config.base_url == vendor.base_url or not vendor.base_url
    return unset or (vendor.key_env if its_own_address else "")
