"""Turns a tree of settings into the Config, with errors that name the setting and what it takes."""

from datetime import UTC, datetime
from typing import Any, TypeVar, get_args, get_origin

import msgspec

from compose.config_file import ConfigError, PathTo, Tree, dotted
from schemas.config import SECRET_OPTIONS, Config
from schemas.mistakes import Words, bare, is_struct, mistake, unknown_field

T = TypeVar("T")

# `*` stands for any name.
_SECRETS: tuple[PathTo, ...] = (
    ("providers", "*", "api_key"),
    *(("providers", "*", "options", option) for option in SECRET_OPTIONS),
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

_WORDS = Words(
    field="setting",
    object="a mapping of settings",
    moment="a date or a time such as 2027-01-01 or 2027-01-01T18:00:00Z",
    id="without control characters and without spaces at its ends",
    name="without control characters",
    entry_name="expected names",
)
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
            raise ConfigError(f"{name}: {unknown_field(name, fields, _WORDS)}")
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
        raise ConfigError(_explained(error, value, kind, path)) from error


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
    times = {field.name for field in msgspec.structs.fields(kind) if bare(field.type) is datetime}
    return {name: _moment(item) if name in times else item for name, item in value.items()}


def _moment(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        when = datetime.fromisoformat(value)
        return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    except (ValueError, OverflowError):
        return value


def _explained(error: msgspec.ValidationError, value: Any, kind: Any, path: PathTo) -> str:
    wrong = mistake(error, kind, _WORDS, path)
    for step in wrong.path:
        value = value[step] if isinstance(value, dict) else value[int(step)]
    path = (*path, *wrong.path)
    if wrong.in_entry:
        return _explained_entry(value, wrong.kind, path)
    if wrong.field is None:
        return f"{dotted(path)}: {wrong.says}{_got(value, path)}"
    unnamed = path and any(_meet(path, pattern) for pattern in _UNNAMED)
    return f"{dotted(path if unnamed else (*path, wrong.field))}: {wrong.says}"


def _explained_entry(value: Any, kind: Any, path: PathTo) -> str:
    """The error in a mapping by name, of which msgspec does not say in which entry it is."""
    entry = get_args(kind)[1]
    for name, item in value.items():
        try:
            msgspec.convert(item, entry)
        except msgspec.ValidationError as error:
            return _explained(error, item, entry, (*path, name))
    return f"{dotted(path)}: an entry cannot be used"
