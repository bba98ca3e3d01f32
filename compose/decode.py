"""Turns a tree of settings into the Config, with errors that name the setting and what it takes."""

import re
from datetime import UTC, datetime
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import msgspec

from compose.config_file import ConfigError, PathTo, Tree, dotted
from schemas.access import Id, Name
from schemas.config import Config

T = TypeVar("T")

# `*` stands for any name.
_SECRETS: tuple[PathTo, ...] = (
    ("providers", "*", "api_key"),
    ("bus", "password"),
    ("bus", "nkey_seed"),
    ("admin_token",),
    ("api_keys",),
    ("secret",),
    ("jwt", "secret"),
    ("keys", "*", "key"),
)
# Secrets may be in there, above all when somebody has put them into the wrong place.
_UNQUOTED: tuple[PathTo, ...] = (*_SECRETS, ("providers", "*", "headers"), ("key_policies",))
_UNNAMED: tuple[PathTo, ...] = (("key_policies",),)

_MESSAGE = re.compile(r"^(?P<what>.*?)(?: - at (?P<key>`key` in )?`\$(?P<place>.*)`)?$", re.DOTALL)
_EXPECTED = re.compile(r"^Expected `(?P<kind>[^`]+)`(?P<bound> (?:[<>]=?) \S+)?(?:, got .*)?$")
_LENGTH = re.compile(r"^Expected `(?P<kind>\w+)` of length (?P<bound>[<>])= (?P<number>\d+)$")
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<name>.*)`$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(?P<name>.*)`$")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]|\[\.\.\.\]")
_TIME = "a date or a time such as 2027-01-01 or 2027-01-01T18:00:00Z"
_KINDS = {
    "float": "a number",
    "int": "a whole number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a mapping of settings",
    "datetime": _TIME,
}
_NAMES = {
    str: "text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a mapping",
    type(None): "nothing",
}


def config_from(tree: Tree) -> Config:
    """The Config that a tree of settings describes.

    Raises ConfigError for an unknown setting or a value of the wrong type or size.
    """
    fields = {field.name: field for field in msgspec.structs.fields(Config)}
    for name in tree:
        if name not in fields:
            raise ConfigError(_unknown((), name, list(fields)))
    values = {name: _section(value, fields[name].type, name) for name, value in tree.items()}
    return Config(**values)


def _section(value: Any, kind: Any, name: str) -> Any:
    """One setting of the first level; mappings go entry by entry, so that errors can name it."""
    if get_origin(kind) is not dict:
        return decode(value, kind, (name,))
    entry = get_args(kind)[1]
    return {
        key: decode(item, entry, (name, key))
        for key, item in mapping(value, (name,), "a mapping by name").items()
    }


def decode(value: Any, kind: type[T], path: PathTo) -> T:
    """One value of a known type; of structs and lists, nothing is an empty one.

    Raises ConfigError, naming the setting.
    """
    if value is None and is_struct(kind):
        value = {}
    elif value is None and get_origin(kind) is tuple:
        value = []
    try:
        return msgspec.convert(_with_moments(value, kind), kind)
    except msgspec.ValidationError as error:
        raise ConfigError(_explained(str(error), value, kind, path)) from error


def mapping(value: Any, path: PathTo, wanted: str = "a mapping of settings") -> Tree:
    """The settings in a mapping; nothing is an empty one. Raises ConfigError for all else."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{dotted(path)}: expected {wanted}{_got(value, path)}")
    return value


def is_secret(path: PathTo) -> bool:
    """Whether what is there is never shown."""
    return any(len(path) >= len(secret) and _meet(path, secret) for secret in _SECRETS)


def is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def shown(value: Any) -> str:
    """A wrong value, short enough for a message."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _meet(path: PathTo, pattern: PathTo) -> bool:
    """Whether one of the two leads into the other."""
    return all(step in (one, "*") for one, step in zip(path, pattern, strict=False))


def _got(value: Any, path: PathTo) -> str:
    """The wrong value; of what may hold a secret only its kind."""
    if not any(_meet(path, pattern) for pattern in _UNQUOTED):
        return f", got {shown(value)}"
    return f", got {_NAMES.get(type(value), 'something else')}"


