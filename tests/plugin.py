"""Packages with providers, installed for one test: a folder on the path, as pip would leave it."""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from itertools import count
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from schemas.config import ProviderConfig
from schemas.ids import Clock
from workers.http import Http
from workers.providers import make
from workers.providers.base import Answer, Provider

_numbers = count(1)


@contextmanager
def installed(
    folder: Path, code: str, entry_points: Mapping[str, str], package: str = "acme-nexus"
) -> Iterator[str]:
    """Installs a package of one module; the entry points give dialects by what stands behind the
    colon of their value. The result is the module's name."""
    module = f"acme_plugin_{next(_numbers)}"
    site = folder / module
    info = site / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [f"{dialect} = {module}:{name}" for dialect, name in entry_points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[nexus.providers]", *lines]) + "\n")
    (site / f"{module}.py").write_text(dedent(code))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        yield module
    sys.modules.pop(module, None)


class Plugins:
    """Installs packages and makes providers of them, until the test ends."""

    def __init__(self, folder: Path, http: Http) -> None:
        self._folder = folder
        self._http = http
        self._exits = AsyncExitStack()

    async def __aenter__(self) -> "Plugins":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exits.aclose()

    def install(self, code: str, name: str = "Acme", dialect: str = "acme", **more: Any) -> str:
        return self._exits.enter_context(installed(self._folder, code, {dialect: name}, **more))

    def make(self, code: str, /, **settings: Any) -> Provider:
        """The provider of a package with this code, under the name `mine`."""
        self.install(code)
        return self.made(**settings)

    def made(self, **settings: Any) -> Provider:
        """The provider of the package that is installed."""
        config = ProviderConfig(dialect="acme", **settings)
        provider = make("mine", config, self._http, Clock())
        self._exits.push_async_callback(provider.close)
        return provider


def provider_class(whole: str = "", stream: str = "", more: str = "", init: str = "") -> str:
    """A class with these statements in its methods."""
    return f"""
import asyncio, sys, threading, time
from dataclasses import dataclass

class Acme:
    def __init__(self{init}):
        self.given = {{name: value for name, value in locals().items() if name != "self"}}

    async def complete(self, messages, model, **kwargs):
        {whole or "return 'Hello'"}

    async def stream(self, messages, model, **kwargs):
        {stream or "yield 'Hello'"}

    {more}
"""


def shown(answer: Answer) -> Any:
    return json.loads(answer.body)


def message(answer: Answer) -> Any:
    return shown(answer)["choices"][0]["message"]
