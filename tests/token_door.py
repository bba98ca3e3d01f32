"""The door of an ingress that knows tokens of other issuers, and how tests knock at it."""

import base64
import json
from typing import Any

import pytest

from ingress.auth import Authenticator, Principal
from ingress.tokens import Tokens
from ledger.access.configured import configured
from ledger.access.registry import Registry
from schemas.config import Config, JwtConfig
from schemas.errors import NexusError
from schemas.ids import Clock
from tests.ingress_doors import authenticator
from tests.sample_events import NOON, SECOND
from tests.token_issuer import AUDIENCE, ISSUER, RSA_KEY, SHARED, claims, public_pem

NOW = NOON // SECOND
STRICT = JwtConfig(
    secret=SHARED,
    public_key=public_pem(RSA_KEY),
    algorithms=("HS256", "RS256"),
    issuer=ISSUER,
    audience=AUDIENCE,
)


class Time:
    """A clock that stands still at noon until a test moves it."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.clock = Clock(
            now_ns=lambda: NOON + round(self.seconds * SECOND), monotonic=lambda: self.seconds
        )


def door(jwt: JwtConfig, time: Time | None = None, **settings: Any) -> Authenticator:
    clock = (time or Time()).clock
    config = Config(jwt=jwt, **settings)
    return authenticator(
        config,
        Registry(configured(config)),
        tokens=Tokens(config.jwt, config.tiers, clock),
        clock=clock,
    )


async def enter(keys: Authenticator, token: str | bytes, header: str = "bearer") -> Principal:
    text = token.encode() if isinstance(token, str) else token
    if header == "bearer":
        return await keys.authenticate([(b"authorization", b"Bearer " + text)])
    return await keys.authenticate([(header.encode(), text)])


async def refused(keys: Authenticator, token: str | bytes) -> NexusError:
    with pytest.raises(NexusError) as error:
        await enter(keys, token)
    return error.value


def unsigned(header: dict[str, Any], said: Any = None, signature: bytes = b"") -> str:
    """Three parts with any header and any signature."""
    parts = (json.dumps(header).encode(), json.dumps(said or claims()).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


INVALID = "invalid_token"
