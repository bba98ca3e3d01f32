"""The ten dialects that llmock speaks, each as a provider of a gateway."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

from openai import OpenAI

from tests.llmock_server import LLMock

_T = TypeVar("_T")

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
CITIES = [{"city": "Reykjavík"}, {"city": "Paris", "unit": "celsius"}]


class Counted(NamedTuple):
    """Tokens as a provider reported them."""

    prompt: int
    completion: int


class Dialect(NamedTuple):
    """A provider at llmock: under which path, and one of its models.

    Perplexity has no tools. Mistral and Perplexity are not asked for the usage of a stream, because
    they send it unasked; llmock does not.
    """

    provider: str
    path: str
    engine: str
    tools: bool = True
    counts_streams: bool = True

    @property
    def model(self) -> str:
        """What a client asks for."""
        return f"{self.provider}/{self.engine}"

    @property
    def known_as(self) -> str:
        """Its name in llmock's scripts."""
        return "openai" if self.path == "/v1" else self.path.split("/")[1]


DIALECTS = (
    Dialect("llmock", "/v1", "gpt-4o"),
    Dialect("anthropic", "/anthropic/v1", "claude-haiku-4-5-20251001"),
    Dialect("google", "/gemini/v1beta", "gemini-2.5-flash"),
    Dialect("cohere", "/cohere/v2", "command-r-08-2024"),
    Dialect("mistral", "/mistral/v1", "mistral-large-latest", counts_streams=False),
    Dialect("groq", "/groq/openai/v1", "llama-3.3-70b-versatile"),
    Dialect("perplexity", "/perplexity/v1", "sonar", tools=False, counts_streams=False),
    Dialect("together", "/together/v1", "meta-llama/Llama-3.3-70B-Instruct-Turbo"),
    Dialect("xai", "/xai/v1", "grok-3"),
    Dialect("ai21", "/ai21/v1", "jamba-large"),
)
WITH_TOOLS = tuple(dialect for dialect in DIALECTS if dialect.tools)


def providers_at(server: LLMock) -> str:
    """All of them as lines of a configuration; llmock's own name stands for OpenAI itself."""
    lines = [
        f'  {one.provider}: {{base_url: "{server.url}{one.path}", api_key: "${{UP_API_KEY}}"'
        + (", dialect: openai" if one.provider == "llmock" else "")
        + "}"
        for one in DIALECTS
    ]
    return "\n".join(lines)


def ask(client: OpenAI, dialect: Dialect, text: str = "Is anybody there?", **more: Any) -> Any:
    """A chat of one message with the dialect's model."""
    talk = [{"role": "user", "content": text}]
    return client.chat.completions.create(**{"model": dialect.model, "messages": talk, **more})


def everywhere(
    what: Callable[[Dialect], _T], among: tuple[Dialect, ...] = DIALECTS
) -> dict[str, _T]:
    """The same done with every dialect at once; what came of it by provider."""
    with ThreadPoolExecutor(len(among)) as pool:
        return dict(zip([one.provider for one in among], pool.map(what, among), strict=True))


def put_together(chunks: list[Any]) -> dict[str, Any]:
    """Text, calls and finish reason of a stream's only choice, as a client reads them."""
    said: dict[str, Any] = {"text": "", "calls": [], "reason": None}
    for choice in (chunk.choices[0] for chunk in chunks if chunk.choices):
        said["text"] += choice.delta.content or ""
        said["reason"] = choice.finish_reason or said["reason"]
        for piece in choice.delta.tool_calls or ():
            if piece.index == len(said["calls"]):
                said["calls"].append([piece.id, piece.function.name, ""])
            said["calls"][piece.index][2] += piece.function.arguments or ""
    return said


def counted(dialect: Dialect, answer: Any) -> Counted:
    """The usage in a whole answer of llmock, in the dialect's own words."""
    if dialect.provider == "google":
        usage = answer["usageMetadata"]
        return Counted(usage["promptTokenCount"], usage["candidatesTokenCount"])
    usage = answer["usage"]
    if dialect.provider == "cohere":
        usage = usage["billed_units"]
    if "input_tokens" in usage:
        return Counted(usage["input_tokens"], usage["output_tokens"])
    return Counted(usage["prompt_tokens"], usage["completion_tokens"])
