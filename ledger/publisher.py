"""Acknowledged publishes into JetStream: each is stored once, refused, or said to be unresolved."""

import asyncio

import msgspec

from ledger.connection import Connection, Disconnected, Message
from schemas.ids import Clock

_CLOCK = Clock()
_SWEEP = 0.05
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 0.25
_NO_RESPONDERS = 503
_TEMPORARY_STATUS = frozenset((429, 503))
_TEMPORARY_ERRORS = frozenset((10009, 10158))  # not the leader; the same id is in process
_STORE_FAILED = 10077


class PubAck(msgspec.Struct, frozen=True):
    """Where a message is stored; `duplicate` when its id was already known there."""

    stream: str = ""
    seq: int = 0
    duplicate: bool = False


class Refused(Exception):
    """The stream said no, for good. `code` is JetStream's: 10077 = the subject's queue is full."""

    def __init__(self, code: int, description: str) -> None:
        super().__init__(f"{description} ({code})")
        self.code = code
        self.description = description


class Unresolved(Exception):
    """No final answer before the deadline: the message may be stored or not."""


class _Error(msgspec.Struct, frozen=True):
    code: int = 0
    err_code: int = 0
    description: str = ""

    @property
    def temporary(self) -> bool:
        """True where the same publish may succeed in a moment: overload, no leader, a shutdown.

        Whatever a store refuses comes as a 503, a full queue too; only a closing one is temporary.
        """
        if self.err_code == _STORE_FAILED:
            return "closed" in self.description
        return self.code in _TEMPORARY_STATUS or self.err_code in _TEMPORARY_ERRORS


class _ErrorAnswer(msgspec.Struct):
    error: _Error = _Error()


class _Pending(msgspec.Struct):
    """One publish without an answer yet; `due` is when it is sent again, `ends` its deadline."""

    answer: asyncio.Future[PubAck]
    subject: str
    data: bytes
    headers: bytes
    timeout: float
    due: float
    ends: float
    pause: float = _FIRST_PAUSE
    last: str = "no answer"


_ack_of = msgspec.json.Decoder(PubAck).decode
_error_of = msgspec.json.Decoder(_ErrorAnswer).decode


class Publisher:
    """Publishes on one connection, with one subscription for all acknowledgements.

    What got no answer is sent again with the same message id, which the stream stores once.
    """

    def __init__(self, connection: Connection, clock: Clock = _CLOCK) -> None:
        self._connection = connection
        self._monotonic = clock.monotonic
        self._loop = asyncio.get_running_loop()
        self._prefix = f"{connection.inbox}.{clock.new_token()}."
        self._last = 0
        self._pending: dict[str, _Pending] = {}
        self._sweeping = False
        connection.subscribe(self._prefix + "*", self._on_answer)
        connection.on_reconnect(self._send_all)

    async def publish(
        self,
        subject: str,
        data: bytes,
        *,
        msg_id: str,
        headers: bytes = b"",
        ttl: int = 0,
        timeout: float = 1.0,
        deadline: float = 10.0,
    ) -> PubAck:
        """Store one message and return where it is.

        One try waits `timeout` seconds for the acknowledgement; tries are repeated until `deadline`
        seconds have passed. `ttl` > 0 lets the stream drop the message after so many seconds.
        Raises Refused or Unresolved; ValueError and Disconnected as Connection.publish does.
        """
        return await self.publish_nowait(
            subject,
            data,
            msg_id=msg_id,
            headers=headers,
            ttl=ttl,
            timeout=timeout,
            deadline=deadline,
        )

    def publish_nowait(
        self,
        subject: str,
        data: bytes,
        *,
        msg_id: str,
        headers: bytes = b"",
        ttl: int = 0,
        timeout: float = 1.0,
        deadline: float = 10.0,
    ) -> asyncio.Future[PubAck]:
        """The same without waiting: messages leave in the order of the calls."""
        now = self._monotonic()
        answer: asyncio.Future[PubAck] = self._loop.create_future()
        block = _with_id(headers, msg_id, ttl)
        pending = _Pending(answer, subject, data, block, timeout, now + timeout, now + deadline)
        self._last += 1
        reply = f"{self._prefix}{self._last}"
        self._send(reply, pending)
        self._pending[reply] = pending
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(_SWEEP, self._sweep)
        return answer

    def _send(self, reply: str, pending: _Pending) -> None:
        """Hand over if there is a server; if not, the reconnect sends it."""
        if self._connection.connected:
            self._connection.publish(
                pending.subject, pending.data, reply=reply, headers=pending.headers
            )

    def _on_answer(self, message: Message) -> None:
        reply = message.subject
        pending = self._pending.get(reply)
        if pending is None:
            return
        if message.data:
            ack = _ack_of(message.data)
            if ack.seq:
                del self._pending[reply]
                if not pending.answer.done():
                    pending.answer.set_result(ack)
                return
            error = _error_of(message.data).error
            if not error.temporary:
                del self._pending[reply]
                if not pending.answer.done():
                    refused = Refused(error.err_code, error.description)
                    pending.answer.set_exception(refused)
                return
            pending.last = error.description
        elif message.status == _NO_RESPONDERS:
            pending.last = "no stream takes the subject"
        pending.due = self._monotonic() + pending.pause
        pending.pause = min(2 * pending.pause, _LONGEST_PAUSE)

    def _sweep(self) -> None:
        """Send again what is due and give up what is over; one timer for all."""
        now = self._monotonic()
        over: list[str] = []
        for reply, pending in self._pending.items():
            if now >= pending.ends or pending.answer.done() or self._connection.closed:
                over.append(reply)
            elif now >= pending.due:
                self._send_again(reply, pending, now)
        for reply in over:
            pending = self._pending.pop(reply)
            if not pending.answer.done():
                pending.answer.set_exception(Unresolved(f"{pending.subject}: {pending.last}"))
        self._sweeping = bool(self._pending)
        if self._sweeping:
            self._loop.call_later(_SWEEP, self._sweep)

    def _send_all(self) -> None:
        """After a reconnect: what had no answer may be lost, in the old order it goes out again."""
        now = self._monotonic()
        for reply, pending in self._pending.items():
            self._send_again(reply, pending, now)

    def _send_again(self, reply: str, pending: _Pending, now: float) -> None:
        pending.due = now + pending.timeout
        try:
            self._send(reply, pending)
        except Disconnected as error:
            pending.last = str(error)
        except ValueError as error:
            if not pending.answer.done():
                pending.answer.set_exception(error)


def _with_id(headers: bytes, msg_id: str, ttl: int) -> bytes:
    """A header block with the message id, and the time to live, before what is given."""
    if "\n" in msg_id or "\r" in msg_id:
        raise ValueError(f"not a message id: {msg_id!r}")
    own = f"NATS/1.0\r\nNats-Msg-Id: {msg_id}\r\n"
    if ttl:
        own += f"Nats-TTL: {ttl}\r\n"
    return own.encode() + (headers[10:] or b"\r\n")
