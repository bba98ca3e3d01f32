"""Where the servers of the bus are, and how a client shows there who it is."""

import ssl
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from ledger.nkeys import BadNkey, Nkey, read_creds
from schemas.config import BusConfig


class BusRefused(Exception):
    """The server is there but will not serve us: credentials, permissions, TLS or its version."""


class Server(NamedTuple):
    """One address of `BusConfig.url` with the user and password to show there."""

    host: str
    port: int
    tls: bool
    user: str
    password: str

    @classmethod
    def all_of(cls, config: BusConfig) -> Sequence["Server"]:
        """The comma-separated servers of the URL; credentials in an address win over the config."""
        servers: list[Server] = []
        for address in config.url.split(","):
            address = address.strip()
            url = urlsplit(address if "://" in address else f"nats://{address}")
            try:
                port = url.port or 4222
            except ValueError:
                port = 0
            if url.scheme not in ("nats", "tls") or not url.hostname or not port:
                raise ValueError("NATS URL: expected nats://host:port or tls://host:port")
            user, password = config.user, config.password
            if url.username:
                user, password = unquote(url.username), unquote(url.password or "")
            elif config.creds or config.nkey_seed:
                user, password = "", ""
            servers.append(cls(url.hostname, port, url.scheme == "tls", user, password))
        return servers

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def key_pair(config: BusConfig) -> tuple[str, Nkey] | None:
    """The user's JWT, empty where only a key is configured, and the key; None without either.

    The file of credentials is read anew at each call, so that it may be renewed. Raises BusRefused.
    """
    try:
        if config.creds:
            return read_creds(config.creds)
        if config.nkey_seed:
            return "", Nkey(config.nkey_seed)
    except OSError as error:
        raise BusRefused(f"NEXUS_NATS_CREDS {config.creds}: {error.strerror}") from error
    except BadNkey as error:
        where = f"NEXUS_NATS_CREDS {config.creds}" if config.creds else "NEXUS_NATS_NKEY_SEED"
        raise BusRefused(f"{where}: {error}") from error
    return None


def login(server: Server, config: BusConfig, nonce: str) -> dict[str, object]:
    """The fields of CONNECT that say who we are; `nonce` is the server's challenge.

    Raises BusRefused.
    """
    if server.user and server.password:
        return {"user": server.user, "pass": server.password}
    if server.user:
        return {"auth_token": server.user}
    pair = key_pair(config)
    if pair is None:
        return {}
    if not nonce:
        raise BusRefused(f"{server} does not ask for keys, but one is configured")
    jwt, key = pair
    who = {"jwt": jwt} if jwt else {"nkey": key.public}
    return {**who, "sig": key.sign(nonce)}


def tls_context(config: BusConfig) -> ssl.SSLContext:
    """Whom to trust, and the certificate that says who we are. Raises BusRefused."""
    try:
        context = ssl.create_default_context(cafile=config.tls_ca or None)
    except OSError as error:
        raise BusRefused(f"tls_ca {config.tls_ca}: {error}") from error
    if config.tls_cert:
        try:
            context.load_cert_chain(config.tls_cert, config.tls_key or None)
        except OSError as error:
            files = f"tls_cert {config.tls_cert}, tls_key {config.tls_key}"
            raise BusRefused(f"{files}: {error}") from error
    return context
