"""Says in words what is wrong with data that people wrote: msgspec's errors, translated."""

import re
import types
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

import msgspec

from schemas.access import Id, Name

_PLACE = re.compile(r"^(?P<what>.*?)(?: - at (?P<key>`key` in )?`\$(?P<place>.*)`)?$", re.DOTALL)
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]|(\[\.\.\.\])")
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<name>.*?)`?$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(?P<name>.*)`$")
_EXPECTED = re.compile(r"^Expected `(?P<kind>[^`]+)`(?P<bound> .*?)?(?:, got .*)?$", re.DOTALL)
_LENGTH = re.compile(r" of length (?P<side>[<>]=) (?P<length>\d+)")
_REGEX = re.compile(r" matching regex '(?P<pattern>.*)'")

_KINDS = {
    "float": "a number",
    "int": "a whole number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
}
_COUNTED = {"str": "character", "array": "entry", "object": "entry"}
_SIDES = {"<=": "at most", ">=": "at least"}


class Words(NamedTuple):
    """What a reader's people call things: a field, an object, a moment, the texts that ids and
    names are, and `entry_name`, which begins what is said of the name of an entry."""

    field: str
    object: str
    moment: str
    id: str
    name: str
    entry_name: str


class Mistake(NamedTuple):
    """What is wrong, in a sentence's second half, and in which value: `path` has the names and
    numbers on the way to it, `kind` what it was to become.

    `field` is the one that it has too much or too little. `in_entry`: it is in one of the value's
    entries by name, and msgspec does not say in which.
    """

    path: tuple[str, ...]
    says: str
    kind: Any
    field: str | None = None
    in_entry: bool = False

    @property
    def place(self) -> tuple[str, ...]:
        """The way to the value, or to the field of it."""
        return self.path if self.field is None else (*self.path, self.field)


def mistake(
    error: msgspec.ValidationError, kind: Any, words: Words, within: tuple[str, ...] = ()
) -> Mistake:
    """The mistake in data that was to become a `kind`; the data themselves are not repeated.

    `within` is the way to these data in what people know, for names that are suggested.
    """
    parts = _PLACE.match(str(error))
    assert parts is not None
    what, kind = parts["what"], bare(kind)
    path: tuple[str, ...] = ()
    for name, number, entry in _STEP.findall(parts["place"] or ""):
        if entry:
            return Mistake(path, f"an entry: {_wanted(what, Any, words)}", kind, in_entry=True)
        path = (*path, name or number)
        kind = bare(_inner(kind, name))
    if unknown := _UNKNOWN.match(what):
        known = [field.name for field in msgspec.structs.fields(kind)] if is_struct(kind) else []
        says = unknown_field(unknown["name"], known, words, (*within, *path))
        return Mistake(path, says, kind, unknown["name"])
    if missing := _MISSING.match(what):
        return Mistake(path, "missing, it has no default", kind, missing["name"])
    says = _wanted(what, kind, words)
    if parts["key"]:
        says = says.replace("expected text", words.entry_name, 1)
    return Mistake(path, says, kind)


def unknown_field(
    name: str, known: Iterable[str], words: Words, within: tuple[str, ...] = ()
) -> str:
    """What to do about a field that is none of the known ones."""
    known = sorted(known)
    near = get_close_matches(name, known, n=1)
    if near:
        return f"unknown {words.field}; did you mean {'.'.join((*within, near[0]))}?"
    return f"unknown {words.field}; known here: {', '.join(known)}"


def is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _wanted(what: str, kind: Any, words: Words) -> str:
    if what.startswith("Invalid enum value"):
        options = [
            str(one).lower() if isinstance(one, bool) else str(one) for one in get_args(kind)
        ]
        return f"expected {'one of ' if len(options) > 1 else ''}{', '.join(options)}"
    if "datetime" in what:
        return f"expected {words.moment}"
    expected = _EXPECTED.match(what)
    if expected is None:
        return what[:1].lower() + what[1:]
    kinds = [one for one in expected["kind"].split(" | ") if one != "null"]
    called = {**_KINDS, "object": words.object}
    wanted = " or ".join(called.get(one, one) for one in kinds)
    return f"expected {wanted}{_bound(kinds[0], expected['bound'] or '', words)}"


def _bound(kind: str, bound: str, words: Words) -> str:
    if length := _LENGTH.match(bound):
        count = _COUNTED[kind]
        several = f"{count[:-1]}ies" if count.endswith("y") else f"{count}s"
        unit = count if length["length"] == "1" else several
        return f" of {_SIDES[length['side']]} {length['length']} {unit}"
    if regex := _REGEX.match(bound):
        pattern = regex["pattern"].encode().decode("unicode_escape")
        in_words = {_pattern(Id): words.id, _pattern(Name): words.name}
        return f" {in_words.get(pattern, f'matching {pattern}')}"
    return bound


def _pattern(kind: Any) -> str:
    return str(get_args(kind)[1].pattern)


def _inner(kind: Any, name: str) -> Any:
    """The type of a field, or of the items of a list."""
    if name and is_struct(kind):
        fields = {field.name: field.type for field in msgspec.structs.fields(kind)}
        return fields.get(name, Any)
    return get_args(kind)[0] if get_args(kind) else Any


def bare(kind: Any) -> Any:
    """A type without its bounds and without `| None`."""
    while True:
        if get_origin(kind) is Annotated:
            kind = get_args(kind)[0]
        elif get_origin(kind) in (Union, types.UnionType):
            kind = next(one for one in get_args(kind) if one is not types.NoneType)
        else:
            return kind
