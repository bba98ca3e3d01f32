"""Fills a ledger with as many virtual keys as a large installation has."""

import asyncio

from ledger.access.key_text import hint, new_key
from ledger.connection import Connection
from ledger.log import Ledger
from ledger.publisher import PubAck, Publisher
from ledger.secret import ServerSecret
from schemas.access import Key, Secret, moment
from schemas.access_events import KeyCreated
from schemas.ids import Clock, rfc3339

PROJECTS = 200
TEAMS = 20
_IN_FLIGHT = 1000


async def append_keys(connection: Connection, secret: ServerSecret, count: int) -> list[str]:
    """Append the making of `count` keys and give their texts, in the order of the ledger.

    The first one belongs to user-0 of project-0 in team-0, and so on.
    """
    ledger = Ledger(Publisher(connection), "ingress")
    clock = Clock()
    texts: list[str] = []
    acks: list[asyncio.Future[PubAck]] = []
    for number in range(count):
        text = new_key(clock.entropy)
        texts.append(text)
        acks.append(ledger.append_nowait(created(text, number, secret, clock)))
        if len(acks) == _IN_FLIGHT:
            await asyncio.gather(*acks)
            acks.clear()
    await asyncio.gather(*acks)
    return texts


def created(text: str, number: int, secret: ServerSecret, clock: Clock) -> KeyCreated:
    """The making of the key with that text and number."""
    now = clock.now_ns()
    key = Key(
        id=f"key_{clock.entropy(8).hex()}",
        name=f"service account {number}",
        project=f"project-{number % PROJECTS}",
        team=f"team-{number % TEAMS}",
        user=f"user-{number}@example.com",
        allowed_models=("gpt-4o*", "claude-3-*"),
        metadata={"cost_center": f"cc-{number % 50}", "contact": f"team-{number % TEAMS}"},
        secrets=(Secret(secret.digest(text.encode()), hint(text)),),
        pepper=secret.pepper_id,
        created_at=moment(now),
        updated_at=moment(now),
    )
    return KeyCreated(
        event_id=clock.new_id(),
        time=rfc3339(now),
        v=1,
        key_id=key.id,
        project=key.project,
        team=key.team,
        user=key.user,
        record=key,
    )
