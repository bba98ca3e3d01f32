"""A whole gateway charges by the file of newer prices, in the tier that the answer reports, and its
ledger says by which price."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ledger.connection import Connection
from ledger.reader import read_subject
from schemas import subjects
from schemas.config import BusConfig
from schemas.events import RequestComplete, decode_event
from tests.flow.gateway import Gateway, running_gateway, told, until
from tests.upstream import DONE, chat_answer, chat_chunk, event, event_stream, json_reply

USAGE = {
    "prompt_tokens": 1_000,
    "completion_tokens": 10,
    "total_tokens": 1_010,
    "prompt_tokens_details": {"cached_tokens": 400},
}
# USD per million: 4, 40, cached 1, and in the flex tier half of that.
LISTED = {"input": 4 * 10**9, "output": 40 * 10**9, "cached_input": 10**9}
FLEX = {"tier": "flex", "rates": {name: rate // 2 for name, rate in LISTED.items()}}
COST = {"default": 600 * 4_000 + 400 * 1_000 + 10 * 40_000}
COST["flex"] = COST["default"] // 2


def price_file() -> dict[str, Any]:
    version = {"digest": "abcd1234", "rates": LISTED, "variants": [FLEX]}
    models = [{"id": "gpt-5.4", "names": ["gpt-5.4"], "prices": [version]}]
    return {
        "source": "acme",
        "version": "7",
        "made": "2099-01-01T00:00:00Z",
        "license": "",
        "providers": {"openai": {"url": "https://openai", "fallbacks": [], "models": models}},
    }


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("prices")
    file = Path(folder / "book.json")
    file.write_text(json.dumps(price_file()))
    with running_gateway(folder, f"pricing: {{file: {file}}}\n") as gateway:
        yield gateway


def completed(gateway: Gateway, call_id: str) -> RequestComplete:
    """The end of a call in the ledger, once it is there."""
    found: list[RequestComplete] = []

    def is_there() -> bool:
        events = [decode_event(record.data) for record in asyncio.run(_stored(gateway))]
        ends = [one for one in events if isinstance(one, RequestComplete)]
        found.extend(end for end in ends if end.call_id == call_id)
        return bool(found)

    until(is_there)
    return found[0]


async def _stored(gateway: Gateway) -> Any:
    connection = await Connection.connect(BusConfig(url=gateway.bus), name="test")
    try:
        return await read_subject(connection, subjects.LEDGER, subjects.LEDGER_SUBJECTS)
    finally:
        await connection.close()


@pytest.mark.parametrize("tier", ["default", "flex"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_call_is_charged_by_the_file_and_by_its_tier(
    gateway: Gateway, tier: str, stream: bool
) -> None:
    if stream:
        chunks = [
            chat_chunk("x", service_tier=tier),
            chat_chunk({}, finish_reason="stop", service_tier=tier),
            {**chat_chunk("", service_tier=tier), "choices": [], "usage": USAGE},
        ]
        gateway.up.script(event_stream(*map(event, chunks), DONE))
        answer = told(gateway.ask("gpt-5.4", service_tier=tier, stream=True))[-1]
    else:
        gateway.up.script(json_reply(chat_answer("x", usage=USAGE, service_tier=tier)))
        answer = gateway.ask("gpt-5.4", service_tier=tier).json()
    assert answer["cost"]["total_cost"] == COST[tier] / 10**9
    end = completed(gateway, answer["id"].removeprefix("chatcmpl-"))
    assert end.cost_nano == COST[tier]
    assert end.usage is not None and end.usage.tier == ("" if tier == "default" else tier)
    assert end.price_id == "acme-7/openai/gpt-5.4/abcd1234" + ("@flex" if tier == "flex" else "")
    assert gateway.up.request.json["service_tier"] == tier
