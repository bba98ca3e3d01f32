"""Settings as tests give them: a file's text or variables, loaded in the working folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from compose.settings import ConfigError, Loaded, load


def from_yaml(text: str, env: Mapping[str, str] | None = None, **overrides: Any) -> Loaded:
    Path("given.yaml").write_text(text, encoding="utf-8")
    return load("given.yaml", env or {}, overrides)


def from_env(**env: str) -> Loaded:
    return load(None, env, {})


def complaint(text: str, env: Mapping[str, str] | None = None, **overrides: Any) -> str:
    """What is said of a file that cannot be used."""
    with pytest.raises(ConfigError) as caught:
        from_yaml(text, env, **overrides)
    return str(caught.value)


def complaint_of(env: Mapping[str, str]) -> str:
    """What is said of variables that cannot be used."""
    with pytest.raises(ConfigError) as caught:
        load(None, env, {})
    return str(caught.value)
