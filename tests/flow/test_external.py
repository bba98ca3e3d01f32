"""The same gateway against servers that are not ours: from the environment, or in containers.

NEXUS_TEST_NATS_URL names a NATS server (JetStream, 2.14 or newer) whose streams this test may use,
NEXUS_TEST_CLICKHOUSE_URL a ClickHouse server; with the first alone, analytics is embedded. The
tests marked `docker` start both themselves where a container runtime is.
"""

import asyncio
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
import yaml

from tests.cluster import KEY, ROOT, Role, until

NATS_IMAGE = "nats:2.14-alpine"
CLICKHOUSE_IMAGE = "clickhouse/clickhouse-server:25.8-alpine"


class Servers(NamedTuple):
    """Where the bus and the database are; no database address means embedded."""

    nats: str
    clickhouse: str


def _from_environment() -> Servers:
    nats = os.environ.get("NEXUS_TEST_NATS_URL", "")
    if not nats:
        pytest.skip("NEXUS_TEST_NATS_URL names no NATS server")
    return Servers(nats, os.environ.get("NEXUS_TEST_CLICKHOUSE_URL", ""))


def _in_containers(stack: ExitStack) -> Servers:
    if "DOCKER_HOST" not in os.environ and not Path("/var/run/docker.sock").exists():
        pytest.skip("there is no container runtime here")
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.waiting_utils import wait_for_logs

    nats = stack.enter_context(
        DockerContainer(NATS_IMAGE).with_command("-js").with_exposed_ports(4222)
    )
    wait_for_logs(nats, "Server is ready")
    clickhouse = stack.enter_context(
        DockerContainer(CLICKHOUSE_IMAGE)
        .with_env("CLICKHOUSE_PASSWORD", "test")
        .with_exposed_ports(8123)
    )
    host, port = clickhouse.get_container_host_ip(), clickhouse.get_exposed_port(8123)

    async def answers() -> bool:
        try:
            async with httpx.AsyncClient() as client:
                return (await client.get(f"http://{host}:{port}/ping")).status_code == 200
        except httpx.TransportError:
            return False

    asyncio.run(until(answers, 60.0, "for ClickHouse"))
    address = f"{nats.get_container_host_ip()}:{nats.get_exposed_port(4222)}"
    return Servers(f"nats://{address}", f"http://default:test@{host}:{port}/nexus_test")


@pytest.fixture(params=["environment", pytest.param("containers", marks=pytest.mark.docker)])
def servers(request: pytest.FixtureRequest) -> Iterator[Servers]:
    with ExitStack() as stack:
        yield _from_environment() if request.param == "environment" else _in_containers(stack)


def _role(name: str, servers: Servers, config: Path, *more: str) -> Role:
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "NEXUS_NATS_URL": servers.nats,
        "NEXUS_DATA_DIR": str(config.parent),
        "GATEWAY_API_KEYS": KEY,
        "ADMIN_TOKEN": "external-admin",
    }
    if servers.clickhouse:
        environ["NEXUS_CLICKHOUSE_URL"] = servers.clickhouse
    argv = [sys.executable, "-P", "-m", "compose.cli", name, "--config", str(config), *more]
    return Role(name, argv, environ)


async def test_a_call_streams_ends_and_is_counted_on_servers_of_ones_own(
    servers: Servers, tmp_path: Path
) -> None:
    config = tmp_path / "nexus.yaml"
    config.write_text(yaml.safe_dump({"log_level": "info"}))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    roles = [
        _role("worker", servers, config),
        _role("governor", servers, config),
        _role("analytics", servers, config),
        _role("ingress", servers, config, "--port", str(port)),
    ]
    try:
        for role in roles:
            await role.start()
        url = f"http://127.0.0.1:{port}"
        body = {"model": "mock", "messages": [{"role": "user", "content": "hi"}], "stream": True}
        async with httpx.AsyncClient(timeout=30.0) as client:
            answer = await client.post(
                f"{url}/v1/chat/completions", json=body, headers={"X-API-Key": KEY}
            )
            assert answer.text.endswith("data: [DONE]\n\n")
            call_id = answer.headers["x-request-id"].removeprefix("req_")

            async def rows() -> list[list[object]]:
                query = f"select event_type from events where call_id = '{call_id}' order by seq"
                reply = await client.post(
                    f"{url}/api/v1/analytics/sql",
                    json={"query": query},
                    headers={"X-API-Key": "external-admin"},
                )
                found: list[list[object]] = reply.json()["rows"] if reply.is_success else []
                return found if ["model.request.complete"] in found else []

            await until(rows, 40.0, "for the projection")
            assert (await rows())[0] == ["model.request.start"]
    finally:
        for role in reversed(roles):
            await role.kill()
