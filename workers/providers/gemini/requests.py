"""Chats as the Gemini API asks for them (ai.google.dev/api/generate-content)."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from workers.asked import Chat, Function, NamedTool, cannot
from workers.failures import Failures
from workers.images import Image
from workers.providers.base import NOT_AS_ASKED, Ask
from workers.providers.gemini.turns import Turns

# Parameters that go into the request as they were written, by either spelling of Google's.
_NATIVE = {
    "cachedContent": "cachedContent",
    "cached_content": "cachedContent",
    "labels": "labels",
    "safetySettings": "safetySettings",
    "safety_settings": "safetySettings",
}
TAKES = frozenset(
    {
        "frequency_penalty",
        "generationConfig",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "modalities",
        "n",
        "presence_penalty",
        "reasoning_effort",
        "response_format",
        "seed",
        "stop",
        "temperature",
        "toolConfig",
        "tool_choice",
        "tools",
        "top_k",
        "top_logprobs",
        "top_p",
        *_NATIVE,
    }
)

_MODES = {"auto": "AUTO", "required": "ANY", "none": "NONE"}
# What Google's own OpenAI endpoint makes of the efforts (ai.google.dev/gemini-api/docs/openai).
_BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24_576}
_LEAST_OF_PRO = 128
_LEVELS = {"none": "MINIMAL", "minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM"}
_EFFORTS = frozenset({*_BUDGETS, "xhigh"})
_NEWEST = (999, 0)
_SAYS_NOTHING = frozenset({b"{}", b"null"})
_NAMED = re.compile(r"gemini-(\d{1,3})(?:\.(\d{1,3}))?", re.ASCII)

_encode = msgspec.json.Encoder().encode
_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_strings = msgspec.json.Decoder(list[str]).decode


class _Family(NamedTuple):
    """What a model's name tells; a name without a version is taken for the newest. Gemma takes no
    system instruction and does not think."""

    version: tuple[int, int]
    pro: bool
    is_gemma: bool = False

    @property
    def thinks_by_level(self) -> bool:
        return self.version >= (3, 0)


class _Tools(msgspec.Struct):
    tools: list[dict[str, Raw]] | None = None


_decode_tools = msgspec.json.Decoder(_Tools).decode


def split_tools(ask: Ask) -> tuple[Ask, list[dict[str, Raw]]]:
    """The ask with functions as its only tools, and the tools that are Google's own beside them,
    such as `{"googleSearch": {}}`."""
    if b'"tools"' not in ask.body:
        return ask, []
    try:
        tools = _decode_tools(ask.body).tools or []
    except NOT_AS_ASKED:
        return ask, []
    own = [tool for tool in tools if "function" not in tool and "type" not in tool]
    if not own:
        return ask, []
    fields = _decode_fields(ask.body)
    fields["tools"] = Raw(_encode([tool for tool in tools if tool not in own]))
    return ask._replace(body=_encode(fields)), own


def generate_body(
    chat: Chat,
    given: Mapping[str, Raw],
    own_tools: list[dict[str, Raw]],
    images: Mapping[str, Image],
    engine: str,
    failures: Failures,
    *,
    vertex: bool,
    drop: bool,
) -> bytes:
    """The body of generateContent, with Google's `own_tools` beside the functions.

    With `drop` an effort is left out where the model cannot think. Raises AttemptFailed (400) for
    what cannot be said in it.
    """
    family = _family(engine)
    turns = Turns(images, failures, vertex=vertex, signed=family.thinks_by_level)
    system, contents = turns.of(chat.messages)
    body: dict[str, Any] = {"contents": contents}
    if system and family.is_gemma:
        contents.insert(0, {"role": "user", "parts": system})
    elif system:
        body["systemInstruction"] = {"parts": system}
    functions = [_declaration(tool.function) for tool in chat.tools or ()]
    tools = [{"functionDeclarations": functions}] if functions else []
    if tools or own_tools:
        body["tools"] = [*tools, *own_tools]
    tool_config = _tool_config(chat, given, failures)
    if tool_config and body.get("tools"):
        body["toolConfig"] = tool_config
    config = _generation_config(chat, given, failures)
    if chat.reasoning_effort is not None:
        thinking = _thinking(chat.reasoning_effort, family, failures, drop=drop)
        if thinking:
            config["thinkingConfig"] = thinking
    if config:
        body["generationConfig"] = config
    body.update({_NATIVE[name]: given[name] for name in _NATIVE if name in given})
    return _encode(body)


def _declaration(function: Function) -> dict[str, Any]:
    declared: dict[str, Any] = {"name": function.name}
    if function.description:
        declared["description"] = function.description
    if bytes(function.parameters) not in _SAYS_NOTHING:
        declared["parametersJsonSchema"] = function.parameters
    return declared


def _tool_config(chat: Chat, given: Mapping[str, Raw], failures: Failures) -> dict[str, Any]:
    config: dict[str, Any] = _fields(given, "toolConfig", failures)
    if "functionCallingConfig" in config:
        calling = _fields(config, "functionCallingConfig", failures)
        # Pieces by JSON path are not how anyone else streams arguments.
        calling.pop("streamFunctionCallArguments", None)
        config["functionCallingConfig"] = calling
    choice = chat.tool_choice
    if isinstance(choice, NamedTool):
        name = choice.function.name
        config["functionCallingConfig"] = {"mode": "ANY", "allowedFunctionNames": [name]}
    elif choice in _MODES:
        config["functionCallingConfig"] = {"mode": _MODES[choice]}
    elif choice is not None:
        raise cannot(f"choose tools by '{choice}'", "tool_choice", failures)
    return config


def _generation_config(chat: Chat, given: Mapping[str, Raw], failures: Failures) -> dict[str, Any]:
    """Google's own settings, and over them those that every client knows: by `n` and the limit
    the call's money is held."""
    config: dict[str, Any] = _fields(given, "generationConfig", failures)
    for name in ("candidateCount", "candidate_count"):
        config.pop(name, None)
    said = {
        "maxOutputTokens": chat.limit,
        "temperature": chat.temperature,
        "topP": chat.top_p,
        "topK": chat.top_k,
        "stopSequences": chat.stops or None,
        "candidateCount": chat.n if chat.n != 1 else None,
        "seed": chat.seed,
        "presencePenalty": chat.presence_penalty,
        "frequencyPenalty": chat.frequency_penalty,
        "responseLogprobs": chat.logprobs or None,
        "logprobs": chat.top_logprobs or None if chat.logprobs else None,
    }
    if chat.limit is not None:
        config.pop("max_output_tokens", None)
    config.update({name: value for name, value in said.items() if value is not None})
    if "modalities" in given:
        config["responseModalities"] = _modalities(given["modalities"], failures)
    wanted = chat.response_format
    if wanted is None or wanted.type == "text":
        return config
    if wanted.type not in ("json_object", "json_schema"):
        raise cannot(f"answer in the format '{wanted.type}'", "response_format", failures)
    config["responseMimeType"] = "application/json"
    if wanted.json_schema is not None and bytes(wanted.json_schema.schema) not in _SAYS_NOTHING:
        config["responseJsonSchema"] = wanted.json_schema.schema
    return config


