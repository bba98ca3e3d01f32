"""A client's chat in the words of Bedrock's Converse and ConverseStream.

Source: docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html, and the model of
the service in botocore.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Raw

from workers.asked import Chat, Message, NamedTool, Part, Tool, ToolCall, cannot, read_chat
from workers.failures import Failures
from workers.http import Http
from workers.images import Image, from_data_url, images_of
from workers.providers.base import NOT_AS_ASKED, Ask

Block = dict[str, Any]

SMALLEST_BUDGET = 1024
_NATIVE = frozenset(
    {
        "additionalModelResponseFieldPaths",
        "guardrailConfig",
        "performanceConfig",
        "promptVariables",
        "requestMetadata",
        "serviceTier",
    }
)
_TAKES = _NATIVE | {
    "additionalModelRequestFields",
    "max_completion_tokens",
    "max_tokens",
    "outputConfig",
    "response_format",
    "service_tier",
    "stop",
    "temperature",
    "tool_choice",
    "tools",
    "top_p",
}
_CLAUDE_TAKES = frozenset({"reasoning_effort", "thinking", "top_k"})
_IMAGES = frozenset({"png", "jpeg", "gif", "webp"})
_DOCUMENTS = {
    "application/msword": "doc",
    "application/pdf": "pdf",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "text/csv": "csv",
    "text/html": "html",
    "text/markdown": "md",
    "text/plain": "txt",
}
_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_.:-]")
_NOT_IN_NAMES = re.compile(r"[^0-9A-Za-z()\[\]-]+")
_TIERS = frozenset({"default", "flex", "priority", "reserved"})
# Claude before 4.6 thinks within so many tokens, later ones by effort.
_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 32768}
_EFFORTS = {"minimal": "low", **{name: name for name in ("low", "medium", "high", "xhigh", "max")}}
_VERSION = re.compile(r"claude-(?:[a-z]+-)*(\d{1,2})(?:[-.](\d{1,2}))?(?!\d)")
_FIRST_BY_EFFORT = (4, 6)

_encode = msgspec.json.Encoder().encode
_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode


async def converse_request(
    ask: Ask, engine: str, http: Http, failures: Failures, *, drop: bool, private: bool
) -> bytes:
    """The body for `/converse` and `/converse-stream`; images are fetched, `private` as images_of.

    Bedrock's own fields go on as they are, and win over ours. Raises AttemptFailed (400) for what
    cannot be said.
    """
    chat, given = read_chat(ask, _takes(engine), failures, drop=drop)
    drop = drop or bytes(given.get("drop_params", b"")) == b"true"
    parts = [part for message in chat.messages for part in message.parts]
    urls = [part.image for part in parts if part.type == "image_url"]
    images = await images_of(urls, http, failures, private=private) if urls else {}
    body = _Conversation(images, failures).told(chat.messages)
    inference = _inference(chat)
    if inference:
        body["inferenceConfig"] = inference
    tools = _tool_config(chat, failures)
    if tools:
        body["toolConfig"] = tools
    if chat.service_tier in _TIERS:
        body["serviceTier"] = {"type": chat.service_tier}
    elif chat.service_tier not in (None, "auto") and not drop:
        raise cannot(f"take '{chat.service_tier}' as 'service_tier'", "service_tier", failures)
    output = _text_format(chat, failures, drop=drop)
    own = ("thinking", "top_k") if _is_claude(engine) else ()
    more: Block = {name: given[name] for name in own if name in given}
    if chat.reasoning_effort is not None and "reasoning_effort" in _takes(engine):
        _think(chat, engine, more, output, failures, drop=drop)
    for name, ours in (("outputConfig", output), ("additionalModelRequestFields", more)):
        merged = {**ours, **_fields(given, name, failures)}
        if merged:
            body[name] = merged
    body |= {name: given[name] for name in _NATIVE if name in given}
    return _encode(body)


def _takes(engine: str) -> frozenset[str]:
    if _is_claude(engine):
        return _TAKES | _CLAUDE_TAKES
    return _TAKES | {"reasoning_effort"} if "openai." in engine else _TAKES


def _is_claude(engine: str) -> bool:
    return "claude" in engine


def _inference(chat: Chat) -> Block:
    fields = {
        "maxTokens": chat.limit,
        "temperature": chat.temperature,
        "topP": chat.top_p,
        "stopSequences": chat.stops or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


class _Conversation:
    """Messages as Converse wants them: roles take turns, results of tools are the user's."""

    def __init__(self, images: Mapping[str, Image], failures: Failures) -> None:
        self._images = images
        self._failures = failures
        self._system: list[Block] = []
        self._turns: list[Block] = []
        self._documents = 0

    def told(self, messages: Iterable[Message]) -> Block:
        """The fields `messages` and `system`."""
        for message in messages:
            self._add(message)
        told: Block = {"messages": self._turns}
        return {**told, "system": self._system} if self._system else told

    def _add(self, message: Message) -> None:
        if message.role in ("system", "developer"):
            self._system += self._content(message, text_only=True)
        elif message.role == "user":
            self._turn("user", self._content(message))
        elif message.role == "assistant":
            thoughts = [_thought(block) for block in message.thinking_blocks or ()]
            calls = [self._call(call) for call in message.tool_calls or ()]
            shown = [block for block in thoughts if block]
            self._turn("assistant", [*shown, *self._content(message), *calls])
        elif message.role == "tool":
            self._turn("user", self._result(message))
        else:
            raise cannot(f"take messages of the role '{message.role}'", "messages", self._failures)

    def _turn(self, role: str, blocks: list[Block]) -> None:
        if self._turns and self._turns[-1]["role"] == role:
            self._turns[-1]["content"] += blocks
        elif blocks:
            self._turns.append({"role": role, "content": blocks})

    def _content(self, message: Message, *, text_only: bool = False) -> list[Block]:
        blocks: list[Block] = []
        for part in message.parts:
            if text_only and part.type != "text":
                what = f"take parts of the type '{part.type}' in messages of the system"
                raise cannot(what, "messages", self._failures)
            blocks += self._block(part)
            blocks += _cache_point(part.cache_control)
        if message.refusal:
            blocks.append({"text": message.refusal})
        return blocks + _cache_point(message.cache_control)

    def _block(self, part: Part) -> list[Block]:
        """One block, or none for a text that is blank, which Bedrock refuses."""
        if part.type in ("text", "refusal"):
            text = part.text or part.refusal or ""
            return [{"text": text}] if text.strip() else []
        if part.type == "image_url":
            return [{"image": self._image(self._images[part.image])}]
        if part.type == "file":
            return [{"document": self._document(part)}]
        if part.type == "input_audio" and part.input_audio:
            audio = part.input_audio
            return [{"audio": {"format": audio.format, "source": {"bytes": audio.data}}}]
        raise cannot(f"take parts of the type '{part.type}'", "messages", self._failures)

    def _image(self, image: Image) -> Block:
        kind = image.media_type.removeprefix("image/")
        if kind not in _IMAGES:
            what = f"take images of the type '{image.media_type}', only PNG, JPEG, GIF and WebP"
            raise cannot(what, "messages", self._failures)
        return {"format": kind, "source": {"bytes": image.data}}

    def _document(self, part: Part) -> Block:
        """A document needs a name of plain characters that no other has."""
        file = part.file
        if file is None or not file.file_data or not file.file_data.startswith("data:"):
            what = "take files but as 'file_data' with a data: URL"
            raise cannot(what, "messages", self._failures)
        media_type, data = from_data_url(file.file_data, self._failures)
        if media_type not in _DOCUMENTS:
            raise cannot(f"take files of the type '{media_type}'", "messages", self._failures)
        self._documents += 1
        stem = (file.filename or "").rpartition(".")[0] or file.filename or ""
        name = _NOT_IN_NAMES.sub(" ", stem).strip()[:150] or "document"
        number = f" {self._documents}" if self._documents > 1 else ""
        return {
            "format": _DOCUMENTS[media_type],
            "name": name + number,
            "source": {"bytes": data},
        }

    def _call(self, call: ToolCall) -> Block:
        name, arguments = call.function.name, call.function.arguments or "{}"
        try:
            _decode_fields(arguments)
        except NOT_AS_ASKED as error:
            what = f"take the call '{call.id}': its arguments are not a JSON object"
            raise cannot(what, "messages", self._failures) from error
        use = {"toolUseId": _tool_id(call.id), "name": name, "input": Raw(arguments.encode())}
        return {"toolUse": use}

    def _result(self, message: Message) -> list[Block]:
        """A cache point follows the result, whichever part of it has the mark."""
        content = [block for part in message.parts for block in self._block(part)]
        marks = [message.cache_control, *(part.cache_control for part in message.parts)]
        mark = next((mark for mark in marks if mark), None)
        result = {"toolUseId": _tool_id(message.tool_call_id), "content": content}
        return [{"toolResult": result}, *_cache_point(mark)]


