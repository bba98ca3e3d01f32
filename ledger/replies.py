"""Questions that wait for their answers: which reply subject belongs to whom."""

import asyncio

from ledger.protocol import Message
from ledger.refusals import Forbidden


class NoResponders(Exception):
    """Nobody listens on the subject of a request."""


class RequestTimeout(Exception):
    """No answer came in time."""


class Replies:
    """The requests of one connection that have no answer yet, by a number below one prefix."""

    def __init__(self, inbox: str) -> None:
        self.subject = f"{inbox}.r.*"
        self._prefix = f"{inbox}.r."
        self._last = 0
        self._waiting: dict[str, asyncio.Future[Message]] = {}
        self._optional: dict[str, str] = {}
        self._unheard: Exception | None = None

    def expect(self, optional: str = "") -> tuple[str, asyncio.Future[Message]]:
        """The reply subject of a new request, and its answer; `forget` it in the end.

        `optional` is the request's own subject if it may be refused. Raises what `refuse` was given
        when no answer can be heard.
        """
        if self._unheard is not None:
            raise self._unheard
        self._last += 1
        reply = f"{self._prefix}{self._last}"
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[reply] = answer
        if optional:
            self._optional[reply] = optional
        return reply, answer

    def forget(self, reply: str) -> None:
        self._waiting.pop(reply, None)
        self._optional.pop(reply, None)

    def take(self, message: Message) -> None:
        """Give an answer to whoever waits for it."""
        answer = self._waiting.pop(message.subject, None)
        if answer is not None and not answer.done():
            answer.set_result(message)

    def refuse(self, what: Forbidden, error: Exception) -> bool:
        """Take note of a missing permission; True if it only concerns an optional request.

        Without the right to hear answers every request fails, from now on and at once.
        """
        if what.hearing:
            if what.subject == self.subject:
                self._unheard = error
                self.fail(error)
            return False
        for reply, wanted in self._optional.items():
            answer = self._waiting.get(reply)
            if wanted == what.subject and answer is not None and not answer.done():
                answer.set_exception(error)
                return True
        return False

    def begin(self) -> None:
        """A new server may have other permissions."""
        self._unheard = None

    def fail(self, error: Exception) -> None:
        """End every wait with an error."""
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(error)


async def within(timeout: float, answer: asyncio.Future[Message], subject: str) -> Message:
    """Wait for an answer. Raises RequestTimeout; NoResponders at once if nobody listens."""
    await arrived(timeout, answer, subject)
    message = answer.result()
    if message.status == 503 and not message.data:
        raise NoResponders(subject)
    return message


async def arrived(
    timeout: float, waiter: asyncio.Future[Message] | asyncio.Future[None], what: str
) -> None:
    """Wait until something has come; cheaper than a timeout context. Raises RequestTimeout."""
    timer = asyncio.get_running_loop().call_later(timeout, _expire, waiter, what)
    try:
        await waiter
    finally:
        timer.cancel()


def _expire(waiter: asyncio.Future[Message] | asyncio.Future[None], what: str) -> None:
    if not waiter.done():
        waiter.set_exception(RequestTimeout(what))
