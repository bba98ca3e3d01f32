"""Vendors by their own names at one scripted server, which plays the scenes of their contracts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from openai import OpenAI

from tests.contract.anthropic_stage import AnthropicStage
from tests.contract.bedrock_stage import BedrockStage
from tests.contract.cohere_stage import CohereStage
from tests.contract.gemini_stage import GeminiStage
from tests.contract.ollama_stage import OllamaStage
from tests.contract.openai_stage import OpenAIStage
from tests.contract.provider_contract import Scene
from tests.flow.gateway import KEY, Gateway, Provider
from tests.upstream import Recorded, Reply, Script

# What the gateway pays Vertex AI with.
VERTEX_TOKEN = "ya29.token-of-the-gateway-0123456789"


class Vendor(NamedTuple):
    """A vendor, who plays it, and in which header the client's own key arrives there; `settings`
    are those of its configuration, `path` where a chat arrives."""

    name: str
    engine: str
    stage: Callable[..., Any]
    path: str
    key_header: str = "authorization"
    settings: str = 'api_key: "${UP_API_KEY}"'

    @property
    def model(self) -> str:
        """What a client asks for."""
        return f"{self.name}/{self.engine}"

    def key(self, key: str) -> str:
        """A key as it stands in the header."""
        return f"Bearer {key}" if self.key_header == "authorization" else key


_KEY = 'api_key: "${UP_API_KEY}"'
_DATED = f"dialect: azure, {_KEY}, options: {{api_version: '2024-10-21'}}"
_VERTEX = 'options: {project: acme, access_token: "${TEST_VERTEX_TOKEN}"}'
_SONNET = "anthropic.claude-sonnet-4-5-20250929-v1:0"

VENDORS = (
    Vendor("azure", "gpt-4o", OpenAIStage, "/openai/v1/chat/completions", "api-key"),
    Vendor(
        "dated",
        "my-deployment",
        OpenAIStage,
        "/openai/deployments/my-deployment/chat/completions?api-version=2024-10-21",
        "api-key",
        _DATED,
    ),
    Vendor("bedrock", _SONNET, BedrockStage, f"/model/{_SONNET.replace(':', '%3A')}/converse"),
    Vendor("ollama", "llama3.2", OllamaStage, "/api/chat"),
    Vendor("anthropic", "claude-haiku-4-5", AnthropicStage, "/v1/messages", "x-api-key"),
    Vendor(
        "google",
        "gemini-2.5-flash",
        GeminiStage,
        "/models/gemini-2.5-flash:generateContent",
        "x-goog-api-key",
    ),
    Vendor(
        "vertex",
        "gemini-2.5-flash",
        GeminiStage,
        "/models/gemini-2.5-flash:generateContent",
        "x-goog-api-key",
        _VERTEX,
    ),
    Vendor("cohere", "command-r-08-2024", CohereStage, "/v2/chat"),
    Vendor("mistral", "mistral-large-latest", OpenAIStage, "/v1/chat/completions"),
    Vendor("groq", "llama-3.3-70b-versatile", OpenAIStage, "/v1/chat/completions"),
)
SCRIPTED_MODELS = "".join(
    f'  "hasty/{one.name}": {{provider: {one.name}, engine: "{one.engine}", timeout: 1}}\n'
    for one in VENDORS
)


def vendors_at(url: str) -> str:
    """All of them as lines of a configuration."""
    return "\n".join(f'  {one.name}: {{base_url: "{url}", {one.settings}}}' for one in VENDORS)


class _Played:
    """Stands where a stage has its server: what it scripts is answered with more headers."""

    def __init__(self, upstream: Provider, headers: Mapping[str, str]) -> None:
        self._upstream = upstream
        self._headers = headers

    def script(self, *replies: Script) -> None:
        self._upstream.script(*(self._with_headers(reply) for reply in replies))

    def _with_headers(self, script: Script) -> Script:
        def reply(request: Recorded) -> Reply:
            given = script if isinstance(script, Reply) else script(request)
            return replace(given, headers={**given.headers, **self._headers})

        return reply


@dataclass
class Scripted:
    """A gateway and the server behind all of its providers."""

    gateway: Gateway
    upstream: Provider

    def play(self, vendor: Vendor, scene: Scene, headers: Mapping[str, str] | None = None) -> None:
        """Arranges what happens at the vendor from now on; `headers` are further ones of its
        answers."""
        stage = vendor.stage(None, _Played(self.upstream, headers or {}))
        stage.play(scene)

    def client(self) -> OpenAI:
        """OpenAI's SDK at the gateway."""
        return OpenAI(base_url=f"{self.gateway.url}/v1", api_key=KEY, max_retries=0)