def _tool_id(given: str | None) -> str:
    """Another provider may have made the id: of 64 characters at most, and not of all."""
    return _NOT_IN_IDS.sub("_", given or "")[:64]


def _cache_point(mark: Mapping[str, Any] | None) -> list[Block]:
    """What stands before it is cached, for 5 minutes or as long as the mark says."""
    if not mark:
        return []
    point = {"type": "default"}
    if mark.get("ttl"):
        point["ttl"] = mark["ttl"]
    return [{"cachePoint": point}]


def _thought(block: Mapping[str, Any]) -> Block:
    """A thought that is given back; nothing for one without a signature, which nobody checks."""
    if block.get("type") == "redacted_thinking":
        return {"reasoningContent": {"redactedContent": block.get("data", "")}}
    if not block.get("signature"):
        return {}
    text = {"text": block.get("thinking", ""), "signature": block["signature"]}
    return {"reasoningContent": {"reasoningText": text}}


def _tool_config(chat: Chat, failures: Failures) -> Block:
    """Converse knows no choice of `none`: then the tools are left out. Where earlier calls are
    among the messages Bedrock insists on them, so they stay, and the model might call one."""
    earlier = any(message.role == "tool" or message.tool_calls for message in chat.messages)
    choice = chat.tool_choice
    if not chat.tools or (choice == "none" and not earlier):
        return {}
    config: Block = {"tools": [spec for tool in chat.tools for spec in _specs(tool, failures)]}
    if isinstance(choice, NamedTool):
        config["toolChoice"] = {"tool": {"name": choice.function.name}}
    elif choice == "required":
        config["toolChoice"] = {"any": {}}
    elif choice == "auto":
        config["toolChoice"] = {"auto": {}}
    elif choice not in (None, "none"):
        raise cannot(f"choose tools by '{choice}'", "tool_choice", failures)
    return config


