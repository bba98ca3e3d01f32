"""What each provider can do, found by asking its adapter: `python -m tests.contract.abilities`
writes the table of `docs/providers.md` anew.

The vendor is played by the stage of its contract. An ability works if what was asked for arrived
there in some form, and what comes out has it; a parameter that is neither sent nor refused is an
error here.
"""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from schemas.catalog import load_vendors
from schemas.ids import Clock
from schemas.usage import Usage
from tests.contract.anthropic_stage import AnthropicStage
from tests.contract.asking import PIXEL, Ability, Place, Seen, Subject
from tests.contract.bedrock_stage import BedrockStage
from tests.contract.cohere_stage import CohereStage
from tests.contract.gemini_stage import GeminiStage
from tests.contract.ollama_stage import OllamaStage
from tests.contract.openai_stage import OpenAIStage
from tests.contract.provider_contract import Scene
from tests.upstream import Upstream
from workers.http import Http

PAGE = Path(__file__).parents[2] / "docs" / "providers.md"
COMMAND = "python -m tests.contract.abilities"
_BEGIN, _END = "<!-- abilities -->\n", "<!-- /abilities -->"
WORKS, DROPPED, REFUSED, LOST = "works", "dropped", "refused", "LOST"
NOT_TOLD = "-"
_LEGEND = """
What each adapter was found to do, asked whole and streamed while the tests of its contract play the
vendor:

- *works*: what is asked for arrives at the vendor, and what it answers comes out
- *dropped*: a 400 that names the parameter before anything is sent, or left out with `drop_params`
- *refused*: such a 400 in any case
- -: the vendor does not tell these tokens apart; they are counted as plain input or output

A model may do less than its vendor's API. `mistral` stands for the vendors whose `quirks` say what
they lack, `litellm` for OpenAI's gpt-4o behind that library, which knows by itself what each vendor
and model takes.

"""

_MARK = "4242"
_TOOL, _OTHER_TOOL = "tool_4242", "another_tool"


def _function(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}


_TOOLS = [_function(_TOOL)]
_SCHEMA = {
    "type": "object",
    "properties": {f"field_{_MARK}": {"type": "string"}},
    "required": [f"field_{_MARK}"],
    "additionalProperties": False,
}
_THOUGHT = "Let me see."
_VECTORS = ((0.5, -0.25), (1.0, 2.0))


def _quirks_of(vendor: str) -> dict[str, Any]:
    return {"quirks": next(one.quirks for one in load_vendors() if one.name == vendor)}


_FETCHES = {"options": {"fetch_private": "true"}}
SUBJECTS = (
    Subject("openai", "openai", OpenAIStage, "gpt-4o", "text-embedding-3-small"),
    Subject("azure", "azure", OpenAIStage, "gpt-4o", "text-embedding-3-small"),
    Subject("anthropic", "anthropic", AnthropicStage, "claude-sonnet-4-5"),
    Subject("google", "gemini", GeminiStage, "gemini-2.5-flash", "gemini-embedding-001", _FETCHES),
    Subject(
        "vertex",
        "gemini",
        GeminiStage,
        "gemini-2.5-flash",
        "gemini-embedding-001",
        {
            "api_key": "",
            "options": {"project": "acme", "access_token": "ya29.x", "fetch_private": "true"},
        },
    ),
    Subject("cohere", "cohere", CohereStage, "command-a-03-2025", "embed-v4.0"),
    Subject(
        "bedrock",
        "bedrock",
        BedrockStage,
        "anthropic.claude-sonnet-4-5-20250929-v1:0",
        settings={"region": "us-east-1", **_FETCHES},
    ),
    Subject("ollama", "ollama", OllamaStage, "qwen3", "nomic-embed-text", _FETCHES),
    Subject(
        "mistral",
        "openai",
        OpenAIStage,
        "mistral-large-latest",
        "mistral-embed",
        _quirks_of("mistral"),
    ),
    Subject(
        "litellm",
        "litellm",
        OpenAIStage,
        "gpt-4o",
        "text-embedding-3-small",
        {"options": {"provider": "openai"}},
        "/v1",
    ),
)


