"""Requests to the anthropic adapter, and what of them arrives at Anthropic."""

from collections.abc import Iterable
from typing import Any, cast

import anthropic.types
from pydantic import TypeAdapter

from tests.contract.provider_contract import ask_of, outcome
from tests.upstream import Upstream
from workers.providers.base import Provider

OLD, NEW = "claude-sonnet-4-5-20250929", "claude-opus-5-5"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city": "Paris", "days": 1.50}'},
}
THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "c2lnbmVk"}
_NO_LONGER_IN_THE_SDK = {"temperature", "top_k", "top_p"}
_PARAMETERS = anthropic.types.message_create_params.MessageCreateParamsNonStreaming
_CREATE: TypeAdapter[Any] = TypeAdapter(_PARAMETERS)


async def asked(
    provider: Provider, upstream: Upstream, engine: str = NEW, **fields: Any
) -> dict[str, Any]:
    """What arrives at Anthropic, which must be what its own SDK would send."""
    await provider.complete(ask_of(**fields)._replace(engine=engine))
    sent = cast("dict[str, Any]", upstream.requests[-1].json)
    known = {name: value for name, value in sent.items() if name not in _NO_LONGER_IN_THE_SDK}
    assert set(known) <= {*_PARAMETERS.__required_keys__, *_PARAMETERS.__optional_keys__}
    _read_through(_CREATE.validate_python(known))
    return sent


def _read_through(value: Any) -> None:
    """Lists in the SDK's types are checked as far as they are read."""
    if isinstance(value, dict):
        for part in value.values():
            _read_through(part)
    elif isinstance(value, Iterable) and not isinstance(value, str):
        for part in value:
            _read_through(part)


async def refused(provider: Provider, param: str, engine: str = NEW, **fields: Any) -> str:
    """The message of the 400 that names `param`, before anything was sent."""
    failure = await outcome(provider, ask_of(**fields)._replace(engine=engine))
    assert (failure.info.status, failure.info.param) == (400, param)
    assert not failure.reached
    return failure.info.message


def user(*content: Any, **more: Any) -> dict[str, Any]:
    only_text = len(content) == 1 and isinstance(content[0], str)
    return {"role": "user", "content": content[0] if only_text else list(content), **more}


def result(call_id: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content, **more}
