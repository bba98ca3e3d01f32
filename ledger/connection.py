"""A lean NATS connection for the hot path: publishes of one tick leave in one write.

It comes back by itself after a loss, for ever, with its subscriptions.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from ledger.login import BusRefused, Server
from ledger.outbox import Outbox
from ledger.protocol import Message, header_block
from ledger.pulse import Pulse
from ledger.refusals import explained, forbidden
from ledger.replies import NoResponders, Replies, RequestTimeout, arrived, within
from ledger.wire import Disconnected, Wire
from schemas.config import MEGABYTE, BusConfig
from schemas.ids import Clock
from schemas.subjects import inbox

__all__ = [
    "BusRefused",
    "Connection",
    "Disconnected",
    "Message",
    "NoResponders",
    "RequestTimeout",
    "Subscription",
    "header_block",
]

log = logging.getLogger("nexus.bus")

_FIRST_REACH = 5.0
_HELD_WITHOUT_SERVER = 16 * MEGABYTE
_HELD_BEFORE_SOCKET = 64 * MEGABYTE
_CLOSE_SECONDS = 1.0
_CLOCK = Clock()


@dataclass(frozen=True, slots=True, eq=False)
class Subscription:
    """What `Connection.subscribe` gives back; it stands until `unsubscribe`."""

    subject: str
    queue: str
    callback: Callable[[Message], None]
    sid: bytes
    _connection: "Connection"

    def unsubscribe(self) -> None:
        """End it; messages on their way are dropped."""
        self._connection._unsubscribe(self)

    def fade(self) -> None:
        """End it at the server; messages on their way still come."""
        self._connection._fade(self)

    @property
    def line(self) -> bytes:
        return f"SUB {self.subject} {self.queue} ".encode() + self.sid + b"\r\n"


class Connection:
    """One connection to the bus, shared by everything in a process.

    `connected`, `max_payload` (bytes), `server_version` and `reconnects` may be read at any time;
    `inbox` is the prefix of every reply subject of this connection.
    """

    def __init__(
        self,
        config: BusConfig,
        name: str,
        clock: Clock,
        on_fatal: Callable[[str], None] | None,
    ) -> None:
        self.connected = False
        self.closed = False
        self.max_payload = MEGABYTE
        self.server_version = (0, 0, 0)
        self.reconnects = 0
        self.inbox = f"{inbox(name)}.{clock.new_token()}"
        self._config = config
        self._name = name
        self._clock = clock
        self._on_fatal = on_fatal
        self._servers = Server.all_of(config)
        self._loop = asyncio.get_running_loop()
        self._wire: Wire | None = None
        self._reaching: asyncio.Task[None] | None = None
        self._standing = asyncio.Event()
        self._gone = asyncio.Event()
        self._on_reconnect: list[Callable[[], None]] = []

        self._outbox = Outbox()
        self._write_due = False
        self._subscriptions: dict[bytes, Subscription] = {}
        self._last_sid = 0
        self._pulse = Pulse(self._send_ping, self._give_up)
        self._replies = Replies(self.inbox)
        self.subscribe(self._replies.subject, self._replies.take)

    @classmethod
    async def connect(
        cls,
        config: BusConfig,
        *,
        name: str,
        clock: Clock = _CLOCK,
        on_fatal: Callable[[str], None] | None = None,
    ) -> "Connection":
        """Reach one of the servers within 5 s.

        Raises Disconnected if none answers and BusRefused if one does but will not have us.
        `on_fatal(message)` is called later for what no retry can heal: a missing permission, or
        credentials that are refused after a reconnect.
        """
        self = cls(config, name, clock, on_fatal)
        give_up = self._loop.time() + _FIRST_REACH
        while True:
            try:
                await self._try_servers()
                return self
            except Disconnected:
                if self._loop.time() > give_up:
                    raise
            await asyncio.sleep(self._pause())

    @classmethod
    def begin(
        cls,
        config: BusConfig,
        *,
        name: str,
        clock: Clock = _CLOCK,
        on_fatal: Callable[[str], None] | None = None,
    ) -> "Connection":
        """A connection that is not there yet: it tries for ever, as after a loss.

        Its arrival is told as a reconnect, and counted as one where the first try was in vain. What
        `connect` raises as BusRefused goes to `on_fatal`.
        """
        self = cls(config, name, clock, on_fatal)
        self._reaching = self._loop.create_task(self._reach())
        return self

    async def reached(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds; whether there is a server now."""
        try:
            async with asyncio.timeout(timeout):
                await self._standing.wait()
        except TimeoutError:
            return False
        return True

    def publish(self, subject: str, data: bytes, *, reply: str = "", headers: bytes = b"") -> None:
        """Send without waiting; while there is no server it is kept, up to 16 MB.

        Raises Disconnected when no more can be kept, ValueError for a subject with white space
        or more bytes than the server takes.
        """
        size = len(headers) + len(data)
        if size > self.max_payload:
            raise ValueError(f"{size} bytes for {subject}: the bus takes {self.max_payload}")
        if subject.split(None, 1) != [subject]:
            raise ValueError(f"not a subject: {subject!r}")
        held = self._outbox.size + size
        if held > (_HELD_BEFORE_SOCKET if self.connected else _HELD_WITHOUT_SERVER):
            raise Disconnected(f"{held} bytes wait for the bus already")
        if self.closed:
            raise Disconnected("the connection was closed")
        if headers:
            head = f"HPUB {subject} {reply} {len(headers)} {size}\r\n".encode()
        else:
            head = f"PUB {subject} {reply} {size}\r\n".encode()
        if self._outbox.put(head, headers, data):
            self._write()
        elif not self._write_due:
            self._write_due = True
            self._loop.call_soon(self._write)

    def subscribe(
        self, subject: str, callback: Callable[[Message], None], *, queue: str = ""
    ) -> Subscription:
        """Call `callback` for every message, at once and in order; it must not block.

        An exception in it is logged and harms nothing else.
        """
        for word in (subject, queue or "-"):
            if word.split(None, 1) != [word]:
                raise ValueError(f"not a subject or queue: {word!r}")
        self._last_sid += 1
        sid = b"%d" % self._last_sid
        subscription = Subscription(subject, queue, callback, sid, self)
        self._subscriptions[sid] = subscription
        self._send_control(subscription.line)
        return subscription

    async def request(
        self,
        subject: str,
        data: bytes = b"",
        *,
        timeout: float = 1.0,
        headers: bytes = b"",
        optional: bool = False,
    ) -> Message:
        """The first answer; NoResponders at once if nobody listens, RequestTimeout after `timeout`.

        Raises Disconnected at once when the connection is, or gets, lost, and BusRefused when the
        bus lets us hear no answers. What is `optional` may be forbidden: that raises BusRefused
        here and is not fatal.
        """
        if not self.connected:
            raise Disconnected("not connected")
        reply, answer = self._replies.expect(subject if optional else "")
        try:
            self.publish(subject, data, reply=reply, headers=headers)
            return await within(timeout, answer, subject)
        finally:
            self._replies.forget(reply)

    async def flush(self, timeout: float = 1.0) -> None:
        """Return when everything published before has reached the server."""
        if not self.connected:
            raise Disconnected("not connected")
        await arrived(timeout, self._pulse.ask(), "flush")

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """Call `callback` each time the connection is back and its subscriptions stand again."""
        self._on_reconnect.append(callback)

    async def drain(self) -> None:
        """Take no more messages, handle those that are on their way, send all, then close."""
        try:
            for subscription in list(self._subscriptions.values()):
                if not subscription.subject.startswith(self.inbox):
                    self._fade(subscription)
            await self.flush()
        except (Disconnected, RequestTimeout):
            log.warning("the bus did not answer while closing")
        await self.close()

    async def close(self) -> None:
        """End; what the socket takes at once is still sent. May be called twice."""
        if self.closed:
            return
        self._write()
        self.closed = True
        if self._reaching is not None:
            self._reaching.cancel()
        if self._wire is not None:
            wire = self._wire
            wire.close()
            timer = self._loop.call_later(_CLOSE_SECONDS, wire.abort)
            await self._gone.wait()
            timer.cancel()

    # What the wire brings.

    def on_message(self, sid: bytes, message: Message) -> None:
        subscription = self._subscriptions.get(sid)
        if subscription is None:
            return
        try:
            subscription.callback(message)
        except Exception:
            log.exception("the subscriber of %s failed", message.subject)

    def on_pong(self) -> None:
        self._pulse.on_pong()

    def on_error(self, text: str) -> None:
        what = forbidden(text)
        if what is None:
            # Where it also ends the connection, the next login shows whether that is for good.
            log.warning("the bus says: %s", text)
            return
        reason = explained(self._name, text)
        if not self._replies.refuse(what, BusRefused(reason)):
            self._fatal(reason)

    def on_writable(self) -> None:
        self._write()

    def on_lost(self, wire: Wire, reason: str) -> None:
        if wire is not self._wire:
            return
        self._wire = None
        self.connected = False
        self._standing.clear()
        self._outbox.forget_controls()
        lost = f"the bus connection was lost: {reason}"
        self._replies.fail(Disconnected(lost))
        self._pulse.end(Disconnected(lost))
        if self.closed:
            self._gone.set()
        else:
            log.warning("bus connection lost, reconnecting: %s", reason)
            self._reaching = self._loop.create_task(self._come_back())

    # Inside.

    def _unsubscribe(self, subscription: Subscription) -> None:
        if self._subscriptions.pop(subscription.sid, None) is not None:
            self._fade(subscription)

    def _fade(self, subscription: Subscription) -> None:
        self._send_control(b"UNSUB " + subscription.sid + b"\r\n")

    def _adopt(self, wire: Wire) -> None:
        """Make a fresh wire the current one: subscriptions first, then what was kept."""
        self._wire = wire
        self.connected = True
        self.max_payload = wire.info.max_payload
        self.server_version = wire.info.version_tuple
        for subscription in self._subscriptions.values():
            self._outbox.put_control(subscription.line)
        self._pulse.begin()
        self._replies.begin()
        self._standing.set()
        self._write()

    async def _try_servers(self) -> None:
        """Try each server once. Raises BusRefused if one said no, else Disconnected."""
        failure: Exception | None = None
        for server in self._servers:
            try:
                self._adopt(await Wire.open(server, self._config, self._name, self))
                return
            except (Disconnected, BusRefused) as error:
                failure = failure if isinstance(failure, BusRefused) else error
        assert failure is not None
        raise failure

    async def _come_back(self) -> None:
        await asyncio.sleep(self._pause())
        await self._reach(after_a_loss=True)

    async def _reach(self, after_a_loss: bool = False) -> None:
        """Try until there is a server, then tell all who wait for that."""
        was_away = after_a_loss
        refused = ""
        while True:
            try:
                await self._try_servers()
                break
            except Disconnected as error:
                log.debug("not yet: %s", error)
            except BusRefused as error:
                if str(error) != refused:
                    refused = str(error)
                    self._fatal(refused)
            was_away = True
            await asyncio.sleep(self._pause())
        self.reconnects += was_away
        if was_away:
            log.info("bus connection is back")
        for callback in self._on_reconnect:
            try:
                callback()
            except Exception:
                log.exception("what follows a reconnect failed")

    def _pause(self) -> float:
        """50 to 250 ms at random, so that clients do not come back in step."""
        return 0.05 + 0.2 * self._clock.entropy(1)[0] / 255

    def _give_up(self) -> None:
        if self._wire is not None:
            self._wire.abort("the server is silent")

    def _send_ping(self) -> None:
        self._outbox.put_ping()
        self._schedule_write()

    def _send_control(self, line: bytes) -> None:
        if self.connected:
            self._outbox.put_control(line)
            self._schedule_write()

    def _schedule_write(self) -> None:
        if not self._write_due:
            self._write_due = True
            self._loop.call_soon(self._write)

    def _write(self) -> None:
        self._write_due = False
        if self._wire is not None:
            self._outbox.write_to(self._wire)

    def _fatal(self, reason: str) -> None:
        if self._on_fatal is None:
            log.error("%s", reason)
        else:
            self._on_fatal(reason)
