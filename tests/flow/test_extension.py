"""The package of `docs/providers.md`: installed as it is printed, asked through a gateway."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from compose.settings import ConfigError
from tests.flow.gateway import KEY, Gateway, Provider, running_gateway
from tests.given_settings import from_yaml
from tests.plugin import installed
from tests.provider_pages import PAGE
from tests.upstream import Reply, json_reply

VENDOR_KEY = "acme-key-0123456789"


class Package:
    """What the page tells its reader to write and to configure, installed in a folder."""

    def __init__(self, folder: Path) -> None:
        page = PAGE.read_text().partition("## A provider of your own")[2]
        blocks = re.findall(r"```(\w+)\n(.*?)```", page, re.DOTALL)
        (self.pyproject,) = (text for kind, text in blocks if kind == "toml")
        (self.code,) = (text for kind, text in blocks if kind == "python")
        (self.configuration,) = (text for kind, text in blocks if kind == "yaml")
        self.site = folder / "site"
        source = folder / "acme-nexus"
        source.mkdir()
        (source / "pyproject.toml").write_text(self.pyproject)
        (source / "acme_nexus.py").write_text(self.code)
        uv = Path(sys.executable).with_name("uv")
        install = [uv, "pip", "install", "--offline", "--no-deps", "--no-build-isolation"]
        where = ["--python", sys.executable, "--target", self.site, source]
        done = subprocess.run([*install, *where], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    return Package(tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="module")
def vendor() -> Iterator[Provider]:
    vendor = Provider()
    vendor.start()
    yield vendor
    vendor.stop()


@pytest.fixture(scope="module")
def gateway(
    package: Package, vendor: Provider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    providers, models = package.configuration.removeprefix("providers:\n").split("models:\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(package.site))
        patch.setenv("PYTHONPATH", str(package.site))
        patch.setenv("ACME_URL", vendor.url)
        patch.setenv("ACME_API_KEY", VENDOR_KEY)
        with running_gateway(tmp_path_factory.mktemp("gateway"), models, providers) as gateway:
            yield gateway


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


def ask(client: OpenAI, **more: Any) -> Any:
    talk: Any = [{"role": "user", "content": "Hello out there"}]
    return client.chat.completions.create(model="acme-large", messages=talk, **more)


def test_a_call_is_asked_answered_and_charged(vendor: Provider, client: OpenAI) -> None:
    vendor.script(json_reply({"text": "Hi, reader.", "read": 1000, "written": 100}))
    answer = ask(client, max_tokens=200, temperature=0.5)
    assert answer.choices[0].message.content == "Hi, reader."
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.model, answer.provider) == ("acme-large", "acme")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (1000, 100)
    assert answer.cost["total_cost"] == 0.0026
    assert vendor.request.headers["Authorization"] == f"Bearer {VENDOR_KEY}"
    assert vendor.request.json == {
        "model": "large-2",
        "prompt": "user: Hello out there",
        "stream": False,
        "limit": 200,
        "warmth": 0.5,
    }


def test_a_stream_is_counted_by_the_class(vendor: Provider, client: OpenAI) -> None:
    lines = [json.dumps({"text": text}).encode() + b"\n" for text in ("one ", "two ", "three")]
    vendor.script(Reply(steps=tuple(lines)))
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    said = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert "".join(filter(None, said)) == "one two three"
    usage = chunks[-1].usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (3, 3)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_what_the_vendor_refuses_is_told_by_the_error_table(
    vendor: Provider, client: OpenAI, stream: bool
) -> None:
    refused = {"error": {"message": "You cannot have that."}}
    vendor.script(json_reply(refused, 422))
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        list(ask(client, stream=stream))
    told: Any = caught.value.body
    assert (told["type"], told["provider"]) == ("invalid_request_error", "acme")
    assert stream or told["message"] == "You cannot have that."


def test_a_vendor_that_recovers_is_not_noticed(vendor: Provider, client: OpenAI) -> None:
    whole = json_reply({"text": "There.", "read": 1, "written": 1})
    vendor.script(Reply(status=503), Reply(status=503), whole)
    assert ask(client).choices[0].message.content == "There."
    assert len(vendor.requests) == 3


def test_a_parameter_that_the_class_does_not_take_is_refused_by_name(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, extra_body={"base_url": "http://127.0.0.1:9/"})
    assert caught.value.param == "base_url"


def test_its_name_is_known_where_nobody_loads_it(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert gateway.children["worker"].pid is not None
    with pytest.raises(
        ConfigError, match=r"providers\.x\.dialect: expected one of acme, anthropic"
    ):
        from_yaml("providers: {x: {dialect: klingon}}")
    # The settings of this gateway were read in this process, too.
    assert "acme_nexus" not in sys.modules


def test_what_cannot_be_loaded_ends_the_worker_with_one_line(
    gateway: Gateway, tmp_path: Path
) -> None:
    (tmp_path / "nexus.yaml").write_text("providers: {mine: {dialect: acme}}")
    with installed(tmp_path, "import no_such_library", {"acme": "Acme"}) as module:
        environ = {"PYTHONPATH": os.pathsep.join(sys.path), "NEXUS_NATS_URL": gateway.bus}
        worker = [sys.executable, "-m", "compose.cli", "worker"]
        ended = subprocess.run(
            worker, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60
        )
    assert ended.returncode == 1
    (line,) = [line for line in ended.stdout.splitlines() if '"critical"' in line]
    assert (
        "providers.mine.dialect: it cannot be loaded: ModuleNotFoundError: No module named"
        f" 'no_such_library' (entry point 'acme = {module}:Acme' of package acme-nexus)"
    ) in line
