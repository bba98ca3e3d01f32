"""Questions about past calls: forwarded to the analytics role, scoped to who asks."""

import msgspec
from fastapi import APIRouter, Request, Response

from analytics.asks import Scope
from analytics.client import Analytics
from analytics.questions.usage import UsageParams
from ingress.answering import json_response
from ingress.auth import Keys, Principal
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


def router(keys: Keys, analytics: Analytics) -> APIRouter:
    """`GET /api/v1/analytics/usage` and `POST /api/v1/analytics/sql`.

    A key sees the calls made with it, the admin token all. Answers carry the ledger sequence they
    are as of.
    """
    routes = APIRouter(prefix="/api/v1/analytics", tags=["analytics"])

    @routes.get("/usage", response_class=Response)
    async def usage(
        request: Request, period: str = "day", start: str | None = None, end: str | None = None
    ) -> Response:
        """Requests, cost and latency of a period: `hour`, `day`, `week` or `month`."""
        scope = _scope(keys.authenticate(request.scope["headers"]))
        report = await analytics.usage(UsageParams(period, start, end), scope)
        return json_response(report, _as_of(report.as_of_seq))

    @routes.post("/sql", response_class=Response, openapi_extra={"requestBody": _SQL_BODY})
    async def sql(request: Request) -> Response:
        """Rows of one SELECT over `events` and `calls`."""
        scope = _scope(keys.authenticate(request.scope["headers"]))
        result = await analytics.sql(await _statement(request), scope)
        return json_response(result, _as_of(result.as_of_seq))

    return routes


async def _statement(request: Request) -> str:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _LONGEST_BODY:
            raise InvalidRequest(
                f"The statement is longer than {_LONGEST_BODY} bytes.", param="query", status=413
            )
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
