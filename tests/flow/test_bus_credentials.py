"""Every way to show a bus who we are, by both clients that the roles use."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from nats.errors import ConnectionClosedError

from compose import setup
from ledger import permissions
from ledger.broker import broker
from ledger.connection import BusRefused, Connection
from ledger.nkeys import BadNkey, Nkey, read_creds
from schemas import subjects
from schemas.config import BusConfig, Config, ProviderConfig
from tests.bus_keys import Authority, Pair, creds
from tests.foreign_nats import server_with

ROOT = Path(__file__).parents[2]
ALICE, BOB = Pair("user", 1), Pair("user", 2)
OPERATOR, ACCOUNT, SYSTEM = Pair("operator", 1), Pair("account", 1), Pair("account", 2)
TRAFFIC = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
STORAGE = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)


async def speaks(config: BusConfig) -> None:
    """Our own connection asks what FastStream's answers, each with these credentials."""
    refused: list[str] = []
    worker = broker(config, role="worker", on_fatal=refused.append)

    @worker.subscriber(subjects.ping("p"))
    async def pong(body: bytes) -> bytes:
        return b"pong"

    async with asyncio.timeout(10), worker:
        await worker.start()
        await worker.connection.flush()
        connection = await Connection.connect(config, name="worker", on_fatal=refused.append)
        answer = await connection.request(subjects.ping("p"))
        assert answer.data == b"pong"
        await connection.close()
    assert refused == []


async def is_refused(config: BusConfig, match: str) -> str:
    """Both clients end with the same sentence, or the second is not even begun."""
    with pytest.raises(BusRefused, match=match) as refused:
        await Connection.connect(config, name="worker")
    return str(refused.value)


async def both_are_refused(config: BusConfig, match: str) -> str:
    reason = await is_refused(config, match)
    heard = asyncio.Event()
    reasons: list[str] = []

    def on_fatal(said: str) -> None:
        reasons.append(said)
        heard.set()

    worker = broker(config, role="worker", on_fatal=on_fatal)
    starting = asyncio.create_task(worker.start())
    async with asyncio.timeout(10):
        await heard.wait()
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    assert [said.lower() for said in reasons] == [reason.lower()]
    return reason


async def test_user_and_password(tmp_path: Path) -> None:
    with server_with("authorization { user: u, password: p }", tmp_path) as port:
        await speaks(BusConfig(url=f"nats://u:p@127.0.0.1:{port}"))
        await speaks(BusConfig(url=f"nats://127.0.0.1:{port}", user="u", password="p"))
        wrong = BusConfig(url=f"nats://u:hidden@127.0.0.1:{port}")
        reason = await both_are_refused(wrong, "does not accept who we are as worker")
        assert "NEXUS_NATS_USER" in reason
        assert "hidden" not in reason


async def test_token(tmp_path: Path) -> None:
    with server_with("authorization { token: t }", tmp_path) as port:
        await speaks(BusConfig(url=f"nats://t@127.0.0.1:{port}"))
        await speaks(BusConfig(url=f"nats://127.0.0.1:{port}", user="t"))
        await both_are_refused(BusConfig(url=f"nats://x@127.0.0.1:{port}"), "who we are")


async def test_nkey(tmp_path: Path) -> None:
    config = f"authorization {{ users = [ {{ nkey: {ALICE.public} }} ] }}"
    with server_with(config, tmp_path) as port:
        url = f"nats://127.0.0.1:{port}"
        await speaks(BusConfig(url=url, nkey_seed=ALICE.seed))
        reason = await both_are_refused(BusConfig(url=url, nkey_seed=BOB.seed), "who we are")
        assert "NEXUS_NATS_NKEY_SEED" in reason
        assert BOB.seed not in reason


async def test_what_is_no_nkey_is_said_and_not_shown(tmp_path: Path) -> None:
    spoilt = ALICE.seed[:-3] + ("AAA" if ALICE.seed[-3:] != "AAA" else "BBB")
    for seed, why in (
        (spoilt, "not copied as a whole"),
        (ALICE.seed[:-2], "NEXUS_NATS_NKEY_SEED: "),
        (Pair("account", 1).seed, "not the seed of a user"),
        (ALICE.public, "NEXUS_NATS_NKEY_SEED: "),
        ("not base32!", "base32"),
    ):
        with server_with("", tmp_path) as port:
            config = BusConfig(url=f"nats://127.0.0.1:{port}", nkey_seed=seed)
            reason = await is_refused(config, why)
            assert seed not in reason


