"""Who we are to the bus: passwords, permissions and TLS, and what is said when they are wrong."""

import shutil
import subprocess
from pathlib import Path

import pytest

from compose.nats_server import NatsServer
from ledger.connection import BusRefused, Connection
from schemas.config import BusConfig
from tests.flow.connection.servers import MEGABYTE, connected, until
from tests.foreign_nats import server_with


def certificate_in(folder: Path) -> tuple[Path, Path]:
    """A fresh key and self-signed certificate for 127.0.0.1."""
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
        f" -subj /CN=nats -addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {cert}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    return key, cert


async def test_a_wrong_password_is_refused_at_once(nats_server: NatsServer) -> None:
    config = BusConfig(
        url=f"nats://127.0.0.1:{nats_server.port}", user="operator", password="wrong"
    )
    with pytest.raises(BusRefused, match="Authorization Violation"):
        await Connection.connect(config, name="test")


async def test_user_and_password_may_stand_in_the_configuration(nats_server: NatsServer) -> None:
    _, _, rest = nats_server.url.partition("operator:")
    password, _, address = rest.partition("@")
    config = BusConfig(url=f"nats://{address}", user="operator", password=password)
    bus = await Connection.connect(config, name="test")
    await bus.flush()
    await bus.close()


async def test_credentials_that_change_during_an_outage_are_fatal(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    fatal: list[str] = []
    async with connected(nats_server.url, fatal.append) as bus:
        nats_server.kill()
        (tmp_path / "nats" / "users" / "operator").write_text("another")
        nats_server.start()
        await until(lambda: bool(fatal))
        assert "Authorization Violation" in fatal[0]
        assert not bus.connected


async def test_a_connection_that_begins_and_is_refused_says_so_once(
    nats_server: NatsServer,
) -> None:
    fatal: list[str] = []
    config = BusConfig(
        url=f"nats://127.0.0.1:{nats_server.port}", user="operator", password="wrong"
    )
    bus = Connection.begin(config, name="test", on_fatal=fatal.append)
    await until(lambda: bool(fatal))
    assert not await bus.reached(0.6)
    assert "Authorization Violation" in fatal[0]
    assert len(fatal) == 1
    await bus.close()


async def test_a_missing_permission_is_fatal_and_harms_nothing_else(tmp_path: Path) -> None:
    fatal: list[str] = []
    config = """
    authorization { users = [ { user: w, password: pw, permissions: {
        publish: { deny: ["ledger.ingress.>"] }, subscribe: { deny: ["secret"] } } } ] }
    """
    with server_with(config, tmp_path) as port:
        async with connected(f"nats://w:pw@127.0.0.1:{port}", fatal.append) as bus:
            bus.publish("ledger.ingress.x", b"forged")
            await bus.flush()
            assert "forbids test to publish to ledger.ingress.x" in fatal[0]
            bus.subscribe("secret", lambda message: None)
            await bus.flush()
            assert "forbids test to subscribe to secret" in fatal[1]
            assert len(fatal) == 2
            assert bus.reconnects == 0


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make certificates")
async def test_tls_is_spoken_and_certificates_are_checked(tmp_path: Path) -> None:
    key, cert = certificate_in(tmp_path)
    with server_with(f'tls {{ cert_file: "{cert}", key_file: "{key}" }}', tmp_path) as port:
        heard: list[bytes] = []
        for scheme in ("tls", "nats"):
            config = BusConfig(url=f"{scheme}://127.0.0.1:{port}", tls_ca=str(cert))
            bus = await Connection.connect(config, name="test")
            bus.subscribe("a", lambda message: heard.append(message.data))
            bus.publish("a", bytes(MEGABYTE))
            await bus.flush(timeout=5)
            await bus.close()
        assert heard == [bytes(MEGABYTE)] * 2
        with pytest.raises(BusRefused, match="not trusted"):
            await Connection.connect(BusConfig(url=f"tls://127.0.0.1:{port}"), name="test")
        absent = BusConfig(url=f"tls://127.0.0.1:{port}", tls_ca=str(tmp_path / "absent"))
        with pytest.raises(BusRefused, match="tls_ca"):
            await Connection.connect(absent, name="test")


async def test_no_password_is_sent_in_the_clear_where_tls_was_asked_for(
    nats_server: NatsServer,
) -> None:
    with pytest.raises(BusRefused, match="offers no TLS"):
        await Connection.connect(
            BusConfig(url=nats_server.url.replace("nats://", "tls://")), name="test"
        )
