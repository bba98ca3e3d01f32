"""The OpenAI Node SDK as a client: runs the tests of `tests/node` against a gateway."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.flow.gateway import KEY, ROOT, Gateway, running_gateway
from tests.upstream import (
    DONE,
    Recorded,
    Reply,
    chat_answer,
    chat_chunk,
    chat_stream,
    event,
    event_stream,
    json_reply,
)

FOLDER = ROOT / "tests" / "node"
NODE = shutil.which("node")

pytestmark = [
    pytest.mark.node,
    pytest.mark.skipif(NODE is None, reason="Node.js is not installed"),
    pytest.mark.skipif(
        not (FOLDER / "node_modules" / "openai").is_dir(),
        reason="the OpenAI Node SDK is not installed: run `npm ci` in tests/node",
    ),
]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("node")) as gateway:
        yield gateway


def tool_call(piece: dict[str, Any]) -> bytes:
    return event(chat_chunk({"tool_calls": [{"index": 0, **piece}]}))


SCENES = {
    "whole": json_reply(chat_answer("Hello there")),
    "stream": chat_stream("Hel", "lo"),
    "tool": event_stream(
        event(chat_chunk({"role": "assistant", "content": None})),
        tool_call({"id": "c1", "type": "function", "function": {"name": "weather"}}),
        tool_call({"function": {"arguments": '{"city":'}}),
        tool_call({"function": {"arguments": '"Oslo"}'}}),
        event(chat_chunk({}, finish_reason="tool_calls")),
        DONE,
    ),
    "endless": chat_stream(*["more"] * 1000, pause=0.05),
    "busy": json_reply({"error": {"message": "busy"}}, 429, {"Retry-After": "99"}),
    "broken": event_stream(event(chat_chunk("Hel")), event(chat_chunk("lo"))),
}


def scene(request: Recorded) -> Reply:
    return SCENES[request.headers["X-Scene"]]


def test_the_tests_of_the_node_sdk(gateway: Gateway) -> None:
    gateway.up.script(scene)
    result = subprocess.run(
        [str(NODE), "--test", "gateway.test.js"],
        cwd=FOLDER,
        env={**os.environ, "NEXUS_URL": gateway.url, "NEXUS_KEY": KEY},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (endless,) = [one for one in gateway.up.requests if one.headers["X-Scene"] == "endless"]
    gateway.up.wait_for(endless.gone)
