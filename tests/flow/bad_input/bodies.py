"""Bodies that the tests of bad input send, and what they ask of the gateway afterwards."""

from typing import Any

import httpx
import pytest

from tests.flow.gateway import basic

CHAT = "/v1/chat/completions"
INVALID = "invalid_request_error"
MIB = 1024 * 1024


def serves(client: httpx.Client) -> bool:
    return client.post(CHAT, json={**basic(), "model": "mock"}).status_code == 200


def with_field(field: str) -> bytes:
    """A good body and one more field, as JSON text."""
    return f'{{"model":"mock","messages":[{{"role":"user","content":"x"}}],{field}}}'.encode()


def with_content(content: str) -> bytes:
    """A body whose only message has this content, as JSON text."""
    return f'{{"model":"mock","messages":[{{"role":"user","content":{content}}}]}}'.encode()


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


def rows(table: dict[str, Any]) -> Any:
    return pytest.mark.parametrize("case", table.values(), ids=table.keys())


GOOD = with_field('"a":1')
SIZE = len(GOOD)
