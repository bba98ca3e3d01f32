"""Asks the analytics role over the bus; light enough for the ingress to import."""

from typing import TypeVar

import msgspec

from analytics.accounts import ExplainParams, Explanation, Totals, TotalsParams
from analytics.asks import Answer, Ask, Scope, SqlParams, SqlResult, refusal
from analytics.questions.targets import TargetsParams, TargetsReport
from analytics.questions.usage import UsageParams, UsageReport
from ledger.connection import Connection, Disconnected, NoResponders, RequestTimeout
from schemas import subjects
from schemas.errors import Unavailable

Result = TypeVar("Result")

_USAGE_SECONDS = 10.0
_SQL_SECONDS = 20.0
_TOTALS_SECONDS = 60.0
_EXPLAIN_SECONDS = 30.0
_TARGETS_SECONDS = 5.0
_RETRY_SECONDS = 2.0

_decode_answer = msgspec.json.Decoder(Answer).decode


class Analytics:
    """Questions to the one process that has the database.

    Every method raises the NexusError that analytics answered with, or Unavailable (503, with
    `retry_after`) when it does not answer.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def usage(self, params: UsageParams, scope: Scope | None) -> UsageReport:
        """Requests, cost and latency of a period; `scope` None shows every tenant."""
        return await self._ask("usage", params, scope, UsageReport, _USAGE_SECONDS)

    async def sql(self, statement: str, scope: Scope | None) -> SqlResult:
        """Rows of a user's SELECT over `events` and `calls`; `scope` None shows every tenant."""
        return await self._ask("sql", SqlParams(statement), scope, SqlResult, _SQL_SECONDS)

    async def totals(self, params: TotalsParams) -> Totals:
        """What the database holds of every tenant's accounts; for administrators."""
        return await self._ask("totals", params, None, Totals, _TOTALS_SECONDS)

    async def explain(self, params: ExplainParams) -> Explanation:
        """The numbers that the admission of a call used; for administrators."""
        return await self._ask("explain", params, None, Explanation, _EXPLAIN_SECONDS)

    async def targets(self, params: TargetsParams) -> TargetsReport:
        """How targets fared lately; for the gateway itself and administrators."""
        return await self._ask("targets", params, None, TargetsReport, _TARGETS_SECONDS)

    async def _ask(
        self,
        question: str,
        params: msgspec.Struct,
        scope: Scope | None,
        result: type[Result],
        seconds: float,
    ) -> Result:
        ask = Ask(msgspec.Raw(msgspec.json.encode(params)), scope)
        try:
            reply = await self._connection.request(
                subjects.ask(question), msgspec.json.encode(ask), timeout=seconds
            )
        except NoResponders as error:
            raise _unavailable("the analytics service is not running") from error
        except RequestTimeout as error:
            raise _unavailable(f"analytics did not answer within {seconds:.0f} s") from error
        except Disconnected as error:
            raise _unavailable("the message bus is away") from error
        answer = _decode_answer(reply.data)
        if answer.error is not None:
            raise refusal(answer.error)
        return msgspec.json.decode(answer.ok, type=result)


def _unavailable(message: str) -> Unavailable:
    return Unavailable(f"{message}; try again shortly", retry_after=_RETRY_SECONDS)
