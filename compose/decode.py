"""Turns a tree of settings into the Config, with errors that name the setting and what it takes."""

import re
from difflib import get_close_matches
from typing import Any, TypeVar, get_args, get_origin

import msgspec

from compose.config_file import ConfigError, Tree
from schemas.config import Config

T = TypeVar("T")

SECRETS = frozenset({"api_key", "api_keys", "admin_token", "password", "nkey_seed"})
_WITH_SECRETS = frozenset({"providers", "bus", "api_keys", "admin_token"})

_PLACE = re.compile(r"^(?P<what>.*?)(?: - at `\$(?P<place>.*)`)?$", re.DOTALL)
_EXPECTED = re.compile(r"^Expected `(?P<kind>[^`]+)`(?P<bound> (?:[<>]=?) \S+)?(?:, got .*)?$")
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<name>.*)`$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(?P<name>.*)`$")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]|\[\.\.\.\]")
_KINDS = {
    "float": "a number",
    "int": "a whole number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a mapping of settings",
}


def config_from(tree: Tree) -> Config:
    """The Config that a tree of settings describes.

    Raises ConfigError for an unknown setting or a value of the wrong type or size.
    """
    fields = {field.name: field for field in msgspec.structs.fields(Config)}
    for name in tree:
        if name not in fields:
            raise ConfigError(_unknown(name, "", name, list(fields)))
    values = {name: _section(value, fields[name].type, name) for name, value in tree.items()}
    return Config(**values)


def _section(value: Any, kind: Any, name: str) -> Any:
    """One setting of the first level; mappings go entry by entry, so that errors can name it."""
    if get_origin(kind) is not dict:
        return decode(value, kind, name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{name}: expected a mapping by name, got {shown(value)}")
    entry = get_args(kind)[1]
    return {key: decode(item, entry, f"{name}.{key}") for key, item in value.items()}


def decode(value: Any, kind: type[T], path: str) -> T:
    """One value of a known type. Raises ConfigError, naming the setting."""
    try:
        return msgspec.convert({} if value is None and is_struct(kind) else value, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(_explained(str(error), value, kind, path)) from error


def is_secret(section: str, name: str) -> bool:
    """Whether a value is never shown: by its section of the file and the last name of its path."""
    return section in _WITH_SECRETS and name in SECRETS


def is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def shown(value: Any) -> str:
    """A wrong value, short enough for a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _explained(message: str, value: Any, kind: Any, path: str) -> str:
    parts = _PLACE.match(message)
    what, place = (parts["what"], parts["place"] or "") if parts else (message, "")
    section, last = path.partition(".")[0], path.rpartition(".")[2]
    for name, number in _STEP.findall(place):
        if not name and not number:
            break
        value = value[name] if name else value[int(number)]
        kind = _inner(kind, name)
        path, last = f"{path}.{name or number}", name or last
    if unknown := _UNKNOWN.match(what):
        known = [field.name for field in msgspec.structs.fields(kind)] if is_struct(kind) else []
        return _unknown(f"{path}.{unknown['name']}", f"{path}.", unknown["name"], known)
    if missing := _MISSING.match(what):
        return f"{path}.{missing['name']}: missing, it has no default"
    got = "" if is_secret(section, last) else f", got {shown(value)}"
    if expected := _EXPECTED.match(what):
        kinds = [one for one in expected["kind"].split(" | ") if one != "null"]
        wanted = " or ".join(_KINDS.get(one, one) for one in kinds)
        return f"{path}: expected {wanted}{expected['bound'] or ''}{got}"
    if what.startswith("Invalid enum value"):
        return f"{path}: expected one of {', '.join(_choices(kind))}{got}"
    return f"{path}: {what}{got}"


def _inner(kind: Any, name: str) -> Any:
    """The type of a field, or of the items of a list."""
    if name and is_struct(kind):
        return next(field.type for field in msgspec.structs.fields(kind) if field.name == name)
    return get_args(kind)[0] if get_args(kind) else Any


def _choices(kind: Any) -> list[str]:
    return [str(choice) for choice in get_args(kind)]


def _unknown(path: str, prefix: str, name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {prefix}{near[0]}?" if near else f"known here: {', '.join(sorted(known))}"
    return f"{path}: unknown setting; {hint}"
