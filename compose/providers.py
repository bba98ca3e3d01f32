"""Which providers can be used: those of the configuration and the built-in vendors with a key."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from compose.config_file import ConfigError, PathTo, Tree
from compose.decode import decode
from compose.environment import NAME, Setting
from schemas.catalog import Vendor
from schemas.config import ProviderConfig, Quirks
from workers.providers import built_in, objection

_NOT_A_VENDOR = Vendor(name="")
# Who sets one of these wants the provider; a region or the name of a project says nothing yet.
_MEANT = frozenset({"base_url", "api_key"})
_REGION = "{region}"
# What needs no address; neither does what another package reaches.
_NOWHERE = frozenset({"litellm", "mock"})


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
        known = vendors.get(name)
        config = _decoded(name, declared.get(name), known or _NOT_A_VENDOR)
        vendor = known or _like(config, vendors)
        added = list(_from_environment(name, config, vendor, env)) if known else []
        meant = any(setting.path[2] in _MEANT for setting in added)
        if name not in declared and not added and config.dialect != "mock":
            continue
        if wrong := objection(config.dialect):
            raise ConfigError(f"providers.{name}.dialect: {wrong}")
        config = _with_address(name, _with_settings(config, added, vendor), vendor)
        _check_client_keys(name, config, added)
        unset_key = unset.get(("providers", name, "api_key"), "")
        missing = _missing(config, vendor, unset_key, vendor.needs if known else "api_key")
        if missing:
            if name in declared or meant:
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
    if config.pool and not NAME.fullmatch(config.pool):
        raise ConfigError(f"{path}.pool: a name has letters, digits, '-', '_' and '.', at most 64")
    return config


def _like(config: ProviderConfig, vendors: Mapping[str, Vendor]) -> Vendor:
    """What is known of a provider with a name of its own: the ways of the vendor that speaks as it
    does and has its options. Its key and its account are another's."""
    if config.dialect in ("openai", "mock"):
        return _NOT_A_VENDOR
    speaking = [vendor for vendor in vendors.values() if vendor.dialect == config.dialect]
    with_options = [vendor for vendor in speaking if config.options.keys() >= set(vendor.requires)]
    return max(with_options, key=lambda vendor: len(vendor.requires), default=_NOT_A_VENDOR)


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
    for variable in vendor.key_envs:
        key = env.get(variable, "").strip()
        if key and not config.api_key:
            yield Setting(("providers", name, "api_key"), key, f"environment {variable}")
            break

    if (
        vendor.region_env
        and not config.region
        and (region := env.get(vendor.region_env, "").strip())
    ):
        origin = f"environment {vendor.region_env}"
        yield Setting(("providers", name, "region"), region, origin)
    for option, variable in vendor.option_envs.items():
        value = env.get(variable, "").strip()
        if value and option not in config.options:
            place = ("providers", name, "options", option)
            yield Setting(place, value, f"environment {variable}")


def _with_settings(config: ProviderConfig, added: list[Setting], vendor: Vendor) -> ProviderConfig:
    """The provider with what the environment adds, and with the vendor's own ways."""
    values = {setting.path[2]: setting.value for setting in added if len(setting.path) == 3}
    options = {setting.path[3]: setting.value for setting in added if len(setting.path) == 4}
    if config.quirks == Quirks():
        values["quirks"] = vendor.quirks
    if not config.region and "region" not in values:
        values["region"] = vendor.region
    options = {**vendor.options, **options, **config.options}
    return msgspec.structs.replace(config, options=options, **values)


def _with_address(name: str, config: ProviderConfig, vendor: Vendor) -> ProviderConfig:
    """The provider with its full base URL; one without a path gets `/v1`."""
    needs_none = config.dialect in _NOWHERE or config.dialect not in built_in()
    if needs_none and not config.base_url:
        return config
    if not config.base_url:
        if not vendor.name:
            raise ConfigError(f"providers.{name}.base_url: missing, it has no default")
        address = vendor.base_url.replace(_REGION, config.region)
        return msgspec.structs.replace(config, base_url=address)
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


def _missing(config: ProviderConfig, vendor: Vendor, unset_key: str, needs: str) -> str:
    """What is not there that a provider needs to be used, or nothing."""
    if config.dialect == "mock":
        return ""
    absent = [vendor.option_envs.get(o, o) for o in vendor.requires if o not in config.options]
    if absent:
        return " and ".join(absent)
    signed_in = any(config.options.keys() >= set(options) for options in vendor.signs_in)
    if config.api_key or signed_in or config.client_keys == "required":
        return "" if config.base_url else vendor.url_env
    own_address = vendor.base_url.replace(_REGION, config.region)
    its_own = config.base_url == own_address or not own_address
    asks_for_a_key = bool(vendor.key_envs or vendor.signs_in)
    return unset_key or (needs if its_own and asks_for_a_key else "")