def _modalities(given: Raw, failures: Failures) -> list[str]:
    try:
        return [one.upper() for one in _decode_strings(given)]
    except NOT_AS_ASKED as error:
        raise failures.unsendable(
            "'modalities' has to be a list of names.", "modalities"
        ) from error


def _thinking(effort: str, family: _Family, failures: Failures, *, drop: bool) -> dict[str, Any]:
    """How much to think: by level since Gemini 3, by budget at 2.5, before that not at all.

    Where thinking cannot be turned off it is the least there is.
    """
    if drop and (effort not in _EFFORTS or family.version < (2, 5)):
        return {}
    if effort not in _EFFORTS:
        raise cannot(f"think with the effort '{effort}'", "reasoning_effort", failures)
    shown = effort != "none"
    if family.thinks_by_level:
        level = _LEVELS.get(effort, "HIGH")
        if family.pro and level == "MINIMAL":
            level = "LOW"
        if family.pro and family.version == (3, 0) and level == "MEDIUM":
            level = "HIGH"
        return {"thinkingLevel": level, "includeThoughts": shown}
    if family.version == (2, 5):
        budget = _BUDGETS.get(effort, _BUDGETS["high"])
        if family.pro:
            budget = max(budget, _LEAST_OF_PRO)
        return {"thinkingBudget": budget, "includeThoughts": shown}
    if shown:
        raise cannot("think before it answers with this model", "reasoning_effort", failures)
    return {}


@lru_cache(maxsize=1024)
def _family(engine: str) -> _Family:
    if "gemma" in engine:
        return _Family((0, 0), pro=False, is_gemma=True)
    named = _NAMED.search(engine)
    version = (int(named[1]), int(named[2] or 0)) if named else _NEWEST
    return _Family(version, "-pro" in engine)


def _fields(given: Mapping[str, Raw], name: str, failures: Failures) -> dict[str, Raw]:
    """A native parameter that is an object; empty if it is not there."""
    if name not in given:
        return {}
    try:
        return _decode_fields(given[name])
    except NOT_AS_ASKED as error:
        raise failures.unsendable(f"'{name}' has to be an object.", name) from error
