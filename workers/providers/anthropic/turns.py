"""A canonical conversation as Anthropic's Messages API takes it: a system prompt, and turns that
alternate between user and assistant.

Sources: platform.claude.com/docs (Messages API, Extended thinking, OpenAI compatibility) and the
request types of the `anthropic` package 2.11.
"""

import base64
import re
from typing import Any

import msgspec
from msgspec import Raw

from workers.asked import InputFile, Message, Part, ToolCall, cannot
from workers.failures import Failures
from workers.providers.base import NOT_AS_ASKED

Block = dict[str, Any]

_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_-]")
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;[^;,]+)*;base64,", re.ASCII | re.IGNORECASE)

_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode


def conversation(messages: list[Message], failures: Failures) -> tuple[list[Block], list[Block]]:
    """The blocks of the system prompt, and the turns. Raises AttemptFailed (400) for what they
    cannot hold.

    All system and developer messages become the system prompt in their order, wherever they stand,
    as in Anthropic's own OpenAI-compatible API: their place in the middle is kept by newer models
    only. Neighbours of one role become one turn. The result of a tool is part of a user's turn.
    """
    system: list[Block] = []
    turns: list[Block] = []
    for message in messages:
        blocks = _blocks(message, failures)
        if message.cache_control is not None and blocks:
            blocks[-1].setdefault("cache_control", message.cache_control)
        if message.role in ("system", "developer"):
            system += blocks
            continue
        role = "assistant" if message.role == "assistant" else "user"
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    return system, turns


def is_signed(block: Block) -> bool:
    """Whether Anthropic can verify a thought, and so takes it back; other vendors' are left out."""
    if block.get("type") == "redacted_thinking":
        return bool(block.get("data"))
    return block.get("type") == "thinking" and bool(block.get("signature"))


def _blocks(message: Message, failures: Failures) -> list[Block]:
    if message.role in ("system", "developer", "user"):
        return _parts(message, failures)
    if message.role == "assistant":
        return _said(message, failures)
    if message.role == "tool":
        return [_tool_result(message, failures)]
    raise cannot(f"read a message of the role '{message.role}'", "messages", failures)


def _said(message: Message, failures: Failures) -> list[Block]:
    """What the assistant said: signed thoughts have to stand before what came of them."""
    thoughts = [dict(block) for block in message.thinking_blocks or () if is_signed(block)]
    parts = _parts(message, failures)
    if not parts and message.refusal:
        parts = [{"type": "text", "text": message.refusal}]
    return [*thoughts, *parts, *(_tool_use(call, failures) for call in message.tool_calls or ())]


def _tool_use(call: ToolCall, failures: Failures) -> Block:
    try:
        arguments = _decode_fields(call.function.arguments.strip() or "{}")
    except NOT_AS_ASKED as error:
        raise failures.unsendable(
            f"The arguments of the tool call '{call.id}' have to be a JSON object.", "messages"
        ) from error
    return {
        "type": "tool_use",
        "id": _call_id(call.id),
        "name": call.function.name,
        "input": arguments,
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
    """Other vendors' ids of calls may hold what Anthropic refuses in one."""
    return _NOT_IN_IDS.sub("_", text)


def _parts(message: Message, failures: Failures) -> list[Block]:
    """The content in blocks. A text without a word is left out: Anthropic refuses it."""
    blocks: list[Block] = []
    for part in message.parts:
        block = _part(part, failures)
        if part.cache_control is not None:
            block["cache_control"] = part.cache_control
        if block["type"] != "text" or block["text"].strip():
            blocks.append(block)
    return blocks


def _part(part: Part, failures: Failures) -> Block:
    if part.type in ("text", "refusal"):
        return {"type": "text", "text": part.text or part.refusal or ""}
    if part.type == "image_url":
        return {"type": "image", "source": _source(part.image, failures)}
    if part.type == "file" and part.file is not None:
        return _document(part.file, failures)
    raise cannot(f"read a part of the type '{part.type}'", "messages", failures)


def _document(file: InputFile, failures: Failures) -> Block:
    """A file that Anthropic keeps, or has to fetch, or one that comes along: PDF or plain text."""
    if file.file_id:
        source: Block = {"type": "file", "file_id": file.file_id}
    else:
        source = _source(file.file_data or "", failures)
    if str(source.get("media_type")).startswith("text/"):
        source = {"type": "text", "media_type": "text/plain", "data": _text(source, failures)}
    named = {"title": file.filename} if file.filename else {}
    return {"type": "document", "source": source, **named}


def _source(url: str, failures: Failures) -> Block:
    """Where the bytes of an image or a document are: in the URL, or behind it for Anthropic."""
    if url[:8].lower().startswith(("https://", "http://")):
        return {"type": "url", "url": url}
    head = _DATA_URL.match(url)
    if head is None:
        raise failures.unsendable(
            "An image or a file has to be an https: URL,"
            " or a data: URL with its media type and base64.",
            "messages",
        )
    return {"type": "base64", "media_type": head[1].lower(), "data": url[head.end() :]}


def _text(source: Block, failures: Failures) -> str:
    try:
        return base64.b64decode(source["data"], validate=True).decode()
    except ValueError as error:
        raise failures.unsendable("A text file has to be UTF-8 in base64.", "messages") from error