def _with_moments(value: Any, kind: Any) -> Any:
    """The settings with their times as times: YAML may have a date only, or no zone, which is
    UTC."""
    if not is_struct(kind) or not isinstance(value, dict):
        return value
    times = {field.name for field in msgspec.structs.fields(kind) if _bare(field.type) is datetime}
    return {name: _moment(item) if name in times else item for name, item in value.items()}


def _moment(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        when = datetime.fromisoformat(value)
        return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    except (ValueError, OverflowError):
        return value


def _explained(message: str, value: Any, kind: Any, path: PathTo) -> str:
    parts = _MESSAGE.match(message)
    what, place = (parts["what"], parts["place"] or "") if parts else (message, "")
    for name, number in _STEP.findall(place):
        if not name and not number:
            return _explained_entry(value, kind, path)
        value = value[name] if name else value[int(number)]
        kind = _inner(kind, name)
        path = (*path, name or number)
    if unknown := _UNKNOWN.match(what):
        known = [field.name for field in msgspec.structs.fields(_bare(kind))]
        return _unknown(path, unknown["name"], known)
    if missing := _MISSING.match(what):
        return f"{dotted((*path, missing['name']))}: missing, it has no default"
    of_names = bool(parts and parts["key"])
    return f"{dotted(path)}: {_wanted(what, kind, of_names)}{_got(value, path)}"


def _explained_entry(value: Any, kind: Any, path: PathTo) -> str:
    """The error in a mapping by name, of which msgspec does not say in which entry it is."""
    entry = get_args(_bare(kind))[1]
    for name, item in value.items():
        try:
            msgspec.convert(item, entry)
        except msgspec.ValidationError as error:
            return _explained(str(error), item, entry, (*path, name))
    return f"{dotted(path)}: an entry cannot be used"


def _wanted(what: str, kind: Any, of_names: bool) -> str:
    """What a setting takes, in words."""
    if what.startswith("Invalid enum value"):
        return f"expected one of {', '.join(map(str, get_args(_bare(kind))))}"
    if what.startswith("Invalid RFC3339"):
        return f"expected {_TIME}"
    if " matching regex " in what:
        return f"expected {_pattern_words(kind)}"
    if length := _LENGTH.match(what):
        return f"expected {_length_words(length, of_names)}"
    if expected := _EXPECTED.match(what):
        kinds = [one for one in expected["kind"].split(" | ") if one != "null"]
        wanted = " or ".join(_KINDS.get(one, one) for one in kinds)
        return f"expected {wanted}{expected['bound'] or ''}"
    return what


def _pattern_words(kind: Any) -> str:
    if kind == Id:
        return "text without control characters and without spaces at its ends"
    if kind == Name:
        return "text without control characters"
    return "text of another form"


def _length_words(length: re.Match[str], of_names: bool) -> str:
    of_text = length["kind"] == "str"
    number = int(length["number"])
    whole = "names" if of_names else "text" if of_text else _KINDS[length["kind"]]
    bound = "at least" if length["bound"] == ">" else "at most"
    one, several = ("character", "characters") if of_text else ("entry", "entries")
    return f"{whole} of {bound} {number} {one if number == 1 else several}"


def _inner(kind: Any, name: str) -> Any:
    """The type of a field, or of the items of a list."""
    bare = _bare(kind)
    if name and is_struct(bare):
        return next(field.type for field in msgspec.structs.fields(bare) if field.name == name)
    return get_args(bare)[0] if get_args(bare) else Any


def _bare(kind: Any) -> Any:
    """A type without its bounds and without None."""
    if get_origin(kind) is Annotated:
        return _bare(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return _bare(next(one for one in get_args(kind) if one is not type(None)))
    return kind


def _unknown(path: PathTo, name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, n=1)
    hint = (
        f"did you mean {dotted((*path, near[0]))}?"
        if near
        else f"known here: {', '.join(sorted(known))}"
    )
    unnamed = path and any(_meet(path, pattern) for pattern in _UNNAMED)
    return f"{dotted(path if unnamed else (*path, name))}: unknown setting; {hint}"
