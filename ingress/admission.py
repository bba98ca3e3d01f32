"""Admits a call: the ledger hears of it first, then the work queue gets it."""

import logging
from contextlib import suppress

import msgspec

from ingress.budgeting import Budgeting
from ingress.pools import Pools
from ingress.purse import Taken
from ledger.blobs import Blobs
from ledger.connection import Disconnected
from ledger.log import Ledger
from ledger.publisher import Publisher, Refused, Unresolved
from ledger.work import QUEUE_FULL, submit
from schemas.call import Call
from schemas.errors import ErrorInfo, NexusError, RateLimited, Unavailable
from schemas.events import RequestRejected, message_id_of_end, new_of_call, start_event
from schemas.ids import Clock

log = logging.getLogger("nexus.ingress")

_BUS_PATIENCE = 4.0


class Admission:
    """The last steps of the gate; nothing is kept here that another ingress could not rebuild."""

    def __init__(
        self,
        ledger: Ledger,
        publisher: Publisher,
        blobs: Blobs,
        pools: Pools,
        budgeting: Budgeting,
        clock: Clock,
    ) -> None:
        self._ledger = ledger
        self._publisher = publisher
        self._blobs = blobs
        self._pools = pools
        self._budgeting = budgeting
        self._clock = clock

    async def admit(self, call: Call, taken: Taken) -> int:
        """Record the call's start, then queue its job; gives the job's sequence in WORK.

        `taken` is the money that is held for it. Raises Unavailable (no worker, bus away) or
        RateLimited (queue full). Whatever was started in the ledger has its end there too when this
        raises.
        """
        try:
            await self._pools.require(call.target.pool, call.target.provider)
        except Unavailable as no_worker:
            self._budgeting.give_back(taken)
            self._reject(call, no_worker.info)
            raise
        start = start_event(call, self._clock.new_id(), self._clock.now_ns())
        refusal: NexusError
        is_started = False
        try:
            await self._ledger.append(start, deadline=_BUS_PATIENCE)
            is_started = True
            # This process may have stood still meanwhile, and another got its money.
            if not self._budgeting.confirm(taken):
                raise Unavailable(
                    "The budgets of this call cannot be checked now. Try again shortly.",
                    code="budget_unavailable",
                    retry_after=1.0,
                )
            call = msgspec.structs.replace(call, admitted_ns=self._clock.now_ns())
            if len(call.body) > self._blobs.inline_limit:
                reference = await self._blobs.put(f"{call.id}-body", call.body)
                call = msgspec.structs.replace(call, body=b"", body_ref=reference)
            return (await submit(self._publisher, call)).seq
        except Unavailable as unconfirmed:
            refusal = unconfirmed
        except Refused as refused:
            if not is_started:
                self._budgeting.give_back(taken)
            refusal = _refusal(call, refused)
        except (Unresolved, Disconnected):
            if not is_started:
                self._budgeting.doubt(taken)
            refusal = Unavailable(
                "The message bus does not answer. Try again shortly.",
                code="bus_away",
                retry_after=2.0,
            )
        self._reject(call, refusal.info)
        raise refusal

    def _reject(self, call: Call, info: ErrorInfo) -> None:
        """The end of a call that no worker got; not waited for, the client has its answer."""
        event = RequestRejected(
            **new_of_call(call, self._clock),
            provider=call.target.provider,
            stream=call.stream,
            operation=call.operation,
            cost_nano=0,
            usd=0.0,
            error=info,
        )
        with suppress(Disconnected):
            ack = self._ledger.append_nowait(event, message_id_of_end(call.id))
            ack.add_done_callback(lambda done: done.cancelled() or done.exception())


def _refusal(call: Call, refused: Refused) -> NexusError:
    provider = call.target.provider
    if refused.code == QUEUE_FULL:
        return RateLimited(
            f"Too many calls are waiting for provider '{provider}'. Try again in a second.",
            code="queue_full",
            provider=provider,
            retry_after=1.0,
        )
    log.error("the bus refused a call", extra={"reason": str(refused)})
    return Unavailable(
        f"The message bus refused the call: {refused}.", code="bus_refused", retry_after=2.0
    )
