"""Named questions: one SQL file each, and the entry that binds its parameters and shapes rows."""

from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any, NamedTuple

import msgspec

from analytics.asks import Scope
from analytics.questions import targets, usage
from analytics.store import Store
from schemas.errors import Forbidden, InvalidRequest


class Question(NamedTuple):
    """`bind` turns what the client sent and the time now (ns) into SQL parameters, or raises
    InvalidRequest; `shape` turns these, the rows and the ledger sequence into the answer. What is
    `of_all` cannot be narrowed to a tenant, and is an administrator's to ask."""

    params: type[msgspec.Struct]
    bind: Callable[[Any, int], dict[str, Any]]
    shape: Callable[[dict[str, Any], Sequence[Sequence[Any]], int], msgspec.Struct]
    of_all: bool = False


QUESTIONS: dict[str, Question] = {
    "usage": Question(usage.UsageParams, usage.bind, usage.shape),
    "targets": Question(targets.TargetsParams, targets.bind, targets.shape, of_all=True),
}
_SQL = {name: files(__name__).joinpath(f"{name}.sql").read_text() for name in QUESTIONS}


async def answer(
    name: str, params: bytes, scope: Scope | None, *, store: Store, now_ns: int, as_of_seq: int
) -> msgspec.Struct:
    """Answer a named question from the rollups. Raises Forbidden, InvalidRequest, StoreFailed."""
    question = QUESTIONS[name]
    if question.of_all and scope is not None:
        raise Forbidden("Only an administrator may ask this.")
    try:
        asked = msgspec.json.decode(params, type=question.params)
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"invalid parameters: {error}") from error
    bound = question.bind(asked, now_ns)
    whose = {
        "project": scope.project if scope else None,
        "key_id": scope.key_id if scope else None,
    }
    found = await store.query(_SQL[name], {**bound, **whose})
    return question.shape(bound, found.rows, as_of_seq)
