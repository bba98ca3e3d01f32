"""Loads the Config: built-in values, then the file, then the environment, then the command line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from compose import environment, providers
from compose.config_file import ConfigError, PathTo, Tree, dotted, leaves, read
from compose.consistency import DEV_KEY, check, check_access, is_loopback, loops
from compose.decode import config_from, is_secret
from ingress.routing import Router
from schemas.catalog import Catalog
from schemas.config import Config, LimitConfig

__all__ = ["ConfigError", "Loaded", "load"]

DEFAULT_FILES = ("config/models.yaml", "nexus.yaml")
LATER_SECTIONS = ("budget", "router", "pricing", "target_url")
LATER_LIMITS = ("requests_per_second", "burst", "model_tokens_per_minute")


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
            self.unset.pop(leaf_path, None)


def load(path: str | None, env: Mapping[str, str], overrides: Mapping[str, Any]) -> Loaded:
    """The Config of one process.

    `path` is the file to read (default: CONFIG_PATH, else `config/models.yaml` and `nexus.yaml`
    where they exist). `overrides` come from the command line, by dotted path (`port`, `bus.url`);
    None overrides nothing. Raises ConfigError, naming the setting and what to do.
    """
    layers = Layers()
    for file in _files(path or env.get("CONFIG_PATH") or None):
        _put_file(layers, file, env)
    for setting in environment.settings(env):
        layers.put(*setting)
    for name, value in overrides.items():
        if value is not None:
            layers.put(tuple(name.split(".")), value, "command line")

    _refuse_unset(layers.unset)

    catalog = Catalog.load()
    declared = _mapping(layers.tree.pop("providers", None), "providers")
    chosen = providers.choose(declared, layers.unset, catalog.vendors, env)
    for setting in chosen.settings:
        layers.origins[dotted(setting.path)] = setting.origin

    config = config_from(layers.tree)
    config = msgspec.structs.replace(config, providers=chosen.usable)
    check(config, {*declared, *catalog.vendors}, catalog)
    if not config.api_keys and not config.admin_token and is_loopback(config.host):
        config = msgspec.structs.replace(config, api_keys=(DEV_KEY,))
        layers.origins["api_keys"] = "default, on loopback only"
    check_access(config)
    notices = [
        *chosen.notices,
        *loops(config),
        *_not_available(Router(config, catalog)),
        *_not_enforced(layers.tree, config.limits),
        *environment.notices(env),
    ]
    return Loaded(config, layers.origins, notices)


def _files(path: str | None) -> list[Path]:
    if path is not None:
        return [Path(path)]
    return [file for file in map(Path, DEFAULT_FILES) if file.is_file()]


def _put_file(layers: Layers, file: Path, env: Mapping[str, str]) -> None:
    found = read(file, env)
    metrics = _mapping(found.tree.pop("metrics", None), "metrics")
    if unknown := metrics.keys() - {"require_key"}:
        raise ConfigError(f"metrics.{min(unknown)}: unknown setting; known here: require_key")
    if metrics:
        found.tree["metrics_require_key"] = metrics["require_key"]
    for place, value in leaves(found.tree):
        if value and place not in found.references and is_secret(place[0], place[-1]):
            _refuse_plain_secret(place, value, found.references)
    layers.put((), found.tree, str(file))
    layers.unset.update(found.unset)


def _refuse_plain_secret(
    place: PathTo, value: Any, references: Mapping[PathTo, tuple[str, ...]]
) -> None:
    """Secrets are not written into files; a list of them consists of references."""
    if isinstance(value, list) and all((*place, str(at)) in references for at in range(len(value))):
        return
    name = place[-1].upper() if place[0] != "providers" else f"{place[1]}_{place[-1]}".upper()
    variable = name.replace("-", "_").replace(".", "_")
    raise ConfigError(
        f"{dotted(place)}: a secret does not belong in the file; write ${{{variable}}} and set"
        " that variable"
    )


def _refuse_unset(unset: Mapping[PathTo, str]) -> None:
    """A provider without its key is merely not used; any other gap is an error."""
    for place, variable in unset.items():
        if place[0] != "providers" or place[-1] != "api_key":
            raise ConfigError(
                f"{dotted(place)}: {variable} is not set; set it, or give a default with"
                f" ${{{variable}:-value}}"
            )


def _mapping(value: Any, path: str) -> Tree:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected a mapping of settings, got {value!r}")
    return value


def _not_available(router: Router) -> list[str]:
    """Configured models and fallbacks that no usable provider answers, by what they lack."""
    lacking: dict[str, list[str]] = {}
    for name, model in router.config.models.items():
        if router.target(name) is None:
            lacking.setdefault(router.remedy(name), []).append(f"models.{name}")
        for fallback in model.fallbacks:
            if router.target(fallback) is None:
                path = f"models.{name}.fallbacks.{fallback}"
                lacking.setdefault(router.remedy(fallback), []).append(path)
    return [f"{', '.join(paths)}: not available, {remedy}" for remedy, paths in lacking.items()]


def _not_enforced(tree: Tree, limits: LimitConfig) -> list[str]:
    later = [section for section in LATER_SECTIONS if tree.get(section)]
    later += [f"limits.{name}" for name in LATER_LIMITS if getattr(limits, name) is not None]
    return [f"{name}: accepted, not enforced by this version" for name in later]
