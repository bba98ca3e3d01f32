"""One gateway with keys, projects, teams and budgets of its own for all tests of its admin API."""

from collections.abc import Iterator

import httpx
import pytest

from tests.flow.admin_api.asking import FILE_KEY, SECRET
from tests.flow.gateway import ADMIN, Gateway, running_gateway

CONFIG = """
secret: "${TEST_SECRET}"
tiers: {gold: {requests_per_minute: 1000}}
keys:
  file-key: {key: "${TEST_KEY}", name: From the file, project: declared}
projects:
  declared: {name: Declared, team: declared}
teams:
  declared: {tier: gold, budgets: [{period: month, limit_usd: 0.25}]}
"""


@pytest.fixture(scope="package")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_SECRET", SECRET)
        patch.setenv("TEST_KEY", FILE_KEY)
        with running_gateway(tmp_path_factory.mktemp("admin"), CONFIG) as gateway:
            yield gateway


@pytest.fixture
def admin(gateway: Gateway) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=f"{gateway.url}/admin", headers={"authorization": f"Bearer {ADMIN}"}, timeout=30
    ) as client:
        yield client
