"""A request as a server takes it that speaks the OpenAI dialect, in its own way of doing so."""

import msgspec
from msgspec import Raw

from schemas.config import Quirks
from workers.asked import not_taken, present, says_nothing
from workers.failures import Failures
from workers.providers.base import NOT_AS_ASKED, Ask

_NO_QUIRKS = Quirks()

_encode = msgspec.json.Encoder().encode
_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_objects = msgspec.json.Decoder(list[dict[str, Raw]]).decode


def canonical_request(
    ask: Ask, failures: Failures, quirks: Quirks = _NO_QUIRKS, *, drop: bool = False
) -> bytes:
    """The client's body with the engine as model, and as a server with such quirks understands it;
    a stream also asks for its usage.

    Raises AttemptFailed (400) if it is not an object, if `stream_options` is none, and for a
    parameter that the server lacks, unless `drop` or its own `drop_params` says to leave it out.
    """
    try:
        fields = _decode_fields(ask.body)
        fields["model"] = Raw(_encode(ask.engine or ask.model))
        drop = bytes(fields.pop("drop_params", b"")) == b"true" or drop
        if ask.stream:
            options = present(fields.get("stream_options"))
            wishes = {} if options is None else _decode_fields(options)
            wishes["include_usage"] = Raw(b"true")
            fields["stream_options"] = Raw(_encode(wishes))
        if quirks != _NO_QUIRKS:
            _adapt(fields, quirks, failures, drop=drop)
    except NOT_AS_ASKED as error:
        raise failures.unsendable(f"The request cannot be passed on: {error}") from error
    return _encode(fields)


def _adapt(fields: dict[str, Raw], quirks: Quirks, failures: Failures, *, drop: bool) -> None:
    for name in quirks.lacks:
        value = fields.pop(name, None)
        if value is not None and not drop and not says_nothing(name, value):
            raise not_taken(name, failures)
    for name in quirks.removes:
        fields.pop(name, None)
    for name, known in quirks.renames.items():
        value = fields.pop(name, None)
        if value is not None:
            fields.setdefault(known, value)
    if not quirks.stream_usage:
        fields.pop("stream_options", None)
    messages = fields.get("messages")
    if not quirks.developer and messages is not None and b"developer" in bytes(messages):
        fields["messages"] = Raw(_encode([_system(one) for one in _decode_objects(messages)]))


def _system(message: dict[str, Raw]) -> dict[str, Raw]:
    if bytes(message.get("role", b"")) == b'"developer"':
        return {**message, "role": Raw(b'"system"')}
    return message
