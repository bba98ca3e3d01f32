"""JSON bodies of clients: read into what is known of them, with a clear word on what is wrong."""

import re
from collections.abc import Callable
from typing import TypeVar

import msgspec
from msgspec import Raw

from schemas.errors import InvalidRequest

Body = TypeVar("Body")

_PARAM = re.compile(r"at `\$\.?([^`]*)`")
_UNKNOWN_FIELD = re.compile(r"unknown field `([^`]*)`")
_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.Encoder().encode


def read_json(decode: Callable[[bytes], Body], body: bytes) -> Body:
    """The body by a decoder of msgspec. Raises InvalidRequest, with `param` where a field is
    wrong."""
    try:
        if not body.isascii():
            body.decode("utf-8")
        return decode(body)
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"The body is not valid UTF-8 (byte {error.start}).", code="invalid_encoding"
        ) from error
    except msgspec.ValidationError as error:
        raise InvalidRequest(
            f"{_readable(str(error))}.", param=_param(str(error)), code="invalid_value"
        ) from error
    except (msgspec.DecodeError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InvalidRequest(
            f"The body is not valid JSON: {reason}", code="invalid_json"
        ) from error


def without_fields(body: bytes, names: frozenset[str]) -> bytes:
    """The same object without some of its fields; the others stay as they were written."""
    fields = _decode_fields(body)
    return _encode({name: raw for name, raw in fields.items() if name not in names})


def _param(message: str) -> str | None:
    found = _PARAM.search(message)
    if found is None:
        return None
    path = found.group(1).split("[")[0]
    if path.startswith("budget"):
        unknown = _UNKNOWN_FIELD.search(message)
        return f"{path}.{unknown.group(1)}" if unknown else path
    return path.split(".")[0] or None


def _readable(message: str) -> str:
    what, at, where = message.partition(" - at `$")
    return f"{what} at '{where.strip('.`')}'" if at and where != "`" else what
