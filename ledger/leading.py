"""Which governor leads: one key of the settings bucket, rewritten while its writer lives.

Whoever sees no new revision of it for a while takes it over. That decides who works and who waits;
that a leader which was paused does no harm is the business of the fence (`ledger/fenced.py`).
"""

import asyncio
import logging

import msgspec

from ledger.connection import Connection, Disconnected, header_block
from ledger.publisher import Publisher, Refused, Unresolved
from ledger.reader import Stored, Unreadable, read_last
from schemas import subjects
from schemas.ids import Clock

log = logging.getLogger("nexus.governor")

LEADER = subjects.setting("governor.leader")
EVERY = 0.5
SILENT_FOR = 2.0
# Shorter than a standby's patience: nobody has taken over while we still believe in ourselves.
LEADS_FOR = 1.7
_LOOK_EVERY = 0.25
_ANSWERED_WITHIN = 0.5
_LOOKS = 8
# "wrong last sequence"; the second one is what a cluster says of two appends at the same time.
CONFLICTS = frozenset((10071, 10164))


class Deposed(Exception):
    """Another governor leads; what this one still knows may be behind."""


class Sign(msgspec.Struct, frozen=True):
    """The key's value: who leads, nobody where that is empty, and how often it has said so."""

    governor: str
    number: int = 0


_decode = msgspec.json.Decoder(Sign).decode


class Leadership:
    """The claim of one governor to lead: first `win`, then run `keep` until the end, `resign`."""

    def __init__(
        self, connection: Connection, publisher: Publisher, governor: str, clock: Clock
    ) -> None:
        self.governor = governor
        self._connection = connection
        self._publisher = publisher
        self._clock = clock
        self._revision = 0
        self._number = 0
        self._until = 0.0

    @property
    def holds(self) -> bool:
        """Whether nobody else can lead yet: the key was rewritten a moment ago."""
        return self._clock.monotonic() < self._until

    async def win(self) -> None:
        """Return once this governor leads: at once where nobody does."""
        seen, since = -1, 0.0
        while True:
            try:
                kept = await self._read()
            except Unreadable:
                # Nor could the leader write: its silence does not count.
                seen = -1
                await asyncio.sleep(_LOOK_EVERY)
                continue
            now = self._clock.monotonic()
            revision = kept.seq if kept else 0
            if revision != seen:
                seen, since = revision, now
            if _is_vacant(kept) or now - since >= SILENT_FOR:
                self._revision = revision
                try:
                    if await self._write():
                        return
                except (Unresolved, Unreadable, Disconnected):
                    seen = -1
            await asyncio.sleep(_LOOK_EVERY)

    async def keep(self) -> None:
        """Rewrite the key until cancelled; without the bus only `holds` says so. Raises Deposed."""
        while True:
            await asyncio.sleep(EVERY)
            try:
                if not await self._write():
                    raise Deposed("another governor leads now")
            except (Unresolved, Unreadable, Disconnected) as error:
                log.debug("the lead was not renewed: %s", error)

    async def resign(self) -> None:
        """Let a standby lead at once; if the bus does not hear it, a moment later."""
        self._until = 0.0
        try:
            await self._publisher.publish(
                LEADER,
                msgspec.json.encode(Sign("")),
                msg_id=f"{self.governor}.leader.end",
                headers=_only_after(self._revision),
                deadline=_ANSWERED_WITHIN,
            )
        except (Unresolved, Refused, Disconnected):
            log.info("the lead was not handed over, it will be taken")

    async def _write(self) -> bool:
        """Claim the lead behind the revision that is known; False if the claim of another is newer.

        Raises Unresolved, Unreadable, Disconnected when nothing is known of it.
        """
        for _ in range(_LOOKS):
            self._number += 1
            sign = msgspec.json.encode(Sign(self.governor, self._number))
            sent = self._clock.monotonic()
            try:
                ack = await self._publisher.publish(
                    LEADER,
                    sign,
                    msg_id=f"{self.governor}.leader.{self._number}",
                    headers=_only_after(self._revision),
                    deadline=_ANSWERED_WITHIN,
                )
            except Refused as error:
                if error.code not in CONFLICTS:
                    raise Unresolved(str(error)) from error
                if await self._is_anothers():
                    self._until = 0.0
                    return False
                continue
            self._revision = ack.seq
            self._until = sent + LEADS_FOR
            return True
        # What we wrote last is gone, as after a power cut.
        self._until = 0.0
        return False

    async def _is_anothers(self) -> bool:
        """Whether the newest claim is not ours; ours may be, if an answer was lost."""
        kept = await self._read()
        if kept is None or kept.seq <= self._revision:
            # A replica that is behind, or a store that lost its end: the next look tells.
            await asyncio.sleep(_LOOK_EVERY)
            return False
        self._revision = kept.seq
        return _sign_of(kept).governor != self.governor

    async def _read(self) -> Stored | None:
        return await read_last(
            self._connection, subjects.SETTINGS, LEADER, timeout=_ANSWERED_WITHIN
        )


def _only_after(revision: int) -> bytes:
    return header_block({"Nats-Expected-Last-Subject-Sequence": str(revision)})


def _is_vacant(kept: Stored | None) -> bool:
    return kept is None or not _sign_of(kept).governor


def _sign_of(kept: Stored) -> Sign:
    try:
        return _decode(kept.data)
    except msgspec.DecodeError:
        return Sign("unknown")
