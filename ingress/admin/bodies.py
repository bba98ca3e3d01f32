"""Reads what people send to the admin API: strict, and every mistake is told by its field.

A field that is null has its default: what the API shows can be sent back.
"""

from typing import Annotated, Any, TypeVar

import msgspec

from ingress.json_body import WORDS
from ingress.routing import shown
from schemas.access import BudgetScope, Id, recorded
from schemas.errors import InvalidRequest
from schemas.mistakes import mistake

T = TypeVar("T", bound=msgspec.Struct)

GivenId = Annotated[Id, msgspec.Meta(min_length=1)]


def decode(body: bytes, kind: type[T]) -> T:
    """The settings in a JSON body; no body at all is one without fields. Raises InvalidRequest."""
    return _converted(_fields(body), kind)


def given(body: bytes, kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Only what a JSON body says, by field: what is null there has its default here.

    Raises InvalidRequest.
    """
    fields = _fields(body)
    settings = _converted(fields, kind)
    return recorded(settings, fields)


def fields_of(settings: msgspec.Struct, kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The fields that a `kind` has, of settings that may have more."""
    return recorded(settings, kind.__struct_fields__)


def invalid(path: str, says: str) -> InvalidRequest:
    """A mistake in the field at the dotted path."""
    return InvalidRequest(f"{path}: {says}.", param=path, code="invalid_value")


def require_whose(scope: BudgetScope, id: str) -> None:
    """A budget is of somebody, but for the global ones. Raises InvalidRequest."""
    if scope == "global" and id:
        raise invalid("id", "the scope global is everything, it has no id")
    if scope != "global" and not id:
        raise invalid("id", f"missing, it names the {scope}")


def _fields(body: bytes) -> dict[str, Any]:
    try:
        fields = msgspec.json.decode(body or b"{}")
    except UnicodeDecodeError as error:
        raise InvalidRequest("The body is not valid UTF-8.", code="invalid_encoding") from error
    except (msgspec.DecodeError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InvalidRequest(
            f"The body is not valid JSON: {reason}.", code="invalid_json"
        ) from error
    if not isinstance(fields, dict):
        raise InvalidRequest("The body is not a JSON object.", code="invalid_json")
    return fields


def _converted(fields: dict[str, Any], kind: type[T]) -> T:
    optional = {field.name for field in msgspec.structs.fields(kind) if not field.required}
    said = {
        name: value for name, value in fields.items() if value is not None or name not in optional
    }
    try:
        return msgspec.convert(said, kind)
    except msgspec.ValidationError as error:
        wrong = mistake(error, kind, WORDS)
        raise invalid(".".join(map(shown, wrong.place)), wrong.says) from error