def _arrives(mark: str = _MARK) -> Callable[[Seen], bool]:
    return lambda seen: mark in seen.sent and bool(seen.choices)


def _calls(count: int) -> Callable[[Seen], bool]:
    def shows(seen: Seen) -> bool:
        calls = seen.message.get("tool_calls", [])
        named = [call["function"]["name"] for call in calls] == [_TOOL] * count
        read = [json.loads(call["function"]["arguments"]) for call in calls]
        ids = {call["id"] for call in calls if call["id"]}
        ends = seen.choices[0]["finish_reason"] == "tool_calls"
        return named and all(read) and len(ids) == count and ends and _TOOL in seen.sent

    return shows


def _must_call(seen: Seen) -> bool:
    said = any(word in seen.sent for word in ('"required"', '"REQUIRED"', '"any"', '"ANY"'))
    return said and bool(seen.message["tool_calls"])


def _looks_at(url: str, *, remote: bool) -> dict[str, Any]:
    """A chat with an image; a remote one is at the scripted server."""
    parts = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    return {"messages": [{"role": "user", "content": parts}], "remote": remote}


def _asks_for(kind: str, **schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": kind, **schema}}


def _vectors(count: int) -> Callable[[Seen], bool]:
    return lambda seen: seen.data == [list(row) for row in _VECTORS[:count]]


def _embeds(**fields: Any) -> dict[str, Any]:
    return {"messages": None, "input": "Hello", **fields}


def _said_twice(seen: Seen) -> bool:
    return [bool(choice["message"]["content"]) for choice in seen.choices] == [True, True]


_STRUCTURED = {"name": "answer", "schema": _SCHEMA, "strict": True}
_EMBED: dict[str, Any] = {"scene": Scene(vectors=_VECTORS), "ways": ("embed",)}
ABILITIES = (
    Ability("chat", lambda seen: seen.message["content"] == "wörd0 wörd1 wörd2 ", ways=("whole",)),
    Ability("stream", lambda seen: seen.message["content"] == "wörd0 wörd1 wörd2 ",
            ways=("stream",)),
    Ability("tools", _calls(1), {"tools": _TOOLS}, Scene(tool=_TOOL), ("whole",)),
    Ability("tools, streamed", _calls(1), {"tools": _TOOLS}, Scene(tool=_TOOL), ("stream",)),
    Ability("several calls at once", _calls(2), {"tools": _TOOLS}, Scene(tool=_TOOL, calls=2)),
    Ability("`tool_choice` required", _must_call,
            {"tools": _TOOLS, "tool_choice": "required"}, Scene(tool=_TOOL)),
    Ability("`tool_choice` of one function",
            lambda seen: seen.sent.count(_TOOL) > 1 or _OTHER_TOOL not in seen.sent,
            {"tools": [*_TOOLS, _function(_OTHER_TOOL)],
             "tool_choice": {"type": "function", "function": {"name": _TOOL}}}, Scene(tool=_TOOL)),
    Ability("`parallel_tool_calls: false`",
            lambda seen: "parallel" in seen.sent,
            {"tools": _TOOLS, "parallel_tool_calls": False}, Scene(tool=_TOOL)),
    Ability("images as data", _arrives(PIXEL),
            _looks_at(f"data:image/png;base64,{PIXEL}", remote=False)),
    Ability("images by URL", lambda seen: PIXEL in seen.sent or "/pixel.png" in seen.sent,
            _looks_at("/pixel.png", remote=True)),
    Ability("JSON schema", _arrives(), _asks_for("json_schema", json_schema=_STRUCTURED)),
    Ability("JSON object", _arrives("json"), _asks_for("json_object")),
    Ability("reasoning shown", lambda seen: seen.message.get("reasoning_content") == _THOUGHT,
            scene=Scene(thinks=_THOUGHT)),
    Ability("`reasoning_effort`",
            lambda seen: any(word in seen.sent for word in ("effort", "hink")),
            {"reasoning_effort": "low"}),
    Ability("`logprobs`",
            lambda seen: seen.choices[0]["logprobs"]["content"][0]["token"] == "wörd0 ",
            {"logprobs": True}, Scene(logprobs=True)),
    Ability("`top_logprobs`", lambda seen: "ogprobs" in seen.sent,
            {"logprobs": True, "top_logprobs": 2}, Scene(logprobs=True)),
    Ability("`n` > 1", _said_twice, {"n": 2}, Scene(choices=2)),
    Ability("`max_completion_tokens`", _arrives(), {"max_completion_tokens": 4242}),
    Ability("`temperature`", _arrives("0.4242"), {"temperature": 0.4242}),
    Ability("`top_p`", _arrives("0.4242"), {"top_p": 0.4242}),
    Ability("`stop`", _arrives(), {"stop": [f"END-{_MARK}"]}),
    Ability("`seed`", _arrives(), {"seed": 4242}),
    Ability("`frequency_penalty`", _arrives("0.4242"), {"frequency_penalty": 0.4242}),
    Ability("`presence_penalty`", _arrives("0.4242"), {"presence_penalty": 0.4242}),
    Ability("`logit_bias`", _arrives(), {"logit_bias": {"4242": 1}}),
    Ability("`service_tier`", _arrives("flex"), {"service_tier": "flex"}),
    Ability("embeddings as floats", _vectors(1), _embeds(encoding_format="float"), **_EMBED),
    Ability("embeddings in base64", _vectors(1), _embeds(encoding_format="base64"), **_EMBED),
    Ability("embeddings in batches", _vectors(2), _embeds(input=["Hello", "world"]), **_EMBED),
    Ability("embeddings, `dimensions`", lambda seen: _MARK in seen.sent,
            _embeds(dimensions=4242), **_EMBED),
)  # fmt: skip

# Classes of tokens, and what a row of them is called.
CLASSES = {
    "input": "input",
    "cached_input": "cached input",
    "cache_write": "cache write",
    "cache_write_1h": "cache write for an hour",
    "audio_input": "audio input",
    "image_input": "image input",
    "output": "output",
    "reasoning": "reasoning",
    "audio_output": "audio output",
    "image_output": "image output",
}


async def _found(place: Place, ability: Ability, way: str) -> str:
    """How an ability is met in one way."""
    seen = await place.attempt(ability, way)
    if seen is not None:
        return WORKS if ability.shows(seen) else LOST
    return REFUSED if await place.attempt(ability, way, drop=True) is None else DROPPED


async def _cell(place: Place, ability: Ability) -> str:
    found = {way: await _found(place, ability, way) for way in ability.ways}
    if len(set(found.values())) == 1:
        return found[ability.ways[0]]
    return f"{found['whole']}, streamed {found['stream']}"


async def _class_cell(place: Place, name: str) -> str:
    """Whether tokens of a class come out as such."""
    told = msgspec.structs.replace(Usage(input=40, output=30), **{name: 20})
    ability = Ability(name, bool, scene=Scene(usage=told))
    seen = [await place.attempt(ability, way) for way in ability.ways]
    return WORKS if all(one and getattr(one.usage, name) == 20 for one in seen) else NOT_TOLD


async def _column(subject: Subject) -> dict[str, str]:
    """What one provider can do, by the names of the rows."""
    http = Http(Clock(), limit=10)
    try:
        async with Upstream() as upstream:
            place = Place(subject, upstream, http)
            cells = {ability.name: await _cell(place, ability) for ability in ABILITIES}
            for name, shown in CLASSES.items():
                cells[f"tokens: {shown}"] = await _class_cell(place, name)
            await place.close()
            return cells
    finally:
        await http.close()


async def abilities() -> dict[str, dict[str, str]]:
    """What all providers can do: by provider, then by the name of the row."""
    return {subject.name: await _column(subject) for subject in SUBJECTS}


def with_abilities(text: str, found: dict[str, dict[str, str]]) -> str:
    """The page with the table of what was found."""
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    names = list(next(iter(found.values())))
    rows = [["", *found], ["---"] * (len(found) + 1)]
    rows += [[name, *(column[name] for column in found.values())] for name in names]
    table = "\n".join(f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in rows)
    return before + _BEGIN + _LEGEND.lstrip() + table + "\n" + _END + after


if __name__ == "__main__":
    PAGE.write_text(with_abilities(PAGE.read_text(), asyncio.run(abilities())))
