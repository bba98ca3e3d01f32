"""Questions about past calls: forwarded to the analytics role, scoped to who asks."""

import msgspec
from fastapi import APIRouter, Request, Response

from analytics.asks import Scope
from analytics.client import Analytics
from analytics.questions.usage import UsageParams
from ingress.answering import json_response
from ingress.auth import Authenticator, Principal
from ingress.body import read_body
from schemas.config import LimitConfig
from schemas.errors import InvalidRequest

_SQL_BODY = {
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["query"],
                "properties": {"query": {"type": "string"}},
            }
        }
    },
    "required": True,
}
_LONGEST_BODY = 256 * 1024


class _SqlBody(msgspec.Struct):
    query: str


_decode_sql = msgspec.json.Decoder(_SqlBody).decode


def router(keys: Authenticator, analytics: Analytics, limits: LimitConfig) -> APIRouter:
    """`GET /api/v1/analytics/usage` and `POST /api/v1/analytics/sql`.

    A key sees the calls made with it, the admin token all. Answers carry the ledger sequence they
    are as of.
    """
    routes = APIRouter(prefix="/api/v1/analytics", tags=["analytics"])
    limits = msgspec.structs.replace(limits, max_body_bytes=_LONGEST_BODY)

    @routes.get("/usage", response_class=Response)
    async def usage(
        request: Request, period: str = "day", start: str | None = None, end: str | None = None
    ) -> Response:
        """Requests, cost and latency of a period: `hour`, `day`, `week` or `month`."""
        scope = _scope(await keys.authenticate(request.scope["headers"]))
        report = await analytics.usage(UsageParams(period, start, end), scope)
        return json_response(report, _as_of(report.as_of_seq))

    @routes.post("/sql", response_class=Response, openapi_extra={"requestBody": _SQL_BODY})
    async def sql(request: Request) -> Response:
        """Rows of one SELECT over `events` and `calls`."""
        scope = _scope(await keys.authenticate(request.scope["headers"]))
        result = await analytics.sql(await _statement(request, limits), scope)
        return json_response(result, _as_of(result.as_of_seq))

    return routes


async def _statement(request: Request, limits: LimitConfig) -> str:
    body = await read_body(request.scope, request.receive, limits)
    try:
        return _decode_sql(body).query
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(
            'Send a JSON body like {"query": "select count() from calls"}.', param="query"
        ) from error


def _scope(principal: Principal) -> Scope | None:
    return None if principal.admin else Scope(key_id=principal.tenant.key_id)


def _as_of(sequence: int) -> dict[str, str]:
    return {"X-Nexus-Ledger-Seq": str(sequence)}
