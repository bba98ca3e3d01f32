"""What Anthropic's Messages API is asked, out of a canonical chat.

Sources: platform.claude.com/docs (Messages API, thinking, structured outputs, OpenAI compatibility)
and the request types of the `anthropic` package 2.11.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from workers.asked import (
    Chat,
    Message,
    NamedTool,
    Part,
    Tool,
    ToolCall,
    cannot,
    read_chat,
)
from workers.failures import Failures
from workers.providers.base import NOT_AS_ASKED, Ask

Block = dict[str, Any]

DEFAULT_LIMIT = 4096
SMALLEST_BUDGET = 1024
_SAMPLING = frozenset({"temperature", "top_k", "top_p"})
_NATIVE = frozenset(
    {
        "cache_control",
        "container",
        "diagnostics",
        "inference_geo",
        "speed",
        "thinking",
        "user_profile_id",
    }
)
_TAKES = (
    _SAMPLING
    | _NATIVE
    | {
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
_SERVICE_TIERS = {
    "auto": "auto",
    "default": "standard_only",
    "priority": "auto",
    "standard_only": "standard_only",
}
# How much of the output limit may go into thinking, in percent, where a budget has to be named.
_SHARES = {"minimal": 10, "low": 20, "medium": 50, "high": 80, "xhigh": 90, "max": 90}
_EFFORTS = {"minimal": "low", **{name: name for name in ("low", "medium", "high", "xhigh", "max")}}
_VERSION = re.compile(r"claude-(?:[a-z]+-)*(\d{1,2})(?:[-.](\d{1,2}))?(?!\d)")
_FIRST_ADAPTIVE = (4, 6)
_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_-]")
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;[^;,]+)*;base64,", re.IGNORECASE)

_encode = msgspec.json.Encoder().encode
_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode


def messages_request(ask: Ask, failures: Failures, *, drop: bool) -> bytes:
    """The body for `/messages`. Raises AttemptFailed (400) for what cannot be said in it."""
    chat, given = read_chat(ask, _TAKES, failures, drop=drop)
    drop = drop or bytes(given.get("drop_params", b"")) == b"true"
    engine = ask.engine or ask.model
    system, turns = _conversation(chat.messages, failures)
    body: dict[str, Any] = {
        "model": engine,
        "max_tokens": chat.limit or DEFAULT_LIMIT,
        "messages": turns,
    }
    if system:
        body["system"] = system
    if chat.tools:
        body["tools"] = [_tool(tool, failures) for tool in chat.tools]
    choice = _tool_choice(chat, failures)
    if choice:
        body["tool_choice"] = choice
    if chat.stops:
        body["stop_sequences"] = chat.stops
    if chat.user:
        body["metadata"] = {"user_id": chat.user}
    if chat.service_tier is not None and not (drop and chat.service_tier not in _SERVICE_TIERS):
        body["service_tier"] = _service_tier(chat.service_tier, failures)
    if ask.stream:
        body["stream"] = True
    output: dict[str, Any] = {}
    if chat.reasoning_effort is not None:
        _think(chat, chat.reasoning_effort, engine, body, output, failures, drop=drop)
    _shape(chat, output, failures, drop=drop)
    output |= _fields(given.get("output_config"), "output_config", failures)
    if output:
        body["output_config"] = output
    body |= {name: raw for name, raw in given.items() if name in _SAMPLING or name in _NATIVE}
    try:
        return _encode(body)
    except NOT_AS_ASKED as error:
        raise failures.unsendable(f"The request cannot be passed on: {error}.") from error


def _conversation(
    messages: list[Message], failures: Failures
) -> tuple[list[Block], list[dict[str, Any]]]:
    """The system prompt, and turns that alternate between user and assistant.

    All system and developer messages, wherever they stand, become the system prompt in their order,
    as in Anthropic's own OpenAI-compatible API: a place in the middle is known to newer models
    only. Neighbours of one role become one turn; results of tools are a user's.
    """
    system: list[Block] = []
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message.role in ("system", "developer"):
            system += _marked(_parts(message, failures), message)
            continue
        if message.role == "user":
            role, blocks = "user", _marked(_parts(message, failures), message)
        elif message.role == "assistant":
            role, blocks = "assistant", _marked(_said(message, failures), message)
        elif message.role == "tool":
            role, blocks = "user", _marked([_tool_result(message, failures)], message)
        else:
            raise cannot(f"read a message of the role '{message.role}'", "messages", failures)
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    return system, turns


def _marked(blocks: list[Block], message: Message) -> list[Block]:
    """A cache mark on a message is one on its last block."""
    if message.cache_control is not None and blocks:
        blocks[-1].setdefault("cache_control", message.cache_control)
    return blocks


def _said(message: Message, failures: Failures) -> list[Block]:
    """An assistant's turn: signed thoughts have to stand before what came of them."""
    thoughts = [dict(block) for block in message.thinking_blocks or () if _is_signed(block)]
    calls = [_tool_use(call, failures) for call in message.tool_calls or ()]
    return [*thoughts, *_parts(message, failures), *calls]


