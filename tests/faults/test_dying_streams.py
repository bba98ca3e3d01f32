"""A provider that dies in the middle of a stream, in every dialect: an error event to the client
and an error in the ledger, never a clean end, and nothing that is asked again."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import pytest

from schemas.events import Outcome, RequestFailed, StreamingStart
from tests.contract.openai_stage import OpenAIStage
from tests.contract.provider_contract import Scene
from tests.faults.stage import ledger_of
from tests.flow.gateway import UP_KEY, Gateway, Provider, running_gateway, told
from tests.flow.providers.vendors import VENDORS, VERTEX_TOKEN, Vendor, vendors_at
from tests.ledger_facts import one_end
from tests.upstream import CUT, HANG, Fault, Recorded, Reply, Script

PATIENCE = 1.0
CAME = 2
# Each target dies as often as there are deaths, which is none of a breaker's business here.
NO_BREAKER = "breaker: {max_failures: 0}\n"
OPENAI = Vendor("up", "engine-1", OpenAIStage, "/v1/chat/completions")
DIALECTS = (OPENAI, *VENDORS)


class Death(NamedTuple):
    """What happens after CAME chunks: the fault, or else these last bytes and a proper end of the
    HTTP answer; and the code of the error."""

    name: str
    fault: Fault | None = None
    last: bytes = b""
    code: str | None = None


DEATHS = (
    Death("cut", CUT),
    Death("silence", HANG, code="timeout"),
    Death("an end as if it were whole"),
    Death("garbage", last=b"\xff\xfe{]\n\n\x00\x00\x00"),
)
every = pytest.mark.parametrize("vendor", DIALECTS, ids=lambda vendor: vendor.name)
deaths = pytest.mark.parametrize("death", DEATHS, ids=lambda death: death.name)


class _Dying:
    """Stands where a stage has its server: its streams die this death."""

    def __init__(self, server: Provider, death: Death) -> None:
        self._server = server
        self._death = death

    def script(self, script: Script) -> None:
        self._server.script(lambda request: self._dying(request, script))

    def _dying(self, request: Recorded, script: Script) -> Reply:
        reply = script if isinstance(script, Reply) else script(request)
        came = reply.steps[: reply.steps.index(CUT)]
        last = self._death.fault or self._death.last
        return replace(reply, steps=(*came, last) if last else came)


class Place(NamedTuple):
    """The gateway, and the server that plays all vendors but `up`, who is at the gateway's own."""

    gateway: Gateway
    vendors: Provider

    def play(self, vendor: Vendor, death: Death) -> Provider:
        server = self.gateway.up if vendor is OPENAI else self.vendors
        vendor.stage(None, _Dying(server, death)).play(Scene(chunks=4, cut=CAME))
        return server


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    vendors = Provider()
    vendors.start()
    models = "".join(
        f'  "dying/{one.name}": {{provider: {one.name}, engine: "{one.engine}",'
        f" timeout: {PATIENCE}, fallbacks: [up-model],"
        " input_cost: 0.000001, output_cost: 0.000002}\n"
        for one in DIALECTS
    )
    folder = tmp_path_factory.mktemp("dying")
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TEST_VERTEX_TOKEN", VERTEX_TOKEN)
            with running_gateway(folder, models + NO_BREAKER, vendors_at(vendors.url)) as gateway:
                yield Place(gateway, vendors)
    finally:
        vendors.stop()


@every
@deaths
def test_a_stream_whose_provider_dies_ends_with_an_error(
    place: Place, vendor: Vendor, death: Death
) -> None:
    place.gateway.up.script(Reply(500))
    server = place.play(vendor, death)
    response = place.gateway.ask(f"dying/{vendor.name}", stream=True)
    assert response.status_code == 200
    *chunks, last = told(response)
    error = last["error"]
    assert (error["type"], error["code"]) == ("provider_error", death.code)
    assert error["provider"] == vendor.name and vendor.name in error["message"]
    assert UP_KEY not in error["message"]
    choices = [choice for chunk in chunks for choice in chunk.get("choices", ())]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    assert text and "wörd0 wörd1 wörd2 wörd3 ".startswith(text)
    assert not any(choice.get("finish_reason") for choice in choices)
    assert len(server.requests) == 1, "what was begun to be read is not asked again"
    assert vendor is OPENAI or not place.gateway.up.requests, "nor of the fallback"

    call_id = response.headers["x-request-id"].removeprefix("req_")
    events = [one for one in ledger_of(place.gateway, {call_id}) if one.call_id == call_id]
    end = one_end(events, call_id)
    assert isinstance(end, RequestFailed) and end.error is not None
    assert (end.error.code, end.error.message) == (death.code, error["message"])
    assert (end.provider, end.attempts, end.usage_status) == (vendor.name, 1, "estimated")
    assert end.usage is not None
    assert end.usage.output == -(-len(text.encode()) // 4)
    assert end.cost_nano == end.usage.input * 1000 + end.usage.output * 2000
    assert [type(one) for one in events if not isinstance(one, Outcome)][1:] == [StreamingStart]