def _specs(tool: Tool, failures: Failures) -> list[Block]:
    if tool.type != "function":
        raise cannot(f"take tools of the type '{tool.type}'", "tools", failures)
    function = tool.function
    schema: Any = function.parameters
    if bytes(schema) in (b"{}", b"null"):
        schema = {"type": "object", "properties": {}}
    spec: Block = {"name": function.name, "inputSchema": {"json": schema}}
    if function.description:
        spec["description"] = function.description
    if function.strict is not None:
        spec["strict"] = function.strict
    return [{"toolSpec": spec}, *_cache_point(tool.cache_control)]


def _text_format(chat: Chat, failures: Failures, *, drop: bool) -> Block:
    """`response_format` as outputConfig; its schema is JSON inside a string."""
    wanted = chat.response_format
    if wanted is None or wanted.type == "text":
        return {}
    if wanted.type != "json_schema" or wanted.json_schema is None:
        if drop:
            return {}
        raise failures.unsendable(
            f"{failures.provider} answers in JSON by a schema only: send 'response_format' of the"
            " type 'json_schema', or set 'drop_params' to true to have it left out.",
            "response_format",
        )
    asked = wanted.json_schema
    definition = {"schema": bytes(asked.schema).decode(), "name": asked.name}
    if asked.description:
        definition["description"] = asked.description
    structure = {"jsonSchema": definition}
    return {"textFormat": {"type": "json_schema", "structure": structure}}


def _think(
    chat: Chat, engine: str, more: Block, output: Block, failures: Failures, *, drop: bool
) -> None:
    """`reasoning_effort` in the model's own words.

    Claude 4.6 and later think by effort, earlier ones within a budget of 1024 tokens or more that
    is less than the limit of the output (Anthropic's docs: Extended thinking); OpenAI's open models
    take the parameter as it is.
    """
    effort = chat.reasoning_effort or "none"
    if not _is_claude(engine):
        more["reasoning_effort"] = effort
        return
    if effort == "none":
        return
    if effort not in _EFFORTS:
        if not drop:
            raise cannot(f"take '{effort}' as 'reasoning_effort'", "reasoning_effort", failures)
        return
    if _by_effort(engine):
        more.setdefault("thinking", {"type": "adaptive"})
        output["effort"] = _EFFORTS[effort]
        return
    budget = _BUDGETS.get(effort, _BUDGETS["xhigh"])
    if chat.limit is not None:
        budget = min(budget, chat.limit - 1)
    if budget >= SMALLEST_BUDGET:
        more.setdefault("thinking", {"type": "enabled", "budget_tokens": budget})
    elif not drop:
        raise failures.unsendable(
            f"{engine} needs 'max_tokens' above {SMALLEST_BUDGET} to think: raise it, or leave"
            " 'reasoning_effort' out.",
            "reasoning_effort",
        )


def _by_effort(engine: str) -> bool:
    version = _VERSION.search(engine)
    return version is None or (int(version[1]), int(version[2] or 0)) >= _FIRST_BY_EFFORT


def _fields(given: Mapping[str, Raw], name: str, failures: Failures) -> Mapping[str, Raw]:
    """The fields of an object that the client gave in Bedrock's own words."""
    try:
        return _decode_fields(given.get(name, b"{}"))
    except NOT_AS_ASKED as error:
        raise failures.unsendable(f"'{name}' must be a JSON object.", name) from error
