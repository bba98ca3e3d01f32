"""A chat as Cohere's API v2 wants it asked (docs.cohere.com/v2/reference/chat)."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from workers.asked import Chat, Message, NamedTool, Part, cannot
from workers.failures import Failures
from workers.providers.base import NOT_AS_ASKED, Ask
from workers.translated import tool_call

_NATIVE = frozenset(
    {
        "citation_options",
        "documents",
        "k",
        "p",
        "priority",
        "safety_mode",
        "strict_tools",
        "thinking",
    }
)
CHAT_TAKES = _NATIVE | {
    "frequency_penalty",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "presence_penalty",
    "reasoning_effort",
    "response_format",
    "seed",
    "stop",
    "temperature",
    "tool_choice",
    "tools",
    "top_k",
    "top_p",
}
_TOOL_CHOICES = {"auto": None, "none": "NONE", "required": "REQUIRED"}
# Tokens that the model may think for; None is as long as it wants.
_BUDGETS = {"minimal": 512, "low": 1024, "medium": 4096, "high": None, "xhigh": None, "max": None}

_encode = msgspec.json.Encoder().encode
_decode_object = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_objects = msgspec.json.Decoder(list[dict[str, Raw]]).decode


def chat_body(ask: Ask, chat: Chat, given: Mapping[str, Raw], failures: Failures) -> bytes:
    tools, choice = _tools(chat, failures)
    wished = {
        "tools": tools,
        "tool_choice": choice,
        "strict_tools": any(tool.function.strict for tool in chat.tools or ()) or None,
        "max_tokens": chat.limit,
        "stop_sequences": chat.stops or None,
        "temperature": chat.temperature,
        "p": chat.top_p,
        "k": chat.top_k,
        "seed": chat.seed,
        "frequency_penalty": chat.frequency_penalty,
        "presence_penalty": chat.presence_penalty,
        "logprobs": chat.logprobs or None,
        "response_format": _response_format(chat, failures),
        "thinking": _thinking(chat.reasoning_effort, failures),
    }
    return _encode(
        {
            "model": ask.engine or ask.model,
            "messages": [_message(message, failures) for message in chat.messages],
            "stream": ask.stream,
            **{name: value for name, value in wished.items() if value is not None},
            **{name: raw for name, raw in given.items() if name in _NATIVE},
        }
    )


def _message(message: Message, failures: Failures) -> dict[str, Any]:
    if message.role in ("system", "developer"):
        return {"role": "system", "content": _text(message, failures)}
    if message.role == "user":
        if isinstance(message.content, str):
            return {"role": "user", "content": message.content}
        return {"role": "user", "content": [_part(part, failures) for part in message.parts]}
    if message.role == "assistant":
        return _assistant(message, _text(message, failures) or message.refusal or "")
    if message.role == "tool" and message.tool_call_id:
        documents = [
            {"type": "document", "document": {"data": data}}
            for data in _results(_text(message, failures))
        ]
        return {"role": "tool", "tool_call_id": message.tool_call_id, "content": documents}
    if message.role == "tool":
        raise cannot("take a tool's result without its 'tool_call_id'", "messages", failures)
    raise cannot(f"take a message with the role '{message.role}'", "messages", failures)


def _text(message: Message, failures: Failures) -> str:
    """What a message says that may hold text alone."""
    for part in message.parts:
        if part.type not in ("text", "refusal"):
            what = f"read a part of the type '{part.type}' in a message of the {message.role}"
            raise cannot(what, "messages", failures)
    return "".join([part.text or part.refusal or "" for part in message.parts])


def _part(part: Part, failures: Failures) -> dict[str, Any]:
    """Cohere fetches remote images by itself."""
    if part.type == "text":
        return {"type": "text", "text": part.text or ""}
    if part.type == "image_url" and part.image:
        detail = getattr(part.image_url, "detail", None)
        image = {"url": part.image, **({"detail": detail} if detail else {})}
        return {"type": "image_url", "image_url": image}
    raise cannot(f"read a part of the type '{part.type}'", "messages", failures)


def _assistant(message: Message, text: str) -> dict[str, Any]:
    """What was thought before tools were called is their plan, else a part of the content."""
    shown: dict[str, Any] = {"role": "assistant"}
    thought = message.reasoning_content
    if message.tool_calls:
        shown["tool_calls"] = [
            tool_call(call.id, call.function.name, call.function.arguments or "{}")
            for call in message.tool_calls
        ]
        if thought:
            shown["tool_plan"] = thought
    elif thought:
        shown["content"] = [{"type": "thinking", "thinking": thought}]
        if text:
            shown["content"].append({"type": "text", "text": text})
        return shown
    if text or not message.tool_calls:
        shown["content"] = text
    return shown


def _results(text: str) -> list[Any]:
    """A tool's result as the data of documents, which the model can cite: a JSON object is one, a
    list of them so many, and any other text is the text of one."""
    for read in (_decode_objects, lambda said: [_decode_object(said)]):
        try:
            return read(text) or [{"text": text}]
        except NOT_AS_ASKED:
            continue
    return [{"text": text}]


def _tools(chat: Chat, failures: Failures) -> tuple[list[dict[str, Any]] | None, str | None]:
    """The tools and whether one must be called. Cohere cannot be told which: where one is named,
    it is the only one that is offered."""
    tools, choice = chat.tools or [], chat.tool_choice
    named = choice.function.name if isinstance(choice, NamedTool) else None
    if named is not None:
        tools = [tool for tool in tools if tool.function.name == named]
        if not tools:
            raise cannot(f"call '{named}', which is none of the tools", "tool_choice", failures)
    elif choice is not None and choice not in _TOOL_CHOICES:
        raise cannot(f"choose tools by '{choice}'", "tool_choice", failures)
    shown: list[dict[str, Any]] = []
    for tool in tools:
        if tool.type != "function":
            raise cannot(f"call a tool of the type '{tool.type}'", "tools", failures)
        function: dict[str, Any] = {"name": tool.function.name}
        if tool.function.description is not None:
            function["description"] = tool.function.description
        function["parameters"] = tool.function.parameters
        shown.append({"type": "function", "function": function})
    must = "REQUIRED" if named is not None else _TOOL_CHOICES[str(choice or "auto")]
    return shown or None, must


def _response_format(chat: Chat, failures: Failures) -> dict[str, Any] | None:
    wished = chat.response_format
    if wished is None or wished.type == "text":
        return None
    if wished.type == "json_object":
        return {"type": "json_object"}
    if wished.type == "json_schema" and wished.json_schema is not None:
        return {"type": "json_object", "json_schema": wished.json_schema.schema}
    raise cannot(f"answer in the format '{wished.type}'", "response_format", failures)


def _thinking(effort: str | None, failures: Failures) -> dict[str, Any] | None:
    if effort is None:
        return None
    if effort == "none":
        return {"type": "disabled"}
    if effort not in _BUDGETS:
        raise cannot(f"reason with the effort '{effort}'", "reasoning_effort", failures)
    budget = _BUDGETS[effort]
    return {"type": "enabled", **({"token_budget": budget} if budget else {})}
