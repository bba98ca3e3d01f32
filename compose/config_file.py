"""Reads one YAML file: strict about what YAML lets pass silently, with `${ENV}` references."""

import re
from collections.abc import Iterator, Mapping
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import yaml

Tree = dict[str, Any]
PathTo = tuple[str, ...]

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^{}\n]*))?\}")
# `{key: ${NAME}}` is not YAML, because of the braces, but it is how people write it. So references
# are spelt with private characters, one for one, while YAML looks at the text.
_OPEN, _CLOSE = "\ue000\ue001", "\ue002"
_HIDDEN = re.compile(f"{_OPEN}([A-Za-z_][A-Za-z0-9_]*)(?::-([^{_CLOSE}]*))?{_CLOSE}")


class ConfigError(Exception):
    """A setting that cannot be used; the message names it and says what to do."""


class FileSettings(NamedTuple):
    """What a file says: its tree, by path the variables whose values scalars consist of (a default
    in the file makes a value of the file), and those that are not set."""

    tree: Tree
    references: dict[PathTo, tuple[str, ...]]
    unset: dict[PathTo, str]


def read(path: Path, env: Mapping[str, str]) -> FileSettings:
    """The settings in a file; references to variables are resolved, unset ones to the empty text.

    Raises ConfigError for a file that is not there, is not YAML or is not a mapping of names.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    hidden = _REFERENCE.sub(lambda match: f"{_OPEN}{match[0][2:-1]}{_CLOSE}", text)
    try:
        tree = yaml.load(hidden, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {_show(str(error))}") from error
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a mapping of settings such as `models:`")
    settings = FileSettings({}, {}, {})
    settings.tree.update(_resolve(tree, (), env, settings))
    return settings


def leaves(tree: Any, path: PathTo = ()) -> Iterator[tuple[PathTo, Any]]:
    """Every value that is not a mapping, with its path."""
    if isinstance(tree, Mapping) and tree:
        for key, value in tree.items():
            yield from leaves(value, (*path, key))
    elif path:
        yield path, tree


class _Loader(yaml.SafeLoader):
    """YAML as people expect it: no key twice, `1e-6` is a number, and what looks like a date is
    text until somebody asks for a time."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode):
                if key_node.value in seen and key_node.tag != "tag:yaml.org,2002:merge":
                    raise yaml.MarkedYAMLError(
                        problem=f"{key_node.value!r} is there twice",
                        problem_mark=key_node.start_mark,
                    )
                seen.add(key_node.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+"),
    list("-+0123456789."),
)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, shape) for tag, shape in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}


def _resolve(value: Any, path: PathTo, env: Mapping[str, str], into: FileSettings) -> Any:
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise ConfigError(f"{dotted(path)}: the name {key!r} is not text: put it in quotes")
        return {
            _show(key): _resolve(item, (*path, _show(key)), env, into)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_resolve(item, (*path, str(place)), env, into) for place, item in enumerate(value)]
    if isinstance(value, float) and not isfinite(value):
        raise ConfigError(f"{dotted(path)}: expected a number, got {value}")
    return _filled(value, path, env, into) if isinstance(value, str) else value


def _filled(text: str, path: PathTo, env: Mapping[str, str], into: FileSettings) -> str:
    """The text with its references replaced, which are noted under the path."""

    def replace(match: re.Match[str]) -> str:
        name, default = match[1], match[2]
        if not default:
            into.references[path] = (*into.references.get(path, ()), name)
        value = env.get(name) or default
        if value is None:
            into.unset[path] = name
        return value or ""

    return _HIDDEN.sub(replace, text)


def _show(text: str) -> str:
    """Text with its references as they were written."""
    return text.replace(_OPEN, "${").replace(_CLOSE, "}")


def dotted(path: PathTo) -> str:
    """A path as users write it: `models.gpt-4o.input_cost`."""
    return ".".join(path) or "the file"
