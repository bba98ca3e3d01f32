"""A chat as Ollama's `/api/chat` wants it asked (docs.ollama.com/api/chat)."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from workers.asked import Chat, Message, ToolCall, cannot
from workers.failures import Failures
from workers.images import Image
from workers.providers.base import NOT_AS_ASKED, Ask

_NATIVE = frozenset({"format", "keep_alive", "think"})
CHAT_TAKES = _NATIVE | {
    "frequency_penalty",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "options",
    "presence_penalty",
    "reasoning_effort",
    "response_format",
    "seed",
    "stop",
    "temperature",
    "tool_choice",
    "tools",
    "top_k",
    "top_logprobs",
    "top_p",
}
_THINK: dict[str, bool | str] = {
    "none": False,
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
}

_encode = msgspec.json.Encoder().encode
_decode_object = msgspec.json.Decoder(dict[str, Raw]).decode


def image_urls(chat: Chat) -> list[str]:
    """The images of a chat: Ollama takes bytes alone, so that they have to be there first."""
    return [url for message in chat.messages for url in _image_urls(message)]


def chat_body(
    ask: Ask,
    chat: Chat,
    given: Mapping[str, Raw],
    images: Mapping[str, Image],
    failures: Failures,
    *,
    drop: bool,
) -> bytes:
    """The request; `images` are those of the chat by their URLs."""
    wished = {
        "tools": _tools(chat, failures, drop=drop),
        "format": _format(chat, failures),
        "think": _think(chat.reasoning_effort, failures),
        "logprobs": chat.logprobs or None,
        "top_logprobs": chat.top_logprobs or None,
        "options": _options(chat, given, failures) or None,
    }
    names = {
        call.id: call.function.name
        for message in chat.messages
        for call in message.tool_calls or ()
        if call.id
    }
    return _encode(
        {
            "model": ask.engine or ask.model,
            "messages": [_message(message, names, images, failures) for message in chat.messages],
            "stream": ask.stream,
            **{name: value for name, value in wished.items() if value is not None},
            **{name: raw for name, raw in given.items() if name in _NATIVE},
        }
    )


def _image_urls(message: Message) -> list[str]:
    return [part.image for part in message.parts if part.type == "image_url" and part.image]


def _options(chat: Chat, given: Mapping[str, Raw], failures: Failures) -> dict[str, Any]:
    """The model's settings. What OpenAI's API has a name for counts more than Ollama's `options`:
    money is held for that limit of tokens."""
    try:
        native = _decode_object(given.get("options", b"{}"))
    except NOT_AS_ASKED as error:
        raise cannot("take 'options' that are no JSON object", "options", failures) from error
    mapped = {
        "num_predict": chat.limit,
        "temperature": chat.temperature,
        "top_p": chat.top_p,
        "top_k": chat.top_k,
        "stop": chat.stops or None,
        "seed": chat.seed,
        "frequency_penalty": chat.frequency_penalty,
        "presence_penalty": chat.presence_penalty,
    }
    return {**native, **{name: value for name, value in mapped.items() if value is not None}}


def _message(
    message: Message, names: Mapping[str, str], images: Mapping[str, Image], failures: Failures
) -> dict[str, Any]:
    """A tool's result goes by the name of its tool, its text and images are apart."""
    role = "system" if message.role == "developer" else message.role
    if role not in ("system", "user", "assistant", "tool"):
        raise cannot(f"take a message with the role '{role}'", "messages", failures)
    for part in message.parts:
        if part.type not in ("text", "refusal") and not (part.type == "image_url" and part.image):
            raise cannot(f"read a part of the type '{part.type}'", "messages", failures)
    text = "".join([part.text or part.refusal or "" for part in message.parts])
    shown: dict[str, Any] = {"role": role, "content": text or message.refusal or ""}
    if seen := [images[url].data for url in _image_urls(message)]:
        shown["images"] = seen
    if message.reasoning_content:
        shown["thinking"] = message.reasoning_content
    if message.tool_calls:
        shown["tool_calls"] = [_call(call, failures) for call in message.tool_calls]
    if role == "tool":
        name = message.name or names.get(message.tool_call_id or "")
        if name:
            shown["tool_name"] = name
        if message.tool_call_id:
            shown["tool_call_id"] = message.tool_call_id
    return shown


def _call(call: ToolCall, failures: Failures) -> dict[str, Any]:
    try:
        arguments = _decode_object(call.function.arguments or "{}")
    except NOT_AS_ASKED as error:
        what = f"take a call of '{call.function.name}' whose arguments are no JSON object"
        raise cannot(what, "messages", failures) from error
    function = {"name": call.function.name, "arguments": arguments}
    return {"id": call.id, "function": function} if call.id else {"function": function}


def _tools(chat: Chat, failures: Failures, *, drop: bool) -> list[dict[str, Any]] | None:
    """The tools that are offered: none if none shall be called. Ollama cannot be told more."""
    if chat.tool_choice not in (None, "auto", "none") and not drop:
        raise cannot(
            "be told which tool to call: 'tool_choice' may be 'auto' or 'none'",
            "tool_choice",
            failures,
        )
    if chat.tool_choice == "none":
        return None
    shown: list[dict[str, Any]] = []
    for tool in chat.tools or ():
        if tool.type != "function":
            raise cannot(f"call a tool of the type '{tool.type}'", "tools", failures)
        function: dict[str, Any] = {"name": tool.function.name}
        if tool.function.description is not None:
            function["description"] = tool.function.description
        function["parameters"] = tool.function.parameters
        shown.append({"type": "function", "function": function})
    return shown or None


def _format(chat: Chat, failures: Failures) -> Raw | str | None:
    wished = chat.response_format
    if wished is None or wished.type == "text":
        return None
    if wished.type == "json_object":
        return "json"
    if wished.type == "json_schema" and wished.json_schema is not None:
        return wished.json_schema.schema
    raise cannot(f"answer in the format '{wished.type}'", "response_format", failures)


def _think(effort: str | None, failures: Failures) -> bool | str | None:
    """As Ollama's own OpenAI-compatible door does it: three levels, or not at all."""
    if effort is None:
        return None
    if effort not in _THINK:
        raise cannot(f"reason with the effort '{effort}'", "reasoning_effort", failures)
    return _THINK[effort]
