"""JSON bodies of clients: read into what is known of them, with a clear word on what is wrong."""

from typing import TypeVar

import msgspec
from msgspec import Raw

from ingress.routing import shown
from schemas.errors import InvalidRequest
from schemas.mistakes import Words, mistake

Body = TypeVar("Body")

WORDS = Words(
    field="field",
    object="an object",
    moment="a time with its zone, like 2027-01-31T12:00:00Z",
    id="without line breaks, that neither begins nor ends with a space",
    name="without line breaks or other control characters",
    entry_name="the name of an entry: expected text",
)
_OWN_BLOCKS = ("budget", "routing")
_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.Encoder().encode


def read_json(decoder: msgspec.json.Decoder[Body], body: bytes) -> Body:
    """The body by a decoder of msgspec. Raises InvalidRequest, with `param` where a field is
    wrong."""
    try:
        if not body.isascii():
            body.decode("utf-8")
        return decoder.decode(body)
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"The body is not valid UTF-8 (byte {error.start}).", code="invalid_encoding"
        ) from error
    except msgspec.ValidationError as error:
        raise _invalid(error, decoder) from error
    except (msgspec.DecodeError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InvalidRequest(
            f"The body is not valid JSON: {reason}", code="invalid_json"
        ) from error


def without_fields(body: bytes, names: frozenset[str]) -> bytes:
    """The same object without some of its fields; the others stay as they were written."""
    fields = _decode_fields(body)
    return _encode({name: raw for name, raw in fields.items() if name not in names})


def _invalid(error: msgspec.ValidationError, decoder: msgspec.json.Decoder[Body]) -> InvalidRequest:
    """`param` is the field of the first level, of our own blocks the very field."""
    wrong = mistake(error, decoder.type, WORDS)
    says = wrong.says if wrong.says.endswith("?") else f"{wrong.says}."
    place = [shown(step) for step in wrong.place]
    if not place:
        return InvalidRequest(f"The body is wrong: {says}", code="invalid_value")
    path = ".".join(place)
    param = path if place[0] in _OWN_BLOCKS else place[0]
    return InvalidRequest(f"{path}: {says}", param=param, code="invalid_value")
