"""What Anthropic's Messages API is asked, out of a canonical chat.

Sources: platform.claude.com/docs (Messages API, Thinking, Effort, Structured outputs) and the
request types of the `anthropic` package 2.11.
"""

import re
from typing import Any

import msgspec
from msgspec import Raw

from workers.asked import Chat, NamedTool, Tool, cannot, read_chat
from workers.failures import Failures
from workers.providers.anthropic.turns import Block, conversation, is_signed
from workers.providers.base import NOT_AS_ASKED, Ask, AttemptFailed

DEFAULT_LIMIT = 4096
SMALLEST_BUDGET = 1024
# What goes on as it was written. `speed` and `inference_geo` are not among it: they raise the price
# of a call above what the price book knows.
_AS_WRITTEN = ("cache_control", "temperature", "thinking", "top_k", "top_p")
_TAKES = frozenset(
    {
        *_AS_WRITTEN,
        "max_completion_tokens",
        "max_tokens",
        "output_config",
        "parallel_tool_calls",
        "reasoning_effort",
        "response_format",
        "service_tier",
        "stop",
        "tool_choice",
        "tools",
    }
)
_TOOL_CHOICES = {"auto": "auto", "none": "none", "required": "any"}
# `auto` uses the account's priority capacity where there is some.
_SERVICE_TIERS = {
    "auto": "auto",
    "default": "standard_only",
    "priority": "auto",
    "standard_only": "standard_only",
}
_EFFORTS = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "max",
}
# How much of the output may go into thinking, in percent, where a budget has to be named.
_SHARES = {"minimal": 10, "low": 20, "medium": 50, "high": 80, "xhigh": 90, "max": 90}
_VERSION = re.compile(r"claude-(?:[a-z]+-)*(\d{1,2})(?:[-.](\d{1,2}))?(?!\d)")
_FIRST_ADAPTIVE = (4, 6)

_encode = msgspec.json.Encoder().encode
_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode


def messages_request(ask: Ask, failures: Failures, *, drop: bool) -> bytes:
    """The body for `/messages`. Raises AttemptFailed (400) for what cannot be said in it; with
    `drop`, or the request's own `drop_params`, a parameter of that kind is left out."""
    chat, given = read_chat(ask, _TAKES, failures, drop=drop)
    drop = drop or bytes(given.get("drop_params", b"")) == b"true"
    engine = ask.engine or ask.model
    system, turns = conversation(chat.messages, failures)
    body: dict[str, Any] = {
        "model": engine,
        "max_tokens": chat.limit or DEFAULT_LIMIT,
        "messages": turns,
    }
    if system:
        body["system"] = system
    if chat.tools:
        body["tools"] = [_tool(tool, failures) for tool in chat.tools]
        body |= _tool_choice(chat, failures)
    if chat.stops:
        body["stop_sequences"] = chat.stops
    if chat.user:
        body["metadata"] = {"user_id": chat.user}
    if ask.stream:
        body["stream"] = True
    output: dict[str, Any] = {}
    for failed in (
        _add_service_tier(chat, body, failures),
        _add_thinking(chat, engine, body, output, failures),
        _add_format(chat, output, failures),
    ):
        if failed is not None and not drop:
            raise failed
    if "output_config" in given:
        output |= _fields(given["output_config"], "output_config", failures)
    if output:
        body["output_config"] = output
    body |= {name: given[name] for name in _AS_WRITTEN if name in given}
    return _encode(body)


def _tool(tool: Tool, failures: Failures) -> Block:
    function = tool.function
    schema = _fields(function.parameters, "tools", failures)
    shown: Block = {
        "name": function.name,
        "input_schema": schema if "type" in schema else {"type": "object", **schema},
    }
    if function.description:
        shown["description"] = function.description
    if function.strict:
        shown["strict"] = True
    if tool.cache_control is not None:
        shown["cache_control"] = tool.cache_control
    return shown


