"""A further attempt that may cost takes its own hold before it starts, asked of the governor.

The first attempt has the hold that the call came with. One that certainly cost nothing leaves it to
the next; after any other the next asks anew, in the accounts the call was charged to at its start.
"""

import asyncio
import logging
from datetime import UTC, datetime
from typing import Any

from ledger.budgets import messages
from ledger.budgets.messages import Answer, HoldAsk, Shortage
from ledger.connection import Connection, Disconnected, NoResponders, RequestTimeout
from ledger.log import Ledger
from ledger.publisher import PubAck
from schemas import subjects
from schemas.budget_events import BudgetExceeded
from schemas.call import Call
from schemas.errors import ErrorInfo
from schemas.events import billed_to, of_tenant
from schemas.frames import Fence
from schemas.ids import Clock, rfc3339
from schemas.money import format_usd, usd
from workers.causes import BUDGET_UNAVAILABLE

log = logging.getLogger("nexus.worker")

_ANSWER_WITHIN = 1.0
# A standby takes about two seconds to govern.
_GIVE_UP_AFTER = 5.0
_PAUSE = 0.1


class HoldRefused(Exception):
    """There is no money for a further attempt, or nobody to say so; `info` is for the client."""

    def __init__(self, info: ErrorInfo) -> None:
        super().__init__(info.message)
        self.info = info


def charges_budgets(call: Call) -> bool:
    """Whether an attempt at the present target is paid out of the call's hold."""
    is_held = bool(call.accounts) and call.hold_nano > 0
    return is_held and not billed_to(call, call.target.provider)


class Holds:
    """Takes the holds of further attempts for one worker."""

    def __init__(self, connection: Connection, ledger: Ledger, clock: Clock) -> None:
        self._connection = connection
        self._ledger = ledger
        self._clock = clock

    async def take(self, call: Call, fence: Fence) -> None:
        """Returns when the governor holds as much again for `call`; raises HoldRefused.

        The same fence asked twice is one hold.
        """
        request = f"{fence.job}.{fence.delivery}.{fence.attempt}"
        ask = HoldAsk(call.id, request, call.hold_nano, call.accounts)
        answer = await self._answer(ask)
        if answer.shortage is not None:
            self._tell(call, answer.shortage)
            raise HoldRefused(exceeded(answer.shortage))
        if answer.stranger:
            # The call is not open any more, or not known to be.
            raise HoldRefused(BUDGET_UNAVAILABLE)

    def _tell(self, call: Call, shortage: Shortage) -> None:
        """One line in the log and one event, as for a call that an ingress refuses; nobody waits
        for it, as the call's end says the same."""
        log.info(
            "further attempt refused by a budget",
            extra={
                "call_id": call.id,
                "scope": shortage.budget,
                "limit": usd(shortage.limit_nano),
                "value": usd(shortage.spent_nano + shortage.held_nano),
                "needed": usd(shortage.needed_nano),
            },
        )
        whose: dict[str, Any] = of_tenant(call.tenant)
        event = BudgetExceeded(
            event_id=self._clock.new_id(),
            time=rfc3339(self._clock.now_ns()),
            v=1,
            call_id=call.id,
            model=call.model,
            **whose,
            budget=shortage.budget,
            account=shortage.account,
            limit_nano=shortage.limit_nano,
            spent_nano=shortage.spent_nano,
            held_nano=shortage.held_nano,
            needed_nano=shortage.needed_nano,
        )
        self._ledger.append_nowait(event).add_done_callback(_note_unresolved)

    async def _answer(self, ask: HoldAsk) -> Answer:
        data = messages.encode(ask)
        give_up = self._clock.monotonic() + _GIVE_UP_AFTER
        while self._clock.monotonic() < give_up:
            try:
                reply = await self._connection.request(
                    subjects.GOVERNOR_HOLD, data, timeout=_ANSWER_WITHIN
                )
            except RequestTimeout:
                continue
            except (NoResponders, Disconnected):
                await asyncio.sleep(_PAUSE)
                continue
            return messages.decode_answer(reply.data)
        raise HoldRefused(BUDGET_UNAVAILABLE)


def exceeded(shortage: Shortage) -> ErrorInfo:
    """The refusal of a further attempt, with every number of the decision."""
    resets = ""
    if shortage.ends_ns is not None:
        moment = datetime.fromtimestamp(shortage.ends_ns / 1e9, UTC)
        resets = f" It resets at {moment:%Y-%m-%dT%H:%M:%SZ}."
    return ErrorInfo(
        status=429,
        type="rate_limit_error",
        code="budget_exceeded",
        message=(
            f"The budget '{shortage.budget}' has not enough left for another attempt after one "
            f"that may have cost: limit ${format_usd(shortage.limit_nano)}, "
            f"spent ${format_usd(shortage.spent_nano)}, held ${format_usd(shortage.held_nano)}, "
            f"needed ${format_usd(shortage.needed_nano)}.{resets}"
        ),
        should_retry=False,
    )


def _note_unresolved(ack: "asyncio.Future[PubAck]") -> None:
    if not ack.cancelled() and ack.exception() is not None:
        log.warning("refusal not recorded", extra={"reason": str(ack.exception())})
