"""A provider that meters: each answer has a usage of its own, so that every bill can be traced."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from schemas.events import LedgerEvent, Outcome, RequestComplete
from tests.ledger_facts import price
from tests.upstream import (
    DONE,
    EVENT_STREAM,
    Recorded,
    Reply,
    Step,
    chat_answer,
    chat_chunk,
    event,
    json_reply,
    usage,
)


@dataclass(frozen=True)
class Reading:
    """One request: whose it was, and what its whole answer costs in nano-dollars."""

    prompt: str
    request: Recorded
    cost: int

    @property
    def delivered(self) -> bool:
        """Whether the whole answer went out."""
        return self.request.answered.is_set()


class Meter:
    """The script of an upstream: answers a prompt with its own words, and counts.

    No two answers report the same number of prompt tokens; that number is the reading's key.
    """

    def __init__(self, chunks: int, pause: float) -> None:
        self.readings: dict[int, Reading] = {}
        self._numbers = itertools.count(1)
        self._chunks = chunks
        self._pause = pause

    def __call__(self, request: Recorded) -> Reply:
        body = request.json
        prompt = body["messages"][0]["content"]
        number = next(self._numbers)
        self.readings[number] = Reading(prompt, request, price(number, self._chunks))
        spent = usage(number, self._chunks)
        if not body.get("stream"):
            answer = json_reply(chat_answer(prompt, usage=spent))
            return Reply(headers=answer.headers, before=(self._pause,), steps=answer.steps)
        steps: list[Step] = []
        for text in words(prompt, self._chunks):
            steps += [event(chat_chunk(text)), self._pause]
        steps += [
            event(chat_chunk({}, finish_reason="stop")),
            event(chat_chunk({}, choices=[], usage=spent)) + DONE,
        ]
        return Reply(headers=EVENT_STREAM, steps=tuple(steps))

    def check(self, events: Sequence[LedgerEvent]) -> "Bills":
        """Every bill that reports usage is that of one request of its own call, and no request is
        billed twice; calls that ended well cost together what their answers cost here."""
        billed: dict[int, Outcome] = {}
        unknown = 0
        for one in events:
            if not isinstance(one, Outcome):
                continue
            unknown += one.cost_nano is None
            if one.usage_status != "reported" or getattr(one, "corrects", 0):
                continue
            assert one.usage is not None
            number = one.usage.prompt
            assert number not in billed, f"billed twice: {billed.get(number)} and {one}"
            billed[number] = one
            reading = self.readings[number]
            assert (one.app, one.cost_nano) == (reading.prompt, reading.cost), one
            assert reading.delivered, one
        good = {n: one for n, one in billed.items() if isinstance(one, RequestComplete)}
        completes = [one for one in events if isinstance(one, RequestComplete)]
        assert len(good) == len(completes), "a good end without a reported usage"
        delivered = sum(self.readings[number].cost for number in good)
        assert sum(one.cost_nano or 0 for one in completes) == delivered
        unbilled = [n for n, one in self.readings.items() if one.delivered and n not in billed]
        return Bills(len(good), delivered, unknown, len(unbilled))


@dataclass(frozen=True)
class Bills:
    """What a ledger says of the meter: good ends and their cost; `unknown` events whose cost nobody
    knows, `unbilled` whole answers that no event reports, because who got them died."""

    good: int
    cost: int
    unknown: int
    unbilled: int


def words(prompt: str, count: int) -> list[str]:
    """What the provider says to a prompt, so that no two streams are alike."""
    return [f"{prompt}.{number} " for number in range(count)]
