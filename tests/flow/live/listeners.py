"""Listeners of live events over sockets, and the ingress they listen at."""

import asyncio
import json
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from ingress.tail import Wanted
from ledger.access.configured import configured
from schemas.config import Config
from tests.ingress_doors import ADMIN, KEY_A, KEY_B

CONFIG = Config(api_keys=(KEY_A, KEY_B), admin_token=ADMIN)
EVERYTHING = Wanted(None)


def web_socket(url: str, key: str = ADMIN, **options: Any) -> connect:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return connect(url, additional_headers=headers, proxy=None, **options)


async def received(socket: ClientConnection) -> Any:
    async with asyncio.timeout(20):
        return json.loads(await socket.recv())


def key_id(key: str) -> str:
    return configured(CONFIG).opens[key]
