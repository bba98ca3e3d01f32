"""What a client reads when its body is wrong: words, never our own patterns."""

import json
from typing import Any

import pytest

from ingress.dialects import embeddings, openai
from schemas.errors import InvalidRequest

CHAT = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
TEXTS = {"model": "m", "input": "x"}


@pytest.mark.parametrize(
    ("wrong", "message", "param"),
    [
        (
            {"budget": {"project_id": "a\nb"}},
            "budget.project_id: expected text without line breaks, that neither begins nor ends"
            " with a space.",
            "budget.project_id",
        ),
        (
            {"budget": {"max_costs": 1}},
            "budget.max_costs: unknown field; did you mean budget.max_cost?",
            "budget.max_costs",
        ),
        ({"budget": [1]}, "budget: expected an object.", "budget"),
        ({"temperature": 9}, "temperature: expected a number <= 2.0.", "temperature"),
        ({"messages": []}, "messages: expected a list of at least 1 entry.", "messages"),
        ({"messages": [{}]}, "messages.0.role: missing, it has no default.", "messages"),
        ({"response": {"include_cost": 1}}, "response.include_cost: expected true", "response"),
    ],
)
def test_a_mistake_in_a_chat_is_told_in_words(
    wrong: dict[str, Any], message: str, param: str
) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        openai.parse(json.dumps(CHAT | wrong).encode())
    assert refusal.value.info.message.startswith(message)
    assert refusal.value.info.param == param


@pytest.mark.parametrize(
    ("wrong", "message", "param"),
    [
        ({"input": 3}, "input: expected text or a list.", "input"),
        ({"input": [[-1]]}, "input.0.0: expected a whole number >= 0.", "input"),
        ({"stream": True}, "stream: expected false.", "stream"),
        ({"encoding_format": "x"}, "encoding_format: expected one of float, base64.", None),
    ],
)
def test_a_mistake_in_embeddings_is_told_in_words(
    wrong: dict[str, Any], message: str, param: str | None
) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        embeddings.parse(json.dumps(TEXTS | wrong).encode())
    assert refusal.value.info.message == message
    assert refusal.value.info.param == (param or next(iter(wrong)))


def test_a_body_that_is_no_object_is_told_so() -> None:
    with pytest.raises(InvalidRequest) as refusal:
        openai.parse(b"[1]")
    assert refusal.value.info.message == "The body is wrong: expected an object."
    assert refusal.value.info.param is None
