"""Asks the governor how budgets stand, and tells it to begin one anew."""

import msgspec

from ledger.budgets.messages import BudgetState, Reset, StateAsk, States, decode_states, encode
from ledger.connection import Connection, Disconnected, NoResponders, RequestTimeout
from schemas import subjects
from schemas.errors import Unavailable
from schemas.ids import Clock

_STATES_WITHIN = 1.0
_RESET_WITHIN = 5.0
_RETRY_SECONDS = 2.0

_decode_state = msgspec.msgpack.Decoder(BudgetState).decode


class GovernorClient:
    """Questions to the one governor that decides; every method raises Unavailable (503, code
    `governor_away`) when it does not answer."""

    def __init__(self, connection: Connection, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock

    async def states(self, budgets: tuple[str, ...] = ()) -> States:
        """How the budgets of these names stand, those it knows; without names, all."""
        ask = encode(StateAsk(budgets))
        return decode_states(await self._ask(subjects.GOVERNOR_BUDGETS, ask, _STATES_WITHIN))

    async def reset(self, budget: str, by: str) -> BudgetState | None:
        """Begin a budget anew and give its new state; None where there is no such budget."""
        ask = encode(Reset(budget, self._clock.new_id(), by))
        answer = await self._ask(subjects.GOVERNOR_RESET, ask, _RESET_WITHIN)
        return _decode_state(answer) if answer else None

    async def _ask(self, subject: str, body: bytes, within: float) -> bytes:
        try:
            return (await self._connection.request(subject, body, timeout=within)).data
        except (NoResponders, RequestTimeout, Disconnected) as error:
            raise Unavailable(
                "The governor, which keeps the budgets, does not answer: try again shortly.",
                code="governor_away",
                retry_after=_RETRY_SECONDS,
            ) from error
