"""Loads the Config: built-in values, then the file, then the environment, then the command line."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from compose import access, environment, providers
from compose.config_file import ConfigError, PathTo, Tree, dotted, leaves, read
from compose.consistency import DEV_KEY, check, check_access, is_loopback
from compose.decode import config_from, is_secret, mapping
from compose.notices import notices
from ingress.routing import PASS_THROUGH, Router
from schemas.catalog import Catalog
from schemas.config import Config, ProviderConfig

__all__ = ["ConfigError", "Loaded", "load"]

DEFAULT_FILES = ("config/models.yaml", "nexus.yaml")


class Loaded(NamedTuple):
    """The Config, the origin of each value by its dotted path, and what the operator should know.

    What has no origin of its own has that of the path above it, or is a default.
    """

    config: Config
    origins: dict[str, str]
    notices: list[str]


class Layers:
    """Settings laid over one another: a later value replaces an earlier one of the same path."""

    def __init__(self) -> None:
        self.tree: Tree = {}
        self.origins: dict[str, str] = {}
        self.unset: dict[PathTo, str] = {}

    def put(self, path: PathTo, value: Any, origin: str) -> None:
        """Sets a value; a mapping is merged into what is there, an empty one changes nothing."""
        for leaf_path, leaf in leaves(value, path):
            node = self.tree
            for depth, step in enumerate(leaf_path[:-1], 1):
                if not isinstance(node.get(step), dict):
                    node[step] = {}
                    self.origins.pop(dotted(leaf_path[:depth]), None)
                node = node[step]
            if (leaf is None or leaf == {}) and isinstance(node.get(leaf_path[-1]), dict):
                continue
            node[leaf_path[-1]] = leaf
            self.origins[dotted(leaf_path)] = origin
            for place in [one for one in self.unset if one[: len(leaf_path)] == leaf_path]:
                del self.unset[place]


def load(path: str | None, env: Mapping[str, str], overrides: Mapping[str, Any]) -> Loaded:
    """The Config of one process.

    `path` is the file to read (default: CONFIG_PATH, else `config/models.yaml` and `nexus.yaml`
    where they exist). `overrides` come from the command line, by dotted path (`port`, `bus.url`);
    None overrides nothing. Raises ConfigError, naming the setting and what to do.
    """
    layers = Layers()
    for setting in environment.defaults(env):
        layers.put(*setting)
    for file in _files(path or env.get("CONFIG_PATH") or None):
        _put_file(layers, file, env)
    for setting in environment.settings(env):
        layers.put(*setting)
    for name, value in overrides.items():
        if value is not None:
            layers.put(tuple(name.split(".")), value, "command line")

    _refuse_unset(layers.unset)

    catalog = Catalog.load()
    declared = mapping(layers.tree.pop("providers", None), ("providers",))
    chosen = providers.choose(declared, layers.unset, catalog.vendors, env)
    for setting in chosen.settings:
        layers.origins[dotted(setting.path)] = setting.origin

    config = config_from(_spelt_out(layers.tree))
    catalog.follow(config.price_file)
    usable = dict(chosen.usable)
    if config.target_url:
        usable[PASS_THROUGH] = _target(config.target_url, declared)
        layers.origins[f"providers.{PASS_THROUGH}.base_url"] = layers.origins["target_url"]
        layers.origins[f"providers.{PASS_THROUGH}.client_keys"] = "target_url"
    config = msgspec.structs.replace(config, providers=usable)
    if not access.is_configured(config) and is_loopback(config.host):
        config = msgspec.structs.replace(config, api_keys=(DEV_KEY,))
        layers.origins["api_keys"] = "default, on loopback only"
    check(config, {*declared, *catalog.vendors, *usable}, catalog)
    access.check(config)
    check_access(config)
    told = [
        *chosen.notices,
        *notices(config, layers.tree, Router(config, catalog)),
        *environment.notices(env),
    ]
    return Loaded(config, layers.origins, told)


def _files(path: str | None) -> list[Path]:
    if path is not None:
        return [Path(path)]
    return [file for file in map(Path, DEFAULT_FILES) if file.is_file()]


def _put_file(layers: Layers, file: Path, env: Mapping[str, str]) -> None:
    found = read(file, env)
    metrics = mapping(found.tree.pop("metrics", None), ("metrics",))
    if unknown := metrics.keys() - {"require_key"}:
        raise ConfigError(f"metrics.{min(unknown)}: unknown setting; known here: require_key")
    if metrics:
        found.tree["metrics_require_key"] = metrics["require_key"]
    for place, value in leaves(found.tree):
        if value and place not in found.references and is_secret(place):
            _refuse_plain_secret(place, value, found.references)
    layers.put((), found.tree, str(file))
    layers.unset.update(found.unset)


def _refuse_plain_secret(
    place: PathTo, value: Any, references: Mapping[PathTo, tuple[str, ...]]
) -> None:
    """Secrets are not written into files; a list of them consists of references."""
    if isinstance(value, list) and all((*place, str(at)) in references for at in range(len(value))):
        return
    variable = environment.variable_for(place) or _variable_like(place)
    raise ConfigError(
        f"{dotted(place)}: a secret does not belong in the file; write ${{{variable}}} and set"
        " that variable"
    )


def _variable_like(place: PathTo) -> str:
    """A good name for the secret of an entry: `WEB_KEY` for `keys.web.key`."""
    return re.sub(r"[^A-Z0-9]+", "_", "_".join(place[1:]).upper()).lstrip("_0123456789")


def _refuse_unset(unset: Mapping[PathTo, str]) -> None:
    """A provider without its key is merely not used; any other gap is an error."""
    for place, variable in unset.items():
        if place[0] == "providers" and place[-1] == "api_key":
            continue
        default = "" if is_secret(place) else f", or give a default with ${{{variable}:-value}}"
        raise ConfigError(f"{dotted(place)}: {variable} is not set; set it{default}")


def _spelt_out(tree: Tree) -> Tree:
    """The tree without the shorter forms of two settings: secrets separated by commas, and a public
    key in one line, as both are found in variables."""
    secret, jwt = tree.get("secret"), tree.get("jwt")
    if isinstance(secret, str):
        secret = [secret]
    if isinstance(secret, list) and all(isinstance(one, str) for one in secret):
        tree = {**tree, "secret": environment.items(",".join(secret))}
    if isinstance(jwt, dict) and isinstance(key := jwt.get("public_key"), str):
        tree = {**tree, "jwt": {**jwt, "public_key": key.strip().replace("\\n", "\n")}}
    return tree


def _target(target_url: str, declared: Tree) -> ProviderConfig:
    if PASS_THROUGH in declared:
        raise ConfigError(
            f"providers.{PASS_THROUGH}: this is the name of the provider behind target_url; choose"
            " another, or leave target_url out"
        )
    return providers.pass_through(target_url)
