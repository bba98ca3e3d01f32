"""What `docs/providers.md` says of vendors is what is built in, and its examples can be used."""

import re
from pathlib import Path

import pytest

from schemas.config import ProviderConfig
from tests.given_settings import from_yaml
from tests.provider_pages import PAGE, with_vendors

PROVIDERS = PAGE.read_text().partition("## A provider of your own")[0]
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PROVIDERS, re.DOTALL)


def test_the_table_of_vendors_is_current() -> None:
    text = PAGE.read_text()
    assert "| groq | openai | `GROQ_API_KEY` | `https://api.groq.com/openai/v1` |" in text
    assert with_vendors(text) == text, "python -m tests.provider_pages writes it anew"


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_a_configuration_that_works(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    variables = dict.fromkeys(re.findall(r"\$\{(\w+)\}", example), "a-key")
    loaded = from_yaml(example, variables)
    assert not [notice for notice in loaded.notices if notice.startswith("providers.")]
    assert len(loaded.config.providers) > 1, "one of its own beside the mock"


def test_every_setting_of_a_provider_is_told() -> None:
    table = set(re.findall(r"`(\w+)`", PROVIDERS.partition("## The dialects")[0]))
    assert set(ProviderConfig.__struct_fields__) <= table
