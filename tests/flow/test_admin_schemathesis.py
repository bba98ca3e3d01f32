"""Schemathesis reads the OpenAPI document and sends the admin API what it allows and what not."""

import asyncio
import json
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.config import BusConfig, Config
from tests.flow.gateway import ADMIN, Gateway, running_gateway
from tests.warehouse import child

SCHEMATHESIS = Path(sysconfig.get_path("scripts")) / "schemathesis"
# Whether a tier is known or a time is still to come no schema can say, and the router names one
# method of several in `Allow`.
NOT_CHECKED = "positive_data_acceptance,allow_header_conformance"
# What no admin operation makes cannot be found by one.
OF_CALLS = "GET /admin/calls/{call_id}/budget"
CALL = {"model": "mock", "messages": [{"role": "user", "content": "Hi"}]}
CONFIG = """
secret: "${TEST_SECRET}"
tiers: {gold: {requests_per_minute: 10}}
"""


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    monkeypatch.setenv("TEST_SECRET", "a-server-secret-of-the-tests")
    with running_gateway(tmp_path, CONFIG) as gateway:
        config = Config(data_dir=str(tmp_path / "data"), bus=BusConfig(url=gateway.bus))
        with child(config) as analytics:
            asyncio.run(analytics.ready())
            yield gateway


def fuzz(gateway: Gateway, folder: Path) -> dict[str, Any]:
    """The report of a run over all admin operations, a process of its own: its libraries warn."""
    run = subprocess.run(
        [
            *(str(SCHEMATHESIS), "run", f"{gateway.url}/openapi.json"),
            *("--include-path-regex", "^/admin/"),
            *("--header", f"Authorization: Bearer {ADMIN}"),
            *("--checks", "all", "--exclude-checks", NOT_CHECKED, "--continue-on-failure"),
            *("--mode", "all", "--max-examples", "20", "--generation-deterministic"),
            *("--report", "json", "--report-json-path", str(folder / "report.json")),
            "--no-color",
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return report


def accepted(phases: dict[str, dict[str, int]]) -> int:
    return sum(phase["accepted"] for phase in phases.values())


@pytest.mark.slow
def test_no_request_that_the_document_describes_or_forbids_makes_the_admin_api_fail(
    gateway: Gateway, tmp_path: Path
) -> None:
    paths = gateway.client.get("/openapi.json").json()["paths"]
    operations = {
        f"{method.upper()} {path}"
        for path, methods in paths.items()
        if path.startswith("/admin/")
        for method in methods
    }
    assert len(operations) >= 20
    report = fuzz(gateway, tmp_path)
    assert (report["failures"], report["errors"]) == ([], [])
    assert report["operations"]["tested"] == len(operations)
    assert report["test_cases"]["generated"] > 1000
    # Every operation was not only refused.
    rates = report["valid_rates"]
    done = {name for name in operations if name in rates and accepted(rates[name])}
    assert done == operations - {OF_CALLS}

    lines = [json.loads(line) for line in gateway.log.read_text().splitlines()]
    assert [line for line in lines if line["level"] in ("error", "critical")] == []
    assert gateway.children["ingress"].exit_code() is None
    admin = {"authorization": f"Bearer {ADMIN}"}
    key = gateway.client.post("/admin/keys", headers=admin).json()["key"]
    assert gateway.post(headers={"authorization": f"Bearer {key}"}, json=CALL).status_code == 200