async def test_a_key_for_a_server_that_asks_for_none_is_said(tmp_path: Path) -> None:
    with server_with("authorization { user: u, password: p }", tmp_path) as port:
        config = BusConfig(url=f"nats://127.0.0.1:{port}", nkey_seed=ALICE.seed)
        await is_refused(config, "does not ask for keys")


async def test_the_credentials_of_an_address_win_over_keys(tmp_path: Path) -> None:
    with server_with("authorization { user: u, password: p }", tmp_path) as port:
        await speaks(BusConfig(url=f"nats://u:p@127.0.0.1:{port}", nkey_seed=ALICE.seed))


def accounts(folder: Path) -> str:
    """The configuration of a server that believes one operator, with two accounts."""
    limits = {**TRAFFIC, "wildcards": True}
    preload = {
        pair.public: OPERATOR.claim(pair, name, {"type": "account", "limits": own})
        for name, pair, own in (
            ("nexus", ACCOUNT, {**limits, **STORAGE}),
            ("system", SYSTEM, limits),
        )
    }
    lines = "".join(f"  {public}: {jwt}\n" for public, jwt in preload.items())
    operator = {"type": "operator", "system_account": SYSTEM.public}
    return (
        f"operator: {OPERATOR.claim(OPERATOR, 'O', operator)}\n"
        f"system_account: {SYSTEM.public}\nresolver: MEMORY\nresolver_preload {{\n{lines}}}\n"
        f'jetstream {{ store_dir: "{folder / "store"}" }}\n'
    )


def user_jwt(role: str, pair: Pair, **claims: int) -> str:
    """A user's JWT with the permissions of a role."""
    unlimited = {"subs": -1, "data": -1, "payload": -1}
    nats: dict[str, object] = {"type": "user", **unlimited}
    if role in permissions.ROLES:
        own = permissions.ROLES[role]
        nats["pub"] = {"allow": list(own.publish)}
        nats["sub"] = {"allow": list(own.subscribe)}
        nats["resp"] = {"max": 1, "ttl": 60_000_000_000}
    return ACCOUNT.claim(pair, role, nats, **claims)


async def test_credentials_of_an_account(tmp_path: Path) -> None:
    file = tmp_path / "alice.creds"
    file.write_text(creds(user_jwt("operator", ALICE), ALICE))
    stranger = tmp_path / "bob.creds"
    stranger.write_text(creds(user_jwt("operator", ALICE), BOB))
    with server_with(accounts(tmp_path), tmp_path) as port:
        url = f"nats://127.0.0.1:{port}"
        await speaks(BusConfig(url=url, creds=str(file)))
        reason = await both_are_refused(BusConfig(url=url, creds=str(stranger)), "who we are")
        assert "NEXUS_NATS_CREDS" in reason
        await is_refused(BusConfig(url=url, creds=str(tmp_path / "absent")), "No such file")
        file.write_text("-----BEGIN NATS USER JWT-----\nx\n------END NATS USER JWT------\n")
        await is_refused(BusConfig(url=url, creds=str(file)), "no USER NKEY SEED in it")


async def test_credentials_may_be_renewed_while_we_run(tmp_path: Path) -> None:
    file = tmp_path / "worker.creds"
    file.write_text(creds(user_jwt("operator", ALICE), ALICE))
    with server_with(accounts(tmp_path), tmp_path) as port:
        config = BusConfig(url=f"nats://127.0.0.1:{port}", creds=str(file))
        connection = await Connection.connect(config, name="worker")
        back = asyncio.Event()
        connection.on_reconnect(back.set)
    file.write_text(creds(user_jwt("operator", BOB), BOB))
    again = accounts(tmp_path).replace("resolver: MEMORY", f"resolver: MEMORY\nport: {port}")
    with server_with(again, tmp_path):
        async with asyncio.timeout(10):
            await back.wait()
        await connection.flush()
    await connection.close()


