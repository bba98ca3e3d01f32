"""Packages with providers, installed for one test: a folder on the path, as pip would leave it."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from textwrap import dedent

import pytest

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
