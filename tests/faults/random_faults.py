"""A provider that fails at random and keeps its own books of what it bills, and for what."""

import random
from collections import defaultdict
from enum import Enum
from typing import Any, NamedTuple

from tests.ledger_facts import price
from tests.meter import words
from tests.upstream import (
    CUT,
    DONE,
    EVENT_STREAM,
    HANG,
    Recorded,
    Reply,
    Step,
    chat_answer,
    chat_chunk,
    event,
    event_stream,
    json_reply,
    usage,
)

_CHUNKS = 3
_SOON = {"Retry-After": "0.3"}
_ERROR = {"error": {"message": "Not now.", "type": "t", "code": None}}


class What(Enum):
    """How a request is answered. The first three cost nothing, all others are billed."""

    REFUSED = "500"
    LIMITED = "429"
    LIMITED_FOR = "429 with Retry-After"
    GOOD = "good"
    CUT = "cut before the head"
    CUT_IN_BODY = "cut in the body"
    HANG = "hang"
    MALFORMED = "malformed"


FREE = frozenset({What.REFUSED, What.LIMITED, What.LIMITED_FOR})
_FAULTS = [what for what in What if what is not What.GOOD]


class Entry(NamedTuple):
    """One request in the provider's books: whose it was, and what is billed for it (nano-dollars),
    whether or not its answer arrives."""

    prompt: str
    what: What
    nano: int


class RandomFaults:
    """The script of an upstream. A stream's fault comes before its first word, because a later one
    cannot be mended by anybody.

    The dice of a request depend on the seed, its prompt, its target and how often that was asked
    before, and on nothing that differs from one run to the next.
    """

    def __init__(self, seed: int, rate: float) -> None:
        self.books: dict[str, list[Entry]] = defaultdict(list)
        self._seed = seed
        self._rate = rate
        self._asked: dict[tuple[str, str], int] = defaultdict(int)
        self._number = 0

    def __call__(self, request: Recorded) -> Reply:
        body = request.json
        prompt, target = body["messages"][0]["content"], body["model"]
        self._asked[prompt, target] += 1
        dice = random.Random(f"{self._seed} {prompt} {target} {self._asked[prompt, target]}")
        what = dice.choice(_FAULTS) if dice.random() < self._rate else What.GOOD
        self._number += 1
        nano = 0 if what in FREE else price(self._number, _CHUNKS)
        self.books[prompt].append(Entry(prompt, what, nano))
        texts, spent = words(prompt, _CHUNKS), usage(self._number, _CHUNKS)
        return _streamed(what, texts, spent) if body.get("stream") else _whole(what, texts, spent)


def _either(what: What) -> Reply | None:
    """What looks the same whole and streamed."""
    match what:
        case What.REFUSED:
            return json_reply(_ERROR, 500)
        case What.LIMITED:
            return json_reply(_ERROR, 429)
        case What.LIMITED_FOR:
            return json_reply(_ERROR, 429, _SOON)
        case What.CUT:
            return Reply(before=(CUT,))
        case What.HANG:
            return Reply(before=(HANG,))
        case _:
            return None


def _whole(what: What, texts: list[str], spent: dict[str, Any]) -> Reply:
    good = json_reply(chat_answer("".join(texts), usage=spent))
    (answer,) = good.steps
    assert isinstance(answer, bytes)
    if what is What.CUT_IN_BODY:
        return Reply(headers=good.headers, steps=(answer[: len(answer) // 2], CUT))
    if what is What.MALFORMED:
        return json_reply(answer[: len(answer) // 2])
    return _either(what) or good


def _streamed(what: What, texts: list[str], spent: dict[str, Any]) -> Reply:
    steps: list[Step] = [event(chat_chunk(text)) for text in texts]
    steps.append(event(chat_chunk({}, finish_reason="stop")))
    steps.append(event(chat_chunk({}, choices=[], usage=spent)) + DONE)
    if what is What.CUT_IN_BODY:
        return Reply(headers=EVENT_STREAM, steps=(b": soon\n\n", CUT))
    if what is What.MALFORMED:
        return event_stream(event(b'{"choices": [{"del'), DONE)
    return _either(what) or event_stream(*steps)
