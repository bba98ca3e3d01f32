"""A name with two equal targets, through a whole gateway: calls go where fewer run."""

from collections.abc import Iterator

import pytest

from tests.flow.gateway import KEY, Gateway, message, running_gateway
from tests.upstream import HANG, chat_answer, chat_chunk, event, event_stream, json_reply

TARGETS = "  chat: {targets: [{provider: up, engine: left}, {provider: openai, engine: right}]}\n"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("balancing"), TARGETS) as gateway:
        yield gateway


def test_while_a_call_runs_at_one_target_the_next_ones_go_to_its_equal(gateway: Gateway) -> None:
    asked = {"model": "chat", "messages": [message("Hi")], "stream": True}
    headers = {"authorization": f"Bearer {KEY}"}
    held = event_stream(event(chat_chunk("Hel")), HANG)
    gateway.up.script(held, json_reply(chat_answer("Hello")))
    with gateway.client.stream(
        "POST", "/v1/chat/completions", json=asked, headers=headers
    ) as stream:
        # Kept, because httpx closes a response with its iterator.
        lines = stream.iter_lines()
        next(lines)
        for _ in range(10):
            assert gateway.ask("chat").status_code == 200
    first, *others = [request.json["model"] for request in gateway.up.requests]
    assert others == [{"left": "right", "right": "left"}[first]] * 10
