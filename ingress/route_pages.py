"""What the administrator can ask of the choice among targets: `POST /admin/route`."""

from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Request, Response

from ingress.answering import json_response
from ingress.auth import Authenticator
from ingress.body import read_body
from ingress.candidates import Considered, place_of
from ingress.dialects import openai
from ingress.openapi import described
from ingress.planner import Planner
from ingress.planning import Plan
from ingress.wishes import RoutingBlock
from schemas.config import LimitConfig
from schemas.money import NANO


class AskedMessage(msgspec.Struct, frozen=True):
    """One message of the call."""

    role: str


class RouteQuestion(msgspec.Struct, frozen=True):
    """A chat call, in full as a client would send it."""

    model: Annotated[str, msgspec.Meta(min_length=1, examples=["auto"])]
    messages: Annotated[tuple[AskedMessage, ...], msgspec.Meta(min_length=1)]
    routing: RoutingBlock | None = None


class ConsideredTarget(msgspec.Struct, frozen=True):
    """One target that was looked at: its `place` in the plan from 1, or why it is `left`.

    The rest is what the choice knew of it, null for what it did not know: the probable cost of this
    call, the catalog's facts, and what was measured. `running` are calls of this ingress.
    """

    model: str
    provider: str
    engine: str
    place: int | None
    left: str | None
    stands_in: bool
    cost_usd: float | None
    quality: int | None
    context_window: int | None
    region: str | None
    broken: bool
    first_byte_ms: float | None
    total_ms: float | None
    error_rate: float | None
    running: int


class RouteExplained(msgspec.Struct, frozen=True, tag_field="object", tag="route"):
    """Where a call like this would run now, and why. `targets` are in order; without any the call
    would be refused, and `reason` says which wish excludes what."""

    model: str
    strategy: Literal["auto", "cost", "speed", "quality"] | None
    reason: str
    targets: tuple[str, ...]
    considered: tuple[ConsideredTarget, ...]


def router(keys: Authenticator, planner: Planner, limits: LimitConfig) -> APIRouter:
    """`POST /admin/route`, for who has the admin token."""
    api = APIRouter(tags=["admin"])

    @api.post(
        "/admin/route",
        **described("explain_route", RouteExplained, body=RouteQuestion, errors=(404,)),
    )
    async def explain(request: Request) -> Response:
        """Where a chat call would run now, as this ingress sees it: every target that it
        considers, with price, state and why it is taken or left. Nothing is called."""
        principal = await keys.require_admin(request.scope["headers"])
        body = await read_body(request.scope, request.receive, limits)
        asked = openai.parse(body)
        found = planner.explain(principal, asked, frozenset())
        return json_response(explained(asked.model, found), {"Cache-Control": "no-store"})

    return api


def explained(model: str, found: Plan) -> RouteExplained:
    """A plan for people to read."""
    places = {id(one.candidate): place for place, one in enumerate(found.chosen, 1)}
    return RouteExplained(
        model=model,
        strategy=found.ranking.strategy,
        reason=found.reason if found.chosen else found.refused_because(),
        targets=tuple([place_of(target) for target in found.targets]),
        considered=tuple([_view(one, places.get(id(one.candidate))) for one in found.considered]),
    )


def _view(one: Considered, place: int | None) -> ConsideredTarget:
    candidate, condition = one.candidate, one.condition
    left = None
    if place is None:
        left = "others come first" if one.left is None else f"{one.left.wish}: {one.left.says}"
    return ConsideredTarget(
        model=candidate.model,
        provider=candidate.target.provider,
        engine=candidate.target.engine,
        place=place,
        left=left,
        stands_in=candidate.stands_in,
        cost_usd=None if one.cost_nano is None else one.cost_nano / NANO,
        quality=candidate.facts.quality,
        context_window=candidate.facts.context_window,
        region=candidate.region or None,
        broken=condition.broken,
        first_byte_ms=condition.first_byte_ms,
        total_ms=condition.total_ms,
        error_rate=condition.error_rate,
        running=condition.running,
    )
