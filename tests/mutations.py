"""JSON that is almost what is expected: a recorded value with one odd thing somewhere in it."""

import copy
from typing import Any

from hypothesis import strategies as st

ODD: list[Any] = [
    None,
    True,
    -1,
    1.5,
    10**30,
    1e300,
    "",
    "odd",
    "lone surrogate \ud800",
    [],
    [None],
    ["odd"],
    [[]],
    {},
    {"odd": 1},
    {"message": "odd"},
]


def mutated(value: Any) -> st.SearchStrategy[Any]:
    """`value` with one of its parts, at any depth, replaced by something odd."""
    return st.builds(
        _replaced, st.just(value), st.sampled_from(_paths(value)), st.sampled_from(ODD)
    )


def _paths(value: Any) -> list[tuple[Any, ...]]:
    """The way to each part of a value, the empty one to all of it among them."""
    if isinstance(value, dict):
        parts = list(value.items())
    elif isinstance(value, list):
        parts = list(enumerate(value))
    else:
        parts = []
    return [(), *((key, *rest) for key, part in parts for rest in _paths(part))]


def _replaced(value: Any, path: tuple[Any, ...], odd: Any) -> Any:
    if not path:
        return odd
    copied = copy.deepcopy(value)
    part = copied
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = odd
    return copied
