"""Says in words what is wrong with data that people wrote: msgspec's errors, translated."""

import re
import types
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

_A_MOMENT = "a time with its zone, like 2027-01-31T12:00:00Z"
_KINDS = {
    "float": "a number",
    "int": "a whole number",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "datetime": _A_MOMENT,
}
_COUNTED = {"str": "character", "array": "entry", "object": "entry"}
_SIDES = {"<=": "at most", ">=": "at least"}


def _pattern(kind: Any) -> str:
    return str(get_args(kind)[1].pattern)


_IN_WORDS = {
    _pattern(Id): "without line breaks, that neither begins nor ends with a space",
    _pattern(Name): "without line breaks or other control characters",
}


class Mistake(NamedTuple):
    """Where, as the names and numbers on the way to it, and what is wrong there."""

    path: tuple[str, ...]
    says: str


def mistake(error: msgspec.ValidationError, kind: Any) -> Mistake:
    """The mistake in data that was to become a `kind`; the data themselves are not repeated."""
    parts = _PLACE.match(str(error))
    assert parts is not None
    what, place = parts["what"], parts["place"] or ""
    path: list[str] = []
    whose = "the name of an entry: " if parts["key"] else ""
    for name, number, entry in _STEP.findall(place):
        if entry:
            whose = whose or "an entry: "
            kind = Any
        else:
            path.append(name or number)
            kind = _inner(_bare(kind), name)
    kind = _bare(kind)
    if unknown := _UNKNOWN.match(what):
        return Mistake((*path, unknown["name"]), _unknown(unknown["name"], path, kind))
    if missing := _MISSING.match(what):
        return Mistake((*path, missing["name"]), "missing, it has no default")
    return Mistake(tuple(path), whose + _wanted(what, kind))


def _wanted(what: str, kind: Any) -> str:
    if what.startswith("Invalid enum value"):
        return f"expected one of {', '.join(map(str, get_args(kind)))}"
    if "datetime" in what:
        return f"expected {_A_MOMENT}"
    expected = _EXPECTED.match(what)
    if expected is None:
        return what[:1].lower() + what[1:]
    kinds = [one for one in expected["kind"].split(" | ") if one != "null"]
    wanted = " or ".join(_KINDS.get(one, one) for one in kinds)
    return f"expected {wanted}{_bound(kinds[0], expected['bound'] or '')}"


def _bound(kind: str, bound: str) -> str:
    if length := _LENGTH.match(bound):
        count = _COUNTED[kind]
        several = f"{count[:-1]}ies" if count.endswith("y") else f"{count}s"
        unit = count if length["length"] == "1" else several
        return f" of {_SIDES[length['side']]} {length['length']} {unit}"
    if regex := _REGEX.match(bound):
        pattern = regex["pattern"].encode().decode("unicode_escape")
        return f" {_IN_WORDS.get(pattern, f'matching {pattern}')}"
    return bound


def _unknown(name: str, path: list[str], kind: Any) -> str:
    known = [field.name for field in msgspec.structs.fields(kind)] if _is_struct(kind) else []
    near = get_close_matches(name, known, n=1)
    if near:
        return f"unknown field; did you mean {'.'.join((*path, near[0]))}?"
    return f"unknown field; known here: {', '.join(sorted(known))}"


def _inner(kind: Any, name: str) -> Any:
    """The type of a field, or of the items of a list."""
    if name and _is_struct(kind):
        fields = {field.name: field.type for field in msgspec.structs.fields(kind)}
        return fields.get(name, Any)
    return get_args(kind)[0] if get_args(kind) else Any


def _bare(kind: Any) -> Any:
    """A type without its bounds and without `| None`."""
    while True:
        if get_origin(kind) is Annotated:
            kind = get_args(kind)[0]
        elif get_origin(kind) in (Union, types.UnionType):
            kind = next(one for one in get_args(kind) if one is not types.NoneType)
        else:
            return kind


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)