def _tool_choice(chat: Chat, failures: Failures) -> Block:
    """Which tools must or may be called, if there is anything to say about it."""
    wish = chat.tool_choice
    if isinstance(wish, NamedTool):
        choice: Block = {"type": "tool", "name": wish.function.name}
    elif wish is None or wish in _TOOL_CHOICES:
        choice = {"type": _TOOL_CHOICES[wish or "auto"]}
    else:
        raise cannot(f"choose tools by '{wish}'", "tool_choice", failures)
    if chat.parallel_tool_calls is False and choice["type"] != "none":
        choice["disable_parallel_tool_use"] = True
    elif wish is None:
        return {}
    return {"tool_choice": choice}


def _add_service_tier(chat: Chat, body: Block, failures: Failures) -> AttemptFailed | None:
    if chat.service_tier is None:
        return None
    if chat.service_tier not in _SERVICE_TIERS:
        return cannot(f"serve the tier '{chat.service_tier}'", "service_tier", failures)
    body["service_tier"] = _SERVICE_TIERS[chat.service_tier]
    return None


def _add_format(chat: Chat, output: Block, failures: Failures) -> AttemptFailed | None:
    """A schema for the answer. JSON without a schema is nothing that Anthropic promises."""
    wish = chat.response_format
    if wish is None or wish.type == "text":
        return None
    if wish.type != "json_schema" or wish.json_schema is None:
        return failures.unsendable(
            f"{failures.provider} answers in JSON by a schema only: send a 'response_format' of the"
            " type 'json_schema', or set 'drop_params' to true to have it left out.",
            "response_format",
        )
    output["format"] = {"type": "json_schema", "schema": wish.json_schema.schema}
    return None


def _add_thinking(
    chat: Chat, engine: str, body: Block, output: Block, failures: Failures
) -> AttemptFailed | None:
    """`reasoning_effort` in the model's own words.

    Claude 4.6 and later, and models that are not Claude, think by effort as much as they find fit;
    earlier ones by a budget of at least 1024 tokens within `max_tokens`. These cannot begin to
    think in the middle of a row of tool calls, or before a call that they must make: then they go
    on without.
    """
    effort = chat.reasoning_effort
    if effort is None:
        return None
    if effort == "none":
        if thinks_by_effort(engine):
            body["thinking"] = {"type": "disabled"}
        return None
    if effort not in _EFFORTS:
        return cannot(f"think with the effort '{effort}'", "reasoning_effort", failures)
    if thinks_by_effort(engine):
        body["thinking"] = {"type": "adaptive", "display": "summarized"}
        output["effort"] = _EFFORTS[effort]
        return None
    if not _may_think(chat):
        return None
    limit = chat.limit or DEFAULT_LIMIT
    if limit <= SMALLEST_BUDGET:
        return failures.unsendable(
            f"{engine} needs 'max_tokens' above {SMALLEST_BUDGET} to think: raise it, or leave"
            " 'reasoning_effort' out.",
            "reasoning_effort",
        )
    budget = max(limit * _SHARES[effort] // 100, SMALLEST_BUDGET)
    body["thinking"] = {"type": "enabled", "budget_tokens": budget}
    return None


def thinks_by_effort(engine: str) -> bool:
    """Whether a model thinks by effort (`adaptive`), and not by a budget of tokens."""
    version = _VERSION.search(engine)
    if version is None:
        return "claude-instant" not in engine
    return (int(version[1]), int(version[2] or 0)) >= _FIRST_ADAPTIVE


def _may_think(chat: Chat) -> bool:
    """Not where a call is demanded, nor where results of calls are given back without the thoughts
    that led to them."""
    if chat.tools and chat.tool_choice not in (None, "auto", "none"):
        return False
    for message in reversed(chat.messages):
        if message.role == "assistant":
            return any(is_signed(block) for block in message.thinking_blocks or ())
        if message.role != "tool":
            break
    return True


def _fields(raw: Raw, param: str, failures: Failures) -> dict[str, Raw]:
    """The fields of an object as they were written; null has none."""
    if bytes(raw) == b"null":
        return {}
    try:
        return _decode_fields(raw)
    except NOT_AS_ASKED as error:
        raise failures.unsendable(f"'{param}' has to hold a JSON object.", param) from error