async def test_credentials_that_expire_end_what_cannot_renew_them(tmp_path: Path) -> None:
    file = tmp_path / "worker.creds"
    file.write_text(creds(user_jwt("operator", ALICE, exp=int(time.time()) + 2), ALICE))
    reasons: list[str] = []
    heard = asyncio.Event()
    back = asyncio.Event()

    def on_fatal(reason: str) -> None:
        reasons.append(reason)
        heard.set()

    with server_with(accounts(tmp_path), tmp_path) as port:
        config = BusConfig(url=f"nats://127.0.0.1:{port}", creds=str(file))
        connection = await Connection.connect(config, name="worker", on_fatal=on_fatal)
        connection.on_reconnect(back.set)
        worker = broker(config, role="worker", on_fatal=on_fatal)
        await worker.start()
        file.write_text(creds(user_jwt("operator", ALICE), ALICE))
        async with asyncio.timeout(10):
            await heard.wait()
            await back.wait()
        await connection.flush()
        await connection.close()
        with pytest.raises(ConnectionClosedError):
            await worker.stop()
    (reason,) = reasons
    assert "does not accept who we are as worker (user authentication expired)" in reason


def test_a_role_works_with_the_credentials_of_its_user(tmp_path: Path) -> None:
    for role, pair in (("operator", ALICE), ("worker", BOB)):
        (tmp_path / f"{role}.creds").write_text(creds(user_jwt(role, pair), pair))
    with server_with(accounts(tmp_path), tmp_path) as port:
        url = f"nats://127.0.0.1:{port}"
        bus = BusConfig(url=url, creds=str(tmp_path / "operator.creds"))
        mock = {"mock": ProviderConfig(dialect="mock")}
        assert len(setup.prepare(Config(bus=bus, providers=mock))) == 8
        process = _worker(tmp_path, NEXUS_NATS_URL=url, NEXUS_NATS_CREDS="worker.creds")
        try:
            _await_line(process, lambda line: "worker ready" in line)
        finally:
            process.terminate()
            process.communicate(timeout=20)
        assert process.returncode == 0


def _worker(folder: Path, **environ: str) -> "subprocess.Popen[str]":
    kept = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "GATEWAY_API_KEYS": "k"}
    command = [sys.executable, "-P", "-m", "compose.cli", "worker"]
    return subprocess.Popen(
        command, cwd=folder, env={**kept, **environ}, stdout=subprocess.PIPE, text=True
    )


def _await_line(process: "subprocess.Popen[str]", is_it: Callable[[str], bool]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if is_it(line):
            return
    raise AssertionError("it ended before that")


async def test_tls_with_an_authority_of_ones_own(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = authority.certificate("server")
    config = f'tls {{ cert_file: "{server.cert}", key_file: "{server.key}" }}\n'
    login = "authorization { user: u, password: p }\n"
    with server_with(config + login, tmp_path) as port:
        for scheme in ("tls", "nats"):
            url = f"{scheme}://u:p@127.0.0.1:{port}"
            await speaks(BusConfig(url=url, tls_ca=str(authority.own.cert)))
        await is_refused(BusConfig(url=f"tls://u:p@127.0.0.1:{port}"), "not trusted")
        other = Authority(tmp_path, "another")
        stranger = BusConfig(url=f"tls://u:p@127.0.0.1:{port}", tls_ca=str(other.own.cert))
        await is_refused(stranger, "not trusted")


async def test_tls_with_certificates_on_both_sides(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "another")
    server, client = authority.certificate("server"), authority.certificate("client")
    forged = other.certificate("forged")
    config = (
        f'tls {{ cert_file: "{server.cert}", key_file: "{server.key}", verify: true\n'
        f'  ca_file: "{authority.own.cert}" }}\n'
    )
    with server_with(config, tmp_path) as port:

        def bus(cert: Path | str, key: Path | str) -> BusConfig:
            return BusConfig(
                url=f"tls://127.0.0.1:{port}",
                tls_ca=str(authority.own.cert),
                tls_cert=str(cert),
                tls_key=str(key),
            )

        await speaks(bus(client.cert, client.key))
        await is_refused(bus("", ""), "refuses our certificate: set tls_cert and tls_key")
        await is_refused(bus(forged.cert, forged.key), "refuses our certificate")
        await is_refused(bus(client.cert, tmp_path / "absent"), r"tls_key .*absent")


def test_a_file_without_a_jwt_and_a_seed_is_no_file_of_credentials(tmp_path: Path) -> None:
    file = tmp_path / "some.creds"
    file.write_text("hello")
    with pytest.raises(BadNkey, match="no NATS USER JWT in it"):
        read_creds(str(file))
    file.write_text(creds("the.users.jwt", ALICE))
    jwt, key = read_creds(str(file))
    assert (jwt, key.public) == ("the.users.jwt", ALICE.public)


def test_a_seed_of_the_public_tools_has_the_public_key_they_say() -> None:
    # The example in the documentation of NATS's own key library.
    seed = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
    assert Nkey(seed).public == "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"
