"""When each holder was last heard of, and what it was answered lately."""

from collections.abc import Iterable

import msgspec

from ledger.budgets.messages import Answer

_ANSWERS_KEPT = 64


class _Heard(msgspec.Struct):
    at: float
    answers: dict[str, Answer] = {}


class Liveness:
    """Holders by id, from their first word on; times are monotonic seconds."""

    def __init__(self, expire_after: float) -> None:
        self._expire_after = expire_after
        self._heard: dict[str, _Heard] = {}

    def __len__(self) -> int:
        return len(self._heard)

    def hear(self, holder: str, now: float) -> None:
        """A holder is alive."""
        heard = self._heard.get(holder)
        if heard is None:
            self._heard[holder] = _Heard(now)
        else:
            heard.at = now

    def excuse(self, holders: Iterable[str], now: float) -> None:
        """These hold something; they and all that are known have their whole time from now on."""
        for holder in (*self._heard, *holders):
            self.hear(holder, now)

    def silent(self, now: float) -> list[str]:
        """Who was not heard of for too long."""
        limit = now - self._expire_after
        return [holder for holder, heard in self._heard.items() if heard.at <= limit]

    def forget(self, holder: str) -> None:
        self._heard.pop(holder, None)

    def answered(self, holder: str, request: str) -> Answer | None:
        """What a holder got for this request, if that is one of its last 64."""
        heard = self._heard.get(holder)
        return heard.answers.get(request) if heard else None

    def remember(self, holder: str, request: str, answer: Answer) -> None:
        """Keep an answer for a holder that asks again because it did not hear it."""
        heard = self._heard.get(holder)
        if heard is not None:
            heard.answers[request] = answer
            if len(heard.answers) > _ANSWERS_KEPT:
                del heard.answers[next(iter(heard.answers))]
