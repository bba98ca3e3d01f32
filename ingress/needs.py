"""What a call asks of its target, read from its canonical body."""

from typing import Any

import msgspec

from ingress.candidates import Need
from ingress.measure import MEASURES
from ingress.request import ModelRequest

# Answers of usual length: whoever allows more seldom gets it.
_USUAL_OUTPUT = 512


class _Format(msgspec.Struct):
    response_format: Any = None


_format = msgspec.json.Decoder(_Format)


def need_of(request: ModelRequest) -> Need:
    """The need of a request that its dialect has accepted. Raises InvalidRequest."""
    size = MEASURES[request.operation](request.body)
    usual = _USUAL_OUTPUT if size.max_tokens is None else min(size.max_tokens, _USUAL_OUTPUT)
    wanted = _format.decode(request.body).response_format
    return Need(
        prompt=size.prompt_estimate,
        output=size.choices * usual if request.operation == "chat" else 0,
        max_tokens=size.max_tokens,
        stream=request.stream,
        images=bool(size.images or size.low_images or size.original_images),
        tools=bool(size.tools),
        schema=isinstance(wanted, dict) and wanted.get("type") == "json_schema",
    )
