"""The door of an ingress whose keys come by events, and how tests knock at it."""

import hashlib
from typing import Any

import pytest

from ingress.auth import Authenticator, Headers, Principal
from ledger.access.configured import configured
from ledger.access.key_text import hint, new_key
from ledger.access.registry import Registry
from ledger.secret import ServerSecret
from schemas.access import Key, Secret
from schemas.config import Config
from schemas.errors import NexusError
from schemas.event import Event
from schemas.ids import Clock
from tests import sample_events as sample
from tests.ingress_doors import Known, authenticator
from tests.sample_events import NOON, SECOND

SECRET = "the server secret of a test"
ADMIN = "nx-admin-0123456789abcdef"
PLAIN = "a-configured-key"
HOUR = 3600 * SECOND


def text_of(number: int) -> str:
    """A well-formed key, another one for each number."""
    return new_key(lambda _: hashlib.sha256(b"%d" % number).digest())


class Door:
    """An ingress's door; its keys come by events, as the ledger would bring them."""

    def __init__(self, feed: Known = Known(), **settings: Any) -> None:  # noqa: B008
        self.now_ns = NOON
        self.config = Config(
            **{"admin_token": ADMIN, "api_keys": (PLAIN,), "secret": (SECRET,), **settings}
        )
        self.registry = Registry(configured(self.config))
        self.secret = ServerSecret((SECRET,))
        self.feed = feed
        self.keys: Authenticator = authenticator(
            self.config, self.registry, feed, clock=Clock(now_ns=lambda: self.now_ns)
        )

    def hear(self, *events: Event) -> None:
        for event in events:
            self.registry.take(sample.stored(self.registry.seq + 1, event))

    def has(self, text: str, id: str = "key_a", **fields: Any) -> Key:
        """The ledger has made a key that the text opens."""
        key = sample.a_key(id, **{"secrets": (self.opens(text),), **fields})
        self.hear(sample.key_created(key))
        return key

    def opens(self, text: str, **fields: Any) -> Secret:
        return Secret(self.secret.digest(text.encode()), hint(text), **fields)

    async def enter(self, text: str | bytes) -> Principal:
        return await self.keys.authenticate(bearer(text))

    async def refuse(self, headers: Headers) -> NexusError:
        with pytest.raises(NexusError) as error:
            await self.keys.authenticate(headers)
        return error.value


def bearer(text: str | bytes) -> Headers:
    return [(b"authorization", b"Bearer " + (text.encode() if isinstance(text, str) else text))]


KEY = text_of(1)
OTHER = text_of(2)


def changed(text: str, place: int) -> str:
    return text[:place] + ("b" if text[place] != "b" else "c") + text[place + 1 :]
