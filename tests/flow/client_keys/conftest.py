"""One gateway and two upstreams for all tests of the client's own keys."""

from collections.abc import Iterator

import pytest

from tests.flow.client_keys.place import SECRET, Place
from tests.flow.gateway import Provider, running_gateway

MODELS = """
  own-first: {provider: needy, engine: n-1, fallbacks: [up-model]}
  up-first: {provider: up, engine: u-1, fallbacks: [needy/n-2]}
  dear: {provider: needy, engine: n-3, input_cost: 0.000001, output_cost: 0.000002}
secret: ["${TEST_SERVER_SECRET}"]
"""


@pytest.fixture(scope="package")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    other = Provider()
    other.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_SERVER_SECRET", SECRET)
        with running_gateway(
            tmp_path_factory.mktemp("keys"),
            f'{MODELS}target_url: "{other.url}"\n',
            f'  needy: {{dialect: openai, base_url: "{other.url}/v1", client_keys: required}}\n'
            f'  closed: {{dialect: openai, base_url: "{other.url}/v1", client_keys: refused}}\n',
        ) as gateway:
            yield Place(gateway, other)
    other.stop()
