"""A conversation as Gemini reads it: contents of parts, calls of functions and their results."""

import mimetypes
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

import msgspec
from msgspec import Raw

from workers.asked import Chat, Message, Part, ToolCall, cannot
from workers.failures import Failures
from workers.images import Image, from_data_url
from workers.providers.base import NOT_AS_ASKED

# Files that Google reads by itself.
_PUBLIC = ("https://www.youtube.com/watch", "https://youtu.be/")
_GOOGLES_OWN = ("gs://", "https://generativelanguage.googleapis.com/", *_PUBLIC)
# For calls that another model made, which have no signature
# (ai.google.dev/gemini-api/docs/thought-signatures, FAQ).
_UNSIGNED = "skip_thought_signature_validator"

_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode


def images_in(chat: Chat) -> Iterator[str]:
    """The URLs of the images whose bytes have to be sent."""
    for message in chat.messages:
        for part in message.parts:
            if part.type == "image_url" and not part.image.startswith(_GOOGLES_OWN):
                yield part.image


def require_no_stored_files(chat: Chat, given: Mapping[str, Raw], failures: Failures) -> None:
    """Raises AttemptFailed (400) for what would be read from an account at Google: with the
    gateway's own key any client could name what another one has stored there."""
    why = "read what is stored at Google with the gateway's key: send it, or use a key of your own"
    for name in ("cachedContent", "cached_content"):
        if name in given:
            raise cannot(why, name, failures)
    for message in chat.messages:
        for part in message.parts:
            stored = part.file.file_id if part.file else part.image
            if stored and stored.startswith(_GOOGLES_OWN) and not stored.startswith(_PUBLIC):
                raise cannot(why, "messages", failures)
            if part.file and stored and not stored.startswith(_GOOGLES_OWN):
                raise cannot(why, "messages", failures)


class Turns:
    """Turns messages into contents: a call is answered by its name, and its id where Google takes
    ids; `signed` models refuse calls without a signature."""

    def __init__(
        self, images: Mapping[str, Image], failures: Failures, *, vertex: bool, signed: bool
    ) -> None:
        self._images = images
        self._failures = failures
        self._vertex = vertex
        self._signed = signed
        self._called: dict[str, tuple[int, str]] = {}

    def of(self, messages: list[Message]) -> tuple[list[Any], list[dict[str, Any]]]:
        """The parts of the system instruction, and the contents."""
        system: list[Any] = []
        contents: list[dict[str, Any]] = []
        for role, turn in groupby(messages, lambda message: message.role):
            if role in ("system", "developer"):
                system += [part for message in turn for part in self._parts(message)]
            elif role == "user":
                contents += [{"role": "user", "parts": self._parts(message)} for message in turn]
            elif role == "assistant":
                contents += [{"role": "model", "parts": self._said(message)} for message in turn]
            elif role in ("tool", "function"):
                contents.append({"role": "user", "parts": self._results(list(turn))})
            else:
                raise cannot(f"take a message with the role '{role}'", "messages", self._failures)
        contents = [content for content in contents if content["parts"]]
        if not contents and system:
            return [], [{"role": "user", "parts": system}]
        if not contents:
            raise self._failures.unsendable("'messages' says nothing to answer.", "messages")
        return system, contents

    def _parts(self, message: Message) -> list[Any]:
        return [self._part(part) for part in message.parts if part.type != "text" or part.text]

    def _part(self, part: Part) -> dict[str, Any]:
        if part.type == "text":
            return {"text": part.text}
        if part.type == "refusal":
            return {"text": part.refusal or " "}
        if part.type == "image_url" and part.image:
            if part.image.startswith(_GOOGLES_OWN):
                return self._file(part.image)
            return _inline(self._images[part.image])
        if part.type == "input_audio" and part.input_audio:
            return _inline(Image(f"audio/{part.input_audio.format}", part.input_audio.data))
        if part.type == "file" and part.file:
            if part.file.file_id:
                return self._file(part.file.file_id)
            if part.file.file_data:
                return _inline(self._document(part.file.file_data, part.file.filename or ""))
        raise cannot(f"take a part of the type '{part.type}' like this", "messages", self._failures)

    def _document(self, data: str, filename: str) -> Image:
        if data.startswith("data:"):
            return from_data_url(data, self._failures)
        return Image(mimetypes.guess_type(filename)[0] or "application/pdf", data)

    def _file(self, uri: str) -> dict[str, Any]:
        if uri.startswith("gs://") and not self._vertex:
            raise cannot("read gs:// URIs: only Vertex AI does", "messages", self._failures)
        media_type = mimetypes.guess_type(uri)[0]
        known = {"mimeType": media_type} if media_type else {}
        return {"fileData": {"fileUri": uri, **known}}

    def _said(self, message: Message) -> list[Any]:
        """What the model said, with its calls behind; a signature belongs to its part."""
        parts = self._parts(message)
        signature = _signature(message.extra_content)
        if signature and parts:
            parts[-1]["thoughtSignature"] = signature
        for at, call in enumerate(message.tool_calls or ()):
            self._called[call.id] = (len(self._called), call.function.name)
            part: dict[str, Any] = {"functionCall": self._call(call)}
            signature = _signature(call.extra_content)
            if signature or (at == 0 and self._signed):
                part["thoughtSignature"] = signature or _UNSIGNED
            parts.append(part)
        return parts

    def _call(self, call: ToolCall) -> dict[str, Any]:
        try:
            arguments = _decode_fields(call.function.arguments or "{}")
        except NOT_AS_ASKED as error:
            raise self._failures.unsendable(
                f"The arguments of the tool call '{call.id}' are not a JSON object.", "messages"
            ) from error
        return {**self._id(call.id), "name": call.function.name, "args": arguments}

    def _results(self, messages: list[Message]) -> list[Any]:
        """Results in the order of their calls, which is how Vertex AI tells them apart."""
        last = len(self._called)
        messages.sort(key=lambda one: self._called.get(one.tool_call_id or "", (last, ""))[0])
        return [part for message in messages for part in self._result(message)]

    def _result(self, message: Message) -> list[Any]:
        call_id = message.tool_call_id or ""
        name = self._called[call_id][1] if call_id in self._called else message.name
        if not name:
            raise self._failures.unsendable(
                f"There is a result of the tool call '{call_id}', but no such call before it.",
                "messages",
            )
        said = {**self._id(call_id), "name": name, "response": _response(message.text)}
        others = [self._part(part) for part in message.parts if part.type != "text"]
        return [{"functionResponse": said}, *others]

    def _id(self, call_id: str) -> dict[str, str]:
        """Vertex AI does not know ids of calls (its version 1)."""
        return {} if self._vertex or not call_id else {"id": call_id}


def _response(text: str) -> dict[str, Any]:
    """A result as an object: itself if it is one, else as the `output` of one."""
    if text.lstrip().startswith("{"):
        try:
            return _decode_fields(text)
        except NOT_AS_ASKED:
            pass
    return {"output": text}


def _signature(extra_content: dict[str, Any] | None) -> str:
    google = (extra_content or {}).get("google")
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    return signature if isinstance(signature, str) else ""


def _inline(image: Image) -> dict[str, Any]:
    return {"inlineData": {"mimeType": image.media_type, "data": image.data}}
