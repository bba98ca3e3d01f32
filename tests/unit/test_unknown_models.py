"""A name that nobody knows, or that no key serves, becomes one clear error."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import subjects
from schemas.config import ModelConfig
from schemas.errors import ModelNotFound
from tests.routes import refused, router


def test_an_unknown_name_is_refused_as_document_003_words_it() -> None:
    message = refused(router("openai"), "invalid-model")
    assert message == "The model 'invalid-model' does not exist"


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("gpt-5-mini", "set OPENAI_API_KEY"),
        ("openai/gpt-4o", "set OPENAI_API_KEY"),
        ("claude-3-opus", "set ANTHROPIC_API_KEY, or set OPENROUTER_API_KEY"),
        ("azure/mine", "set AZURE_OPENAI_API_KEY and AZURE_OPENAI_ENDPOINT"),
        ("ollama/llama3", "set OLLAMA_BASE_URL"),
        ("vitals", "set OPENAI_API_KEY"),
        ("eu", "give provider azure-eu its key, or set OPENAI_API_KEY"),
    ],
)
def test_a_name_without_a_key_says_what_to_set(name: str, remedy: str) -> None:
    entries = {
        "task": ModelConfig(provider="openai"),
        "eu": ModelConfig(provider="azure-eu", fallbacks=("task",)),
    }
    routes = router(models=entries, defaults={"vitals": "task"})
    message = refused(routes, name)
    assert message == f"The model '{name}' is not available here: the operator can {remedy}"
    assert routes.remedy(name) == remedy


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "gpt-4o ",
        "gpt-4o\n",
        "gpt-4o\x00",
        "a b",
        "*",
        ">",
        "work.>",
        "../../etc/passwd",
        "openai/../secret",
        "openai/",
        "/gpt-4o",
        "openai/gpt-4o\r\nX-Evil: 1",
        "openai/gpt-4o?key=1",
        "gpt-4o" * 2000,
        "modèle",
        "\ud800",
    ],
)
@pytest.mark.parametrize("settings", [{}, {"mock_all": True}, {"default_provider": "local"}])
def test_a_hostile_name_is_refused_in_one_short_line(name: str, settings: dict[str, Any]) -> None:
    message = refused(router("openai", "local", **settings), name)
    assert "does not exist" in message
    assert message.isprintable()
    assert len(message) < 1000


@given(st.text(max_size=300) | st.from_regex(r"[a-z0-9]{1,8}[./:> *\n-]{1,3}[a-z0-9]{0,8}"))
def test_any_name_gives_a_plan_in_configured_pools_or_the_one_error(name: str) -> None:
    routes = router("openai", "local", default_provider="local")
    pools = routes.config.pools()
    try:
        plan = routes.plan(name)
    except ModelNotFound as error:
        assert error.info.message.isprintable()
    else:
        assert plan
        for target in plan:
            assert target.pool in pools
            assert subjects.work(target.pool, "interactive").count(".") == 2
