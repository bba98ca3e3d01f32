"""Setting up a bus: by whom, what it says it did, and what a role says that misses something."""

from pathlib import Path

import pytest

from compose import setup
from compose.nats_server import NatsServer
from ledger.permissions import USERS
from ledger.streams import BusNotReady, ensure
from schemas import subjects
from schemas.config import Config, QueueConfig
from tests.flow.bus_permissions.users import PROVIDERS, as_user, config_at
from tests.foreign_nats import server_with


@pytest.mark.parametrize("role", ["ingress", "worker", "governor"])
async def test_a_role_starts_without_the_right_to_change_streams(
    server: NatsServer, role: str
) -> None:
    async with as_user(server, role) as connection:
        assert await ensure(connection, config_at(server.url_of(role))) == []


async def test_setting_up_says_what_it_has_done_and_does_only_what_is_needed(
    nats_server: NatsServer,
) -> None:
    config = config_at(nats_server.url)
    async with as_user(nats_server, "operator") as operator:
        first = await ensure(operator, config)
        assert first[0] == "stream LEDGER created"
        assert first[-1] == "consumer mock-batch created"
        assert len(first) == 8
        assert await ensure(operator, config) == []
        await operator.request(subjects.api("STREAM.DELETE", subjects.BLOBS))
        wider = Config(providers=PROVIDERS, queue=QueueConfig(max_waiting=7, ack_wait=9.0))
        assert await ensure(operator, wider) == [
            "stream WORK updated",
            "stream BLOBS created",
            "consumer mock-interactive updated",
            "consumer mock-batch updated",
        ]
        assert await ensure(operator, wider) == []


async def test_a_role_that_misses_something_says_what_to_do(set_up: NatsServer) -> None:
    async with as_user(set_up, "operator") as operator:
        await operator.request(subjects.api("CONSUMER.DELETE", subjects.WORK, "mock-batch"))
    async with as_user(set_up, "worker") as worker:
        with pytest.raises(BusNotReady, match=r"consumer mock-batch is missing.*`nexus setup`"):
            await ensure(worker, config_at(set_up.url_of("worker")))
        other = Config(providers=PROVIDERS, queue=QueueConfig(max_waiting=7))
        with pytest.raises(BusNotReady, match="stream WORK is not as the configuration wants it"):
            await ensure(worker, other)


def test_setup_is_a_command_of_its_own(
    nats_server: NatsServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert setup.run(config_at(nats_server.url_of("worker"))) == 1
    assert "nexus setup: the bus forbids operator to subscribe" in capsys.readouterr().err
    assert setup.run(config_at(nats_server.url)) == 0
    assert capsys.readouterr().out.startswith("stream LEDGER created\nstream WORK created\n")
    assert setup.run(config_at(nats_server.url)) == 0
    assert capsys.readouterr().out == "All streams and consumers are as they should be.\n"
    assert setup.run(config_at("nats://127.0.0.1:9")) == 1
    assert "nexus setup: no NATS server at 127.0.0.1:9" in capsys.readouterr().err


def test_the_block_for_external_servers_is_one_that_a_server_takes(tmp_path: Path) -> None:
    block = setup.authorization(Config())
    for user in USERS:
        assert f'user: "{user}", password: "PASSWORD_OF_{user.upper()}"' in block
    store = f'jetstream {{ store_dir: "{tmp_path / "store"}" }}\n'
    with server_with(store + block, tmp_path) as port:
        setup.prepare(config_at(f"nats://operator:PASSWORD_OF_OPERATOR@127.0.0.1:{port}"))
