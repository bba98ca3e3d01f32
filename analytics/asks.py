"""What travels between the ingress and the analytics role: questions, answers, whose data."""

from typing import Any

import msgspec

from schemas.errors import ErrorInfo, NexusError


class Scope(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whose data an answer may show; a field of None does not narrow it.

    No scope at all (None in place of a Scope) is an administrator's view of everything. A Scope
    that narrows nothing is refused, so that a forgotten field cannot show other people's data.
    """

    project: str | None = None
    key_id: str | None = None

    def __post_init__(self) -> None:
        if self.project is None and self.key_id is None:
            raise ValueError("a scope must name a project or a key")


class Ask(msgspec.Struct, frozen=True, omit_defaults=True):
    """A request on `ask.<question>`: the question's own parameters as JSON, and the scope."""

    params: msgspec.Raw
    scope: Scope | None = None


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """Exactly one of the two: the question's result as JSON, or why there is none."""

    ok: msgspec.Raw = msgspec.Raw()
    error: ErrorInfo | None = None


class SqlParams(msgspec.Struct, frozen=True):
    """A statement as a user wrote it."""

    sql: str


class SqlResult(msgspec.Struct, frozen=True):
    """Rows of a user's statement; `truncated` when there were more than an answer may hold."""

    columns: list[str]
    types: list[str]
    rows: list[list[Any]]
    truncated: bool
    as_of_seq: int


def refusal(info: ErrorInfo) -> NexusError:
    """The error that the other side of the bus described."""
    error = NexusError(info.message)
    error.info = info
    return error
