"""How large a request is: what of it can become tokens, counted once from its canonical JSON.

Nothing here knows a model: what an image costs where is told by `ingress/estimates.py`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from msgspec import Raw

from ingress.request import Operation
from schemas.errors import InvalidRequest

# What no provider shows to a model, and what is counted in another way.
_NO_TEXT = frozenset(
    {
        "audio",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "metadata",
        "modalities",
        "model",
        "n",
        "parallel_tool_calls",
        "presence_penalty",
        "prompt_cache_key",
        "reasoning_effort",
        "safety_identifier",
        "seed",
        "service_tier",
        "stop",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
    }
)
# With these the provider reads on its own, and bills what it has read.
_SEARCHES = frozenset({"web_search_options", "search_parameters", "enable_search", "plugins"})
_OUR_TOOLS = ("function", "custom")
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_TEXTS = ("text", "refusal", "input_text", "output_text", "thinking", "reasoning")
# The fewest bytes that hold a second of sound, by format: MP3 at 8 kbit/s, PCM at 4 bits and 8 kHz.
_SLOWEST = {"mp3": 1000, "wav": 4000, "pcm16": 4000, "g711_ulaw": 4000, "g711_alaw": 4000}
_OFF = frozenset({b"null", b"false", b"[]"})
# The quotation marks, colon and comma around a value.
_SIGNS = 6
# A larger limit limits nothing: no model writes as much.
_MOST_TOKENS = 1_000_000_000
_BYTES_PER_TOKEN = 4
_TOKENS_PER_MESSAGE = 4
_TYPICAL_IMAGE = 800
_TYPICAL_LOW_IMAGE = 90
# Usual sound takes ten times the room, and ten tokens a second.
_TYPICAL_SECOND = 1
_TYPICAL_FILE = 3000


class Measure(msgspec.Struct, frozen=True):
    """What a request can become at most.

    `text_bytes` are UTF-8 bytes; JSON inside it (tools, schemas, tool calls) counts as it is
    written. `images` are by detail. `audio_seconds` is the longest that the bytes can last.
    `unmeasured` are parts whose size cannot be told: files, videos, searches of the provider.
    `predicted_bytes` may be billed as output. `max_tokens` is None where the client set no limit.
    `tier` is the service tier asked for, in the client's word for it; empty for none.
    """

    text_bytes: int = 0
    messages: int = 0
    tools: int = 0
    images: int = 0
    low_images: int = 0
    original_images: int = 0
    audio_seconds: int = 0
    unmeasured: int = 0
    predicted_bytes: int = 0
    choices: int = 1
    max_tokens: int | None = None
    tier: str = ""

    @property
    def prompt_estimate(self) -> int:
        """Prompt tokens by rule of thumb, the same for every model and at all times.

        Terminal events carry it beside the billed tokens; `Ratios` learns the difference.
        """
        return (
            -(-self.text_bytes // _BYTES_PER_TOKEN)
            + self.messages * _TOKENS_PER_MESSAGE
            + (self.images + self.original_images) * _TYPICAL_IMAGE
            + self.low_images * _TYPICAL_LOW_IMAGE
            + self.audio_seconds * _TYPICAL_SECOND
            + self.unmeasured * _TYPICAL_FILE
        )


class _Tool(msgspec.Struct):
    type: Any = "function"


class _Input(msgspec.Struct):
    input: str | list[Any]


_decode_input = msgspec.json.Decoder(_Input).decode
_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_messages = msgspec.json.Decoder(list[dict[str, Any]]).decode
_decode_tools = msgspec.json.Decoder(list[_Tool]).decode
_decode_count = msgspec.json.Decoder(int | None).decode
_decode_word = msgspec.json.Decoder(str).decode


class _Count:
    """What has been counted so far."""

    __slots__ = (
        "audio_seconds",
        "images",
        "low_images",
        "original_images",
        "text_bytes",
        "tools",
        "unmeasured",
    )

    def __init__(self) -> None:
        self.text_bytes = 0
        self.tools = 0
        self.images = 0
        self.low_images = 0
        self.original_images = 0
        self.audio_seconds = 0
        self.unmeasured = 0

    def message(self, fields: Mapping[str, Any]) -> None:
        for name, value in fields.items():
            if name == "content":
                if isinstance(value, list):
                    for part in value:
                        self._part(part)
                else:
                    self.text_bytes += _size(value)
            elif name == "audio":
                # It only names what the provider keeps.
                self.unmeasured += value is not None
            elif name != "role" or value not in _ROLES:
                self.text_bytes += _size(value)

    def tool_list(self, raw: Raw) -> None:
        self.text_bytes += len(raw)
        try:
            tools = _decode_tools(raw)
        except msgspec.ValidationError:
            return
        self.tools += len(tools)
        self.unmeasured += sum(tool.type not in _OUR_TOOLS for tool in tools)

    def _part(self, part: Any) -> None:
        kind = part.get("type") if isinstance(part, dict) else "text"
        if kind == "input_audio":
            self._audio(part.get("input_audio"))
        elif kind in ("image_url", "input_image"):
            self._image(part.get("image_url"), part.get("detail"))
        elif kind in _TEXTS:
            self.text_bytes += _size(part)
        else:
            self.unmeasured += 1

    def _image(self, url: Any, detail: Any) -> None:
        if isinstance(url, dict):
            url, detail = url.get("url"), url.get("detail", detail)
        if isinstance(url, str) and url.startswith("data:") and not url.startswith("data:image/"):
            self.unmeasured += 1
        elif detail == "low":
            self.low_images += 1
        elif detail in (None, "auto", "high"):
            self.images += 1
        else:
            self.original_images += 1

    def _audio(self, audio: Any) -> None:
        form, data = (
            (audio.get("format"), audio.get("data")) if isinstance(audio, dict) else (None, None)
        )
        slowest = _SLOWEST.get(form) if isinstance(form, str) else None
        if slowest is None or not isinstance(data, str):
            self.unmeasured += 1
        else:
            self.audio_seconds += len(data) * 3 // 4 // slowest + 1


def measure(body: bytes) -> Measure:
    """The measure of a canonical body that `parse` of its dialect has accepted.

    Raises InvalidRequest where its messages cannot be looked into: nested too deeply, or a number
    in them that no computer holds.
    """
    try:
        fields = _decode_fields(body)
        messages = _decode_messages(fields.pop("messages"))
    except RecursionError as error:
        raise InvalidRequest(
            "The messages are nested too deeply.", param="messages", code="invalid_json"
        ) from error
    except msgspec.DecodeError as error:
        raise InvalidRequest(
            f"The messages cannot be read: {error}", param="messages", code="invalid_json"
        ) from error
    count = _Count()
    for message in messages:
        count.message(message)
    predicted = fields.pop("prediction", b"")
    for name, raw in fields.items():
        if name in _NO_TEXT:
            continue
        if name in ("tools", "functions"):
            count.tool_list(raw)
        elif name not in _SEARCHES:
            count.text_bytes += len(raw)
        elif bytes(raw) not in _OFF:
            count.unmeasured += 1
    limits = (_number(fields.get("max_tokens")), _number(fields.get("max_completion_tokens")))
    return Measure(
        text_bytes=count.text_bytes,
        messages=len(messages),
        tools=count.tools,
        images=count.images,
        low_images=count.low_images,
        original_images=count.original_images,
        audio_seconds=count.audio_seconds,
        unmeasured=count.unmeasured,
        predicted_bytes=len(predicted),
        choices=_number(fields.get("n")) or 1,
        max_tokens=max((limit for limit in limits if limit is not None), default=None),
        tier=_tier(fields),
    )


def measure_input(body: bytes) -> Measure:
    """The measure of a body whose `input` is to be embedded: texts, or numbers that are tokens
    already. Nothing comes out but vectors."""
    given = _decode_input(body).input
    if isinstance(given, str):
        return Measure(text_bytes=_utf8(given), messages=1, max_tokens=0)
    texts = [one for one in given if isinstance(one, str)]
    lists = [one for one in given if isinstance(one, list)]
    numbers = len(given) - len(texts) - len(lists) + sum(map(len, lists))
    return Measure(
        text_bytes=sum(map(_utf8, texts)) + numbers * _BYTES_PER_TOKEN,
        messages=len(texts) + len(lists) or 1,
        max_tokens=0,
    )


MEASURES: Mapping[Operation, Callable[[bytes], Measure]] = {
    "chat": measure,
    "embeddings": measure_input,
}


def _tier(fields: Mapping[str, Raw]) -> str:
    """What `speed` asks for, which is Anthropic's, else `service_tier`."""
    speed = _word(fields.get("speed"))
    return speed if speed not in ("", "standard") else _word(fields.get("service_tier"))


def _word(raw: Raw | None) -> str:
    try:
        return "" if raw is None else _decode_word(raw).lower()
    except msgspec.DecodeError:
        return ""


def _number(raw: Raw | None) -> int | None:
    number = None if raw is None else _decode_count(raw)
    return None if number is None else min(number, _MOST_TOKENS)


def _size(value: Any) -> int:
    """UTF-8 bytes of all texts in a JSON value, the names of its fields and its signs included."""
    if isinstance(value, str):
        return _utf8(value)
    size, waiting = 0, [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            size += _utf8(one) + _SIGNS
        elif isinstance(one, dict):
            size += sum(_utf8(name) for name in one) + _SIGNS * (len(one) + 1)
            waiting += one.values()
        elif isinstance(one, list):
            size += _SIGNS
            waiting += one
        elif one is not None:
            size += len(str(one)) + _SIGNS
    return size


def _utf8(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