def _is_signed(block: Block) -> bool:
    """Anthropic takes back only what it can verify; other vendors' thoughts stay behind."""
    if block.get("type") == "redacted_thinking":
        return bool(block.get("data"))
    return block.get("type") == "thinking" and bool(block.get("signature"))


def _tool_use(call: ToolCall, failures: Failures) -> Block:
    arguments = call.function.arguments.strip() or "{}"
    try:
        tool_input = _decode_fields(arguments.encode())
    except NOT_AS_ASKED as error:
        raise failures.unsendable(
            f"The arguments of the tool call '{call.id}' are not a JSON object.", "messages"
        ) from error
    return {
        "type": "tool_use",
        "id": _call_id(call.id),
        "name": call.function.name,
        "input": tool_input,
    }


def _tool_result(message: Message, failures: Failures) -> Block:
    if not message.tool_call_id:
        raise failures.unsendable(
            "A message of the role 'tool' needs a 'tool_call_id'.", "messages"
        )
    block: Block = {"type": "tool_result", "tool_use_id": _call_id(message.tool_call_id)}
    content = _parts(message, failures)
    if content:
        block["content"] = content
    return block


def _call_id(text: str) -> str:
    """Ids of other vendors' calls may hold what Anthropic refuses in one."""
    return _NOT_IN_IDS.sub("_", text)


def _parts(message: Message, failures: Failures) -> list[Block]:
    """The content in blocks. A text without a word is left out: Anthropic refuses it."""
    blocks: list[Block] = []
    for part in message.parts:
        block = _part(part, failures)
        if block is None:
            continue
        if part.cache_control is not None:
            block["cache_control"] = part.cache_control
        blocks.append(block)
    return blocks


def _part(part: Part, failures: Failures) -> Block | None:
    if part.type in ("text", "refusal"):
        text = part.text or part.refusal or ""
        return {"type": "text", "text": text} if text.strip() else None
    if part.type == "image_url":
        return {"type": "image", "source": _source(part.image, failures)}
    if part.type == "file" and part.file is not None:
        block: Block = {"type": "document"}
        if part.file.file_id:
            block["source"] = {"type": "file", "file_id": part.file.file_id}
        else:
            block["source"] = _source(part.file.file_data or "", failures)
        if part.file.filename:
            block["title"] = part.file.filename
        return block
    raise cannot(f"read a part of the type '{part.type}'", "messages", failures)


def _source(url: str, failures: Failures) -> Block:
    """Where the bytes of an image or a document are: in the URL, or behind it for Anthropic."""
    if url[:8].lower().startswith(("https://", "http://")):
        return {"type": "url", "url": url}
    head = _DATA_URL.match(url)
    if head is None:
        raise failures.unsendable(
            "An image or a file has to be an https: URL, or a data: URL with a media type and"
            " base64.",
            "messages",
        )
    return {"type": "base64", "media_type": head[1].lower(), "data": url[head.end() :]}


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


