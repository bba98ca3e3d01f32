"""Sets up the streams of a bus, and says which users an external one needs."""

import asyncio
import sys

from compose import authorization as users
from ledger.connection import BusRefused, Connection, Disconnected
from ledger.permissions import OPERATOR, USERS
from ledger.streams import BusNotReady, ensure
from schemas.config import Config

_ABOUT = """\
# For the configuration of the NATS server: one user per role, with its own permissions only, and
# JetStream switched on. Put passwords of your own in the place of PASSWORD_OF_...; each role then
# gets NEXUS_NATS_URL={address} with its user. What stands here may also be given to nkeys
# or, by `nsc`, to users with credentials.
"""


def prepare(config: Config) -> list[str]:
    """Create or update every stream and consumer; the result says which, nothing if all was there.

    Raises Disconnected, BusRefused, BusNotReady.
    """
    return asyncio.run(_prepare(config))


async def _prepare(config: Config) -> list[str]:
    connection = await Connection.connect(config.bus, name=OPERATOR, on_fatal=_to_be_raised)
    try:
        return await ensure(connection, config)
    finally:
        await connection.close()


def _to_be_raised(_: str) -> None:
    """What the bus forbids to an operator ends the request that it concerns."""


def run(config: Config) -> int:
    """The command `nexus setup`: prints what it has done; the result is the exit code."""
    try:
        done = prepare(config)
    except (Disconnected, BusRefused, BusNotReady) as error:
        print(f"nexus setup: {error}", file=sys.stderr)
        return 1
    print("\n".join(done) or "All streams and consumers are as they should be.")
    return 0


def authorization(config: Config) -> str:
    """The block of users for an external server, with placeholders, and how to use it."""
    scheme = "tls" if config.bus.url.startswith("tls://") else "nats"
    about = _ABOUT.format(address=f"{scheme}://ROLE:PASSWORD_OF_ROLE@HOST:4222")
    return about + users.authorization({user: f"PASSWORD_OF_{user.upper()}" for user in USERS})
