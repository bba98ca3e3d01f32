"""How the tests of chat script their provider and read what the client was told."""

import httpx
import pytest

from tests.flow.gateway import Gateway, told
from tests.upstream import chat_answer, chat_stream, json_reply

CHAT = "/v1/chat/completions"
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


def play(gateway: Gateway, stream: bool, *texts: str) -> None:
    """The upstream answers with these texts, whole or as one chunk for each."""
    whole = json_reply(chat_answer("".join(texts)))
    gateway.up.script(chat_stream(*texts) if stream else whole)


def said(response: httpx.Response, stream: bool) -> str:
    if not stream:
        return str(response.json()["choices"][0]["message"]["content"])
    deltas = [chunk["choices"][0]["delta"] for chunk in told(response)]
    return "".join(delta.get("content", "") for delta in deltas)
