"""The bus of `nexus up`: who gets which of its users, and that it is always set up."""

import asyncio
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nats
import pytest

from ledger.connection import Connection
from schemas import subjects
from schemas.config import BusConfig
from tests.flow.test_up import ROLES, Up, running, until


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running(tmp_path_factory.mktemp("up-bus")) as one:
        yield one.complete()


def variables(up: Up, role: str) -> dict[str, str]:
    """The environment of a role's process."""
    block = Path(f"/proc/{up.pid(f'compose.cli {role}')}/environ").read_text()
    return dict(line.split("=", 1) for line in block.split("\0") if "=" in line)


def password(up: Up, user: str) -> str:
    return (up.data / "nats" / "users" / user).read_text()


@pytest.mark.parametrize("role", ROLES)
def test_a_role_is_told_its_own_user_and_no_other(up: Up, role: str) -> None:
    told = variables(up, role)
    address = urlsplit(told["NEXUS_NATS_URL"])
    assert (address.username, address.password) == (role, password(up, role))
    others = {*ROLES, "monitor", "operator"} - {role}
    assert not [user for user in others if password(up, user) in str(told)]


async def test_the_banner_says_how_a_monitor_hears_the_events(up: Up) -> None:
    found = re.search(r"bus +(nats://monitor@\S+) \(.*password in (\S+)\)", up.out)
    assert found, up.out
    assert not re.search("[0-9a-f]{32}", up.out)
    heard: asyncio.Queue[str] = asyncio.Queue()

    async def on_event(message: Any) -> None:
        await heard.put(message.subject)

    assert found[2] == str(up.data / "nats" / "users" / "monitor")
    url = found[1].replace("monitor@", f"monitor:{password(up, 'monitor')}@")
    client = await nats.connect(url)
    await client.subscribe("agent.events.>", cb=on_event)
    await client.flush()
    answer = await asyncio.to_thread(up.ask)
    assert answer.status_code == 200
    async with asyncio.timeout(10):
        assert await heard.get() == "agent.events.model.request.start"
    await client.close()


async def test_a_stream_that_got_lost_is_made_again_with_the_next_start_of_the_bus(up: Up) -> None:
    port = re.search(r"monitor@127\.0\.0\.1:(\d+)", up.out)
    assert port
    url = f"nats://operator:{password(up, 'operator')}@127.0.0.1:{port[1]}"
    operator = await Connection.connect(BusConfig(url=url), name="test")
    await operator.request(subjects.api("STREAM.DELETE", subjects.BLOBS))
    info = subjects.api("STREAM.INFO", subjects.BLOBS)
    assert b"stream not found" in (await operator.request(info)).data
    os.kill(up.pid("nats-server"), signal.SIGKILL)
    async with asyncio.timeout(20):
        while not operator.reconnects:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        while b'"error"' in (await operator.request(info, timeout=5.0)).data:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await operator.close()
    await asyncio.to_thread(until, lambda: up.ask().status_code == 200)