def _tool_choice(chat: Chat, failures: Failures) -> Block | None:
    """Which tools must or may be called; nothing to say without tools or wishes."""
    wish = chat.tool_choice
    if isinstance(wish, NamedTool):
        choice: Block = {"type": "tool", "name": wish.function.name}
    elif wish is None or wish in _TOOL_CHOICES:
        choice = {"type": _TOOL_CHOICES[wish or "auto"]}
    else:
        raise cannot(f"choose tools by '{wish}'", "tool_choice", failures)
    one_at_a_time = chat.parallel_tool_calls is False and choice["type"] != "none"
    if one_at_a_time:
        choice["disable_parallel_tool_use"] = True
    if not chat.tools or (wish is None and not one_at_a_time):
        return None
    return choice


def _service_tier(tier: str, failures: Failures) -> str:
    """`auto` uses priority capacity where the account has some."""
    if tier not in _SERVICE_TIERS:
        raise cannot(f"serve the tier '{tier}'", "service_tier", failures)
    return _SERVICE_TIERS[tier]


def _shape(chat: Chat, output: dict[str, Any], failures: Failures, *, drop: bool) -> None:
    """A JSON schema for the answer; JSON without one is nothing that Anthropic can promise."""
    wish = chat.response_format
    if wish is None or wish.type == "text":
        return
    if wish.type == "json_schema" and wish.json_schema is not None:
        output["format"] = {"type": "json_schema", "schema": wish.json_schema.schema}
    elif not drop:
        raise failures.unsendable(
            f"{failures.provider} answers in JSON by a schema only: send 'response_format' of the"
            " type 'json_schema', or set 'drop_params' to true to have it left out.",
            "response_format",
        )


def _think(
    chat: Chat,
    effort: str,
    engine: str,
    body: dict[str, Any],
    output: dict[str, Any],
    failures: Failures,
    *,
    drop: bool,
) -> None:
    """`reasoning_effort` in the model's own words.

    Claude 4.6 and later, and unknown models, think as much as they find fit for an effort; earlier
    ones need a budget of 1024 tokens or more within `max_tokens` (docs: Extended thinking). In the
    middle of a row of tool calls those cannot begin to think: then they go on without.
    """
    if effort == "none":
        if takes_effort(engine):
            body["thinking"] = {"type": "disabled"}
    elif effort not in _EFFORTS:
        if not drop:
            raise cannot(f"think with the effort '{effort}'", "reasoning_effort", failures)
    elif takes_effort(engine):
        body["thinking"] = {"type": "adaptive", "display": "summarized"}
        output["effort"] = _EFFORTS[effort]
    elif _may_begin_to_think(chat.messages):
        limit = int(body["max_tokens"])
        if limit > SMALLEST_BUDGET:
            budget = max(limit * _SHARES[effort] // 100, SMALLEST_BUDGET)
            body["thinking"] = {"type": "enabled", "budget_tokens": budget}
        elif not drop:
            raise failures.unsendable(
                f"{engine} needs 'max_tokens' above {SMALLEST_BUDGET} to think: raise it, or leave"
                " 'reasoning_effort' out.",
                "reasoning_effort",
            )


def takes_effort(engine: str) -> bool:
    """Whether a model thinks by effort (`adaptive`), and not by a budget of tokens."""
    version = _VERSION.search(engine)
    if version is None:
        return "claude-instant" not in engine
    return (int(version[1]), int(version[2] or 0)) >= _FIRST_ADAPTIVE


def _may_begin_to_think(messages: list[Message]) -> bool:
    """Not where results of calls are given back without the thoughts that came before the calls."""
    for message in reversed(messages):
        if message.role == "assistant":
            return any(_is_signed(block) for block in message.thinking_blocks or ())
        if message.role != "tool":
            return True
    return True


def _fields(raw: Raw | None, param: str, failures: Failures) -> Mapping[str, Any]:
    """The fields of an object as they were written; null is none."""
    if raw is None or bytes(raw) in (b"", b"null"):
        return {}
    try:
        return _decode_fields(raw)
    except NOT_AS_ASKED as error:
        raise failures.unsendable(f"'{param}' has to hold a JSON object.", param) from error
