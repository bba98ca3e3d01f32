"""One llmock and one gateway for all tests of this folder, and one gateway at a scripted server."""

from collections.abc import Iterator

import pytest
from openai import OpenAI

from tests.flow.gateway import KEY, Gateway, running_gateway
from tests.flow.gateway import Provider as Upstream
from tests.flow.providers.dialects import DIALECTS, providers_at
from tests.flow.providers.vendors import SCRIPTED_MODELS, VERTEX_TOKEN, Scripted, vendors_at
from tests.llmock_server import LLMock, llmock_server

SECRET = "a secret for the keys that clients bring"
KEYS_OF_CLIENTS = 'secret: ["${TEST_SERVER_SECRET}"]\n'
MODELS = """
  llmock/gpt-4o: {provider: llmock, engine: gpt-4o, input_cost: 0.000001, output_cost: 0.000002}
"""


@pytest.fixture(scope="package")
def llmock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLMock]:
    log = tmp_path_factory.mktemp("llmock") / "log"
    with llmock_server(log, "--response-style", "echo") as server:
        yield server


@pytest.fixture(scope="package")
def gateway(llmock: LLMock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway whose providers are llmock's dialects; `hasty/...` wait for a second only, and
    `safe/...` have another provider behind them."""
    others = [
        f"  {name}/{one.provider}: {{provider: {one.provider}, engine: {one.engine}, {more}}}\n"
        for name, more in (("hasty", "timeout: 1"), ("safe", "fallbacks: [up-model]"))
        for one in DIALECTS
    ]
    folder = tmp_path_factory.mktemp("providers")
    config = MODELS + "".join(others) + KEYS_OF_CLIENTS
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_SERVER_SECRET", SECRET)
        with running_gateway(folder, config, providers_at(llmock)) as gateway:
            yield gateway


@pytest.fixture(scope="package")
def client(gateway: Gateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture(scope="package")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scripted]:
    """A gateway whose providers are one scripted server, each under its vendor's name."""
    upstream = Upstream()
    upstream.start()
    folder = tmp_path_factory.mktemp("scripted")
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TEST_SERVER_SECRET", SECRET)
            patch.setenv("TEST_VERTEX_TOKEN", VERTEX_TOKEN)
            providers = vendors_at(upstream.url)
            with running_gateway(folder, SCRIPTED_MODELS + KEYS_OF_CLIENTS, providers) as gateway:
                yield Scripted(gateway, upstream)
    finally:
        upstream.stop()
