"""What each provider's adapter costs a worker: the request translated, the answer translated, the
chunks of a stream folded. In this process, from bytes that its contract's stage has written once;
no socket. The openai adapter, which translates nothing, is measured beside the others."""

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, cast

import msgspec

from schemas.call import Timeouts
from schemas.config import ProviderConfig
from schemas.ids import Clock
from tests.contract.anthropic_stage import AnthropicStage
from tests.contract.bedrock_stage import BedrockStage
from tests.contract.cohere_stage import CohereStage
from tests.contract.gemini_stage import GeminiStage
from tests.contract.ollama_stage import OllamaStage
from tests.contract.openai_stage import OpenAIStage
from tests.contract.provider_contract import Scene
from tests.upstream import Recorded, Reply, Script
from workers.http import Http
from workers.providers import make
from workers.providers.base import Ask, Provider

BASE = "openai"
ROUNDS = 15
CALLS = 200
STREAMS = 20
CHUNKS = 100
_SONNET = "anthropic.claude-sonnet-4-5-20250929-v1:0"
_KEY = "key-of-the-bench-0123456789"
_SIGNED = {"api_key": "", "options": {"access_key_id": "AKIDEXAMPLE", "secret_access_key": _KEY}}
_SUBJECTS: tuple[tuple[str, str, Callable[..., Any], str, Mapping[str, Any]], ...] = (
    (BASE, "openai", OpenAIStage, "gpt-4o", {}),
    ("azure", "azure", OpenAIStage, "gpt-4o", {}),
    ("anthropic", "anthropic", AnthropicStage, "claude-sonnet-4-5", {}),
    ("gemini", "gemini", GeminiStage, "gemini-2.5-flash", {}),
    ("cohere", "cohere", CohereStage, "command-a-03-2025", {}),
    ("bedrock", "bedrock", BedrockStage, _SONNET, {"region": "us-east-1", **_SIGNED}),
    ("ollama", "ollama", OllamaStage, "qwen3", {}),
)
_SYSTEM = {"role": "system", "content": "You are a helpful assistant. " * 8}
_QUESTION = {"role": "user", "content": "Explain quantum computing in simple terms. " * 4}
_TEXT = {"messages": [_SYSTEM, _QUESTION], "temperature": 0.7, "max_completion_tokens": 500}
_FUNCTIONS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "Tells what the weather of a city was, is or will be. " * 3,
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "A city and its country"},
                    "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                    "days": {"type": "array", "items": {"type": "integer"}},
                },
                "required": ["city"],
            },
        },
    }
    for name in ("get_weather", "get_history", "get_forecast")
]
_CALL = {
    "id": "call_0123456789",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city": "Paris", "unit": "celsius"}'},
}
_TOOLS = {
    "messages": [
        _SYSTEM,
        _QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [_CALL]},
        {"role": "tool", "tool_call_id": "call_0123456789", "content": '{"degrees": 24}'},
    ],
    "tools": _FUNCTIONS,
    "tool_choice": "auto",
}


class Adapter(msgspec.Struct):
    """Processor time in ns, round by round: of a whole answer in text, of one that calls two of
    three tools, and of a chunk of a stream."""

    name: str
    text_ns: list[float]
    tools_ns: list[float]
    chunk_ns: list[float]


class _Canned:
    """Stands where the connections are: what the stage says to the first request, each time."""

    def __init__(self) -> None:
        self._script: Script = Reply()
        self._blocks: tuple[bytes, ...] = ()
        self._headers: Mapping[str, str] = {}

    def script(self, script: Script) -> None:
        """For the stage: what it answers from now on."""
        self._script, self._blocks = script, ()

    async def post(self, url: str, *, headers: Any, body: bytes, **_: Any) -> "_CannedReply":
        """As `Http.post`."""
        if not self._blocks:
            path = "/" + url.split("/", 3)[3]
            arrived = Recorded("POST", path, headers, body, ("", 0))
            script = self._script
            reply = script if isinstance(script, Reply) else script(arrived)
            self._blocks = tuple(step for step in reply.steps if isinstance(step, bytes))
            self._headers = reply.headers
        return _CannedReply(self._blocks, self._headers)


class _CannedReply:
    """As `workers.reply.Reply`, with one block for each step of the stage."""

    status = 200
    sent = first_byte = 1.0

    def __init__(self, blocks: tuple[bytes, ...], headers: Mapping[str, str]) -> None:
        self._blocks = blocks
        self._at = 0
        self.headers = headers
        self.content_type = headers["Content-Type"]

    async def next_block(self) -> bytes:
        """Empty at the end."""
        at = self._at
        self._at += 1
        return self._blocks[at] if at < len(self._blocks) else b""

    async def read(self) -> bytes:
        """All of it."""
        return b"".join(self._blocks)

    def leave(self) -> None:
        """There is no connection."""

    def close(self) -> None:
        """There is no connection."""


class _Bench:
    """One adapter, ready to be asked."""

    def __init__(
        self, subject: tuple[str, str, Callable[..., Any], str, Mapping[str, Any]]
    ) -> None:
        name, dialect, stage, self._engine, settings = subject
        self._canned = _Canned()
        config = {"base_url": "http://127.0.0.1:1", "api_key": _KEY, **settings}
        http = cast(Http, self._canned)
        self._provider: Provider = make(
            name, ProviderConfig(dialect=dialect, **config), http, Clock()
        )
        self._stage = stage(self._provider, self._canned)
        self.found = Adapter(name, [], [], [])

    async def round(self) -> None:
        """Adds one figure of each kind."""
        found, provider = self.found, self._provider
        whole = provider.complete
        found.text_ns.append(await self._timed(_TEXT, Scene(chunks=150), whole, CALLS))
        tools = Scene(tool="get_weather", calls=2)
        found.tools_ns.append(await self._timed(_TOOLS, tools, whole, CALLS))
        stream = await self._timed(_TEXT, Scene(chunks=CHUNKS), self._read, STREAMS)
        found.chunk_ns.append(stream / CHUNKS)

    async def _timed(
        self, fields: Any, scene: Scene, run: Callable[[Ask], Awaitable[Any]], count: int
    ) -> float:
        """Processor time of one run, in ns."""
        self._stage.play(scene)
        ask = self._ask(fields, stream=run == self._read)
        await run(ask)
        gc.collect()
        begun = time.thread_time_ns()
        for _ in range(count):
            await run(ask)
        return (time.thread_time_ns() - begun) / count

    async def _read(self, ask: Ask) -> None:
        async with aclosing(self._provider.stream(ask)) as pieces:
            async for _ in pieces:
                pass

    def _ask(self, fields: Any, *, stream: bool) -> Ask:
        return Ask(
            call_id="0193d5a0-0000-7000-8000-000000000000",
            model="the-clients-name",
            engine=self._engine,
            body=msgspec.json.encode({"model": "m", **fields, "stream": stream}),
            stream=stream,
            created=1_700_000_000,
            headers={},
            timeouts=Timeouts(),
        )


def measure(rounds: int = ROUNDS) -> list[Adapter]:
    """All adapters in turn, round by round, so that what else the machine does meets all alike."""
    return asyncio.run(_measured(rounds))


async def _measured(rounds: int) -> list[Adapter]:
    benches = [_Bench(subject) for subject in _SUBJECTS]
    for _ in range(rounds):
        for bench in benches:
            await bench.round()
    return [bench.found for bench in benches]
