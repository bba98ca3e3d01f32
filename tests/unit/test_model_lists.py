"""The lists of models: their shapes, what they say can be used, and what is not known."""

import msgspec
import pytest

from ingress import models
from schemas.config import ModelConfig
from schemas.errors import ModelNotFound
from tests.routes import router


def everything(*names: str) -> bool:
    return True


def test_a_key_sees_only_the_models_it_may_use() -> None:
    routes = router("openai", "anthropic", defaults={"coding": "gpt-4o"})
    listed = models.models(routes, lambda *names: any(name == "gpt-4o" for name in names))
    assert [row["id"] for row in listed["data"]] == ["gpt-4o"]


def test_the_list_of_models_has_the_shape_of_document_003() -> None:
    listed = models.models(router("anthropic"), everything)
    assert listed["object"] == "list"
    row = next(row for row in listed["data"] if row["id"] == "claude-3.5-sonnet")
    assert row == {
        "id": "claude-3.5-sonnet",
        "object": "model",
        "created": 1729555200,
        "owned_by": "anthropic",
        "provider": "anthropic",
        "display_name": "Claude 3.5 Sonnet",
        "capabilities": {
            "max_tokens": 8192,
            "context_window": 200000,
            "supports_vision": True,
            "supports_function_calling": True,
            "supports_streaming": True,
            "cost_per_1k_input_tokens": 0.003,
            "cost_per_1k_output_tokens": 0.015,
            "avg_latency_ms": None,
        },
        "category": "reasoning",
        "tier": "premium",
        "available": True,
    }


def test_the_list_has_all_names_and_says_which_can_be_used() -> None:
    entry = ModelConfig(provider="local", max_tokens=99)
    routes = router("openai", "local", models={"mine": entry})
    rows = {row["id"]: row for row in models.models(routes, everything)["data"]}
    assert rows.keys() >= {"mine", "mock", "gpt-4o", "gpt-5-mini", "claude-3-opus"}
    assert len(rows) == len(models.models(routes, everything)["data"])
    assert {name: rows[name]["available"] for name in ("mine", "gpt-5-mini", "claude-3-opus")} == {
        "mine": True,
        "gpt-5-mini": True,
        "claude-3-opus": False,
    }
    usable = models.models(routes, everything, only_available=True)["data"]
    assert [row["id"] for row in usable] == [name for name, row in rows.items() if row["available"]]
    for row in usable:
        assert routes.plan(row["id"])
    assert rows["gemini-1.5-pro"]["provider"] == "google"


def test_what_is_not_known_of_a_model_is_null() -> None:
    routes = router("local", models={"mine": ModelConfig(provider="local", max_tokens=99)})
    row = models.model(routes, "mine")
    assert row["capabilities"] == {
        "max_tokens": 99,
        "context_window": None,
        "supports_vision": None,
        "supports_function_calling": None,
        "supports_streaming": None,
        "cost_per_1k_input_tokens": None,
        "cost_per_1k_output_tokens": None,
        "avg_latency_ms": None,
    }
    assert (row["created"], row["owned_by"], row["tier"]) == (0, "local", None)
    assert msgspec.json.decode(msgspec.json.encode(row)) == row


def test_one_model_is_shown_by_any_name_that_a_call_could_use() -> None:
    routes = router("openai", defaults={"vitals": "gpt-4o"})
    assert models.model(routes, "vitals")["capabilities"]["max_tokens"] == 16384
    assert models.model(routes, "openai/gpt-4o")["available"] is True
    assert models.model(routes, "claude-3-opus")["available"] is False
    with pytest.raises(ModelNotFound, match="The model 'nope' does not exist"):
        models.model(routes, "nope")


def test_the_configured_models_are_listed_as_document_001_writes_them() -> None:
    entry = ModelConfig(
        provider="openai", input_cost=0.0000025, output_cost=0.00001, max_tokens=8192, timeout=60
    )
    routes = router("openai", models={"gpt-4o": entry}, defaults={"vitals": "gpt-4o"})
    listed = models.configured_models(routes)
    assert listed["defaults"] == {"vitals": "gpt-4o"}
    assert [row["id"] for row in listed["models"]] == ["gpt-4o", "mock"]
    assert listed["models"][0] == {
        "id": "gpt-4o",
        "provider": "openai",
        "engine": "gpt-4o",
        "input_cost": 0.0000025,
        "output_cost": 0.00001,
        "max_tokens": 8192,
        "timeout": 60,
        "fallbacks": [],
        "available": True,
    }
