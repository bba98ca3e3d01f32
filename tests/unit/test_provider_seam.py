"""A provider is one file: found by its name, checked when it is made."""

from pathlib import Path

import pytest

import workers.providers
from schemas.config import ProviderConfig
from schemas.ids import Clock
from workers.http import Http
from workers.providers import dialects, make

ADAPTER = """
class Echo:
    def __init__(self, name):
        self.name = name

def create(name, config, http, clock):
    return Echo(name)
"""


@pytest.fixture
async def http() -> Http:
    client = Http(Clock(), limit=1)
    await client.close()
    return client


def test_the_built_in_dialects_are_found() -> None:
    assert {"mock", "openai"} <= set(dialects())
    assert "base" not in dialects()


async def test_a_new_provider_is_one_new_file(
    http: Http, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "echo.py").write_text(ADAPTER)
    monkeypatch.setattr(workers.providers, "__path__", [*workers.providers.__path__, str(tmp_path)])
    assert "echo" in dialects()
    assert make("mine", ProviderConfig(dialect="echo"), http, Clock()).name == "mine"


@pytest.mark.parametrize("dialect", ["klingon", "base", "", "../http", "openai.x"])
async def test_an_unknown_dialect_is_named_with_the_known_ones(http: Http, dialect: str) -> None:
    with pytest.raises(ValueError) as caught:
        make("mine", ProviderConfig(dialect=dialect), http, Clock())
    known = ", ".join(dialects())
    assert "mock, ollama, openai" in known
    assert str(caught.value) == (
        f"providers.mine.dialect: expected one of {known}, got {dialect!r}"
    )
