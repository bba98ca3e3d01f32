"""msgspec's errors in words: where the mistake is, and what is wanted there."""

from typing import Annotated, Any, Literal

import msgspec
import pytest

from schemas.access import Id, Name
from schemas.mistakes import Words, mistake, unknown_field

WORDS = Words(
    field="field",
    object="an object",
    moment="a moment",
    id="that is an id",
    name="that is a name",
    entry_name="names",
)


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    """A part."""

    size: Annotated[int, msgspec.Meta(ge=1)]
    kind: Literal["big", "small"] = "big"


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    """The whole."""

    id: Id = ""
    name: Name | None = None
    parts: list[Inner] | None = None
    named: dict[Annotated[str, msgspec.Meta(max_length=2)], Inner] = {}


CASES: list[tuple[Any, tuple[str, ...], str]] = [
    (5, (), "expected an object"),
    ({"id": " "}, ("id",), "expected text that is an id"),
    ({"name": "\n"}, ("name",), "expected text that is a name"),
    ({"parts": {}}, ("parts",), "expected a list"),
    ({"parts": [{"size": 1}, {}]}, ("parts", "1", "size"), "missing, it has no default"),
    ({"parts": [{"size": 0}]}, ("parts", "0", "size"), "expected a whole number >= 1"),
    (
        {"parts": [{"size": 1, "kind": "x"}]},
        ("parts", "0", "kind"),
        "expected one of big, small",
    ),
    (
        {"parts": [{"size": 1, "knd": "x"}]},
        ("parts", "0", "knd"),
        "unknown field; did you mean given.parts.0.kind?",
    ),
    ({"parts": [{"": 1}]}, ("parts", "0", ""), "unknown field; known here: kind, size"),
    ({"named": {"abc": {"size": 1}}}, ("named",), "names of at most 2 characters"),
]


@pytest.mark.parametrize(("data", "place", "says"), CASES)
def test_a_mistake_names_its_place_and_what_is_wanted_there(
    data: Any, place: tuple[str, ...], says: str
) -> None:
    found = mistake(error_in(data), Outer, WORDS, ("given",))
    assert (found.place, found.says) == (place, says)


def test_of_an_entry_by_name_the_place_of_all_of_them_and_their_type_are_told() -> None:
    found = mistake(error_in({"named": {"a": 5}}), Outer, WORDS)
    assert (found.path, found.in_entry, found.says) == (
        ("named",),
        True,
        "an entry: expected an object",
    )
    assert msgspec.convert({"a": {"size": 3}}, found.kind)["a"].size == 3


def test_an_unknown_field_is_compared_with_the_known_ones() -> None:
    assert unknown_field("nmae", ["name", "id"], WORDS) == "unknown field; did you mean name?"
    assert unknown_field("x", ["name", "id"], WORDS) == "unknown field; known here: id, name"


def error_in(data: Any) -> msgspec.ValidationError:
    with pytest.raises(msgspec.ValidationError) as refused:
        msgspec.convert(data, Outer)
    return refused.value
