"""Decides where each call runs: by its name as configured, or by its wishes where it has some."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from ingress.auth import Principal
from ingress.candidates import Candidate, Need, place_of
from ingress.choices import Choices
from ingress.conditions import Conditions
from ingress.needs import need_of
from ingress.planning import Plan, Ranking, pick, plan, rank
from ingress.request import ModelRequest, Operation
from ingress.routing import PASS_THROUGH, Brought, Router
from ingress.weighing import most_targets
from ingress.wishes import Wishes
from schemas.call import Target
from schemas.errors import InvalidRequest, ModelNotFound
from schemas.frames import Finish
from schemas.ids import Clock

_SECOND_NS = 1_000_000_000
_MINUTE_NS = 60 * _SECOND_NS
_REMEMBERED = 256
_MOST_NAMES = 16
_DRAW_BYTES = 4
_NOTHING_WISHED = Wishes()

_Kind = tuple[Wishes, Need, Operation, tuple[tuple[str, ...], ...], Brought]


class Choice(NamedTuple):
    """Where a call runs, as which model, and what to tell of it: names to choose from, best first.

    `is_asked` where the client left the choice to the gateway or said what it wishes.
    """

    model: str
    targets: tuple[Target, ...]
    reason: str = "as configured"
    considered: tuple[str, ...] = ()
    is_asked: bool = False

    def told(self, finish: Finish) -> dict[str, Any] | None:
        """The `routing` block of an answer; None where it was not asked for and says nothing."""
        first = self.targets[0]
        fell_back = (finish.provider, finish.engine) != (first.provider, first.engine)
        if not (self.is_asked or fell_back):
            return None
        reason = self.reason
        if fell_back:
            reason = f"{reason}; {place_of(first)} did not answer"
        return {
            "selected_provider": finish.provider,
            "routing_reason": reason,
            "considered_models": self.considered
            or tuple(dict.fromkeys(map(place_of, self.targets))),
            "fallback_used": fell_back,
            "cache_hit": False,
        }


class Planner:
    """One per ingress. Rankings of all models are kept for a second, or for a minute where they do
    not depend on what was measured: they serve all calls of a kind."""

    def __init__(self, router: Router, conditions: Conditions, clock: Clock) -> None:
        self._router = router
        self._settings = router.config.router
        self._conditions = conditions
        self._clock = clock
        self._choices = Choices(router)
        self._most = most_targets(self._settings)
        self._rankings: dict[_Kind, tuple[int, Ranking]] = {}

    def decide(self, principal: Principal, request: ModelRequest, brought: Brought) -> Choice:
        """Where a call runs. Raises Forbidden, ModelNotFound, and InvalidRequest
        (`no_eligible_model`), which says what each wish excludes."""
        name, is_open = self._meant(principal, request.model)
        if not is_open and request.wishes is None:
            return Choice(name, self._as_configured(principal, name, brought))
        found = self._found(principal, request, brought)
        if not found.chosen:
            raise _refusal(found)
        model = found.chosen[0].candidate.model if is_open else name
        return Choice(model, found.targets, found.reason, found.models(_MOST_NAMES), is_asked=True)

    def explain(self, principal: Principal, request: ModelRequest, brought: Brought) -> Plan:
        """The plan that a call like this would get now, with all that was looked at; nothing is
        chosen where nobody fulfils the wishes. Raises Forbidden, ModelNotFound, InvalidRequest."""
        name, is_open = self._meant(principal, request.model)
        if is_open or request.wishes is not None:
            return self._found(principal, request, brought, is_kept=False)
        # Such a call is not measured, so no need of it excludes a target.
        whole = need_of(request)
        need = Need(whole.prompt, whole.output, stream=whole.stream)
        targets = self._as_configured(principal, name, brought)
        candidates = [self._choices.of(name, target) for target in targets]
        ranking = rank(candidates, _NOTHING_WISHED, need, self._conditions)
        return Plan(ranking.firsts, Choice(name, targets).reason, ranking)

    def _meant(self, principal: Principal, sent: str) -> tuple[str, bool]:
        """The model that a name stands for, and whether that is left to us. Raises Forbidden."""
        name = self._router.chosen(sent)
        if principal.kind == "client":
            principal.require_model(sent, name)
            return sent, False
        is_open = self._router.is_open(name)
        if not is_open:
            principal.require_model(sent, name)
        return name, is_open

    def _as_configured(
        self, principal: Principal, name: str, brought: Brought
    ) -> tuple[Target, ...]:
        if principal.kind == "client":
            return self._router.through(name)
        targets = self._router.plan(name, brought)
        of = self._conditions.of
        broken = [target for target in targets if of(target.provider, target.engine).broken]
        if not broken or len(broken) == len(targets):
            return targets
        return (*[target for target in targets if target not in broken], *broken)

    def _found(
        self,
        principal: Principal,
        request: ModelRequest,
        brought: Brought,
        *,
        is_kept: bool = True,
    ) -> Plan:
        name, is_open = self._meant(principal, request.model)
        need = need_of(request)
        wishes = self._wishes(request.wishes or _NOTHING_WISHED, name)
        for fallback in wishes.fallbacks:
            self._require_fallback(principal, fallback, brought)
        if principal.kind == "client":
            targets = self._router.through(name)
            return self._plan([self._choices.of(PASS_THROUGH, targets[0])], wishes, need)
        if not is_open:
            return self._plan(self._named(name, wishes, brought), wishes, need)
        if is_kept:
            kind = (wishes, need.rounded(), request.operation, principal.models, brought)
            ranking = self._ranking(kind, principal)
        else:
            ranking = self._ranked(principal, request.operation, wishes, need, brought)
        return pick(
            ranking,
            need,
            self._conditions,
            draw=self._draw(),
            most=self._most,
            most_firsts=1 if wishes.fallbacks else None,
        )

    def _wishes(self, asked: Wishes, name: str) -> Wishes:
        """What the client wishes, and the configuration where it says nothing."""
        if not asked.preferred:
            asked = asked._replace(preferred=self._settings.preferred_providers)
        if asked.strategy is None and self._router.is_open(name):
            asked = asked._replace(strategy=self._settings.default_strategy)
        if self._router.is_route(name):
            # The shares of a route are the operator's word.
            asked = asked._replace(strategy=None, preferred=())
        return asked

    def _named(self, name: str, wishes: Wishes, brought: Brought) -> list[Candidate]:
        """The targets of one name, the one that is drawn first, and who stands in for them."""
        if self._router.is_route(name):
            drawn = self._router.plan(name, brought)
            stand_ins = self._choices.standing_in(wishes.fallbacks, brought)
            return [*[self._choices.of(name, target) for target in drawn], *stand_ins]
        fallbacks = wishes.fallbacks or self._router.fallbacks(name)
        own, stand_ins = self._choices.named(name, fallbacks, brought, self._minute())
        if not own and not stand_ins:
            self._router.plan(name, brought)
        if wishes.strategy is None and len(own) > 1:
            drawn = self._router.plan(name, brought)
            own = tuple(sorted(own, key=lambda one: one.target != drawn[0]))
        return [*own, *stand_ins]

    def _require_fallback(self, principal: Principal, name: str, brought: Brought) -> None:
        try:
            principal.require_model(name, self._router.chosen(name))
            self._router.plan(name, brought)
        except ModelNotFound as error:
            error.info = msgspec.structs.replace(error.info, param="routing.fallback_models")
            raise

    def _plan(self, candidates: Sequence[Candidate], wishes: Wishes, need: Need) -> Plan:
        return plan(
            candidates,
            wishes,
            need,
            self._conditions,
            draw=self._draw(),
            most=self._most,
            weigh_cost=self._settings.enable_cost_optimization,
        )

    def _ranking(self, kind: _Kind, principal: Principal) -> Ranking:
        now = self._clock.now_ns()
        kept = self._rankings.get(kind)
        if kept is not None and now < kept[0]:
            return kept[1]
        wishes, need, operation, _, brought = kind
        ranking = self._ranked(principal, operation, wishes, need, brought)
        is_live = wishes.strategy in ("speed", "auto") or wishes.max_latency_ms is not None
        until = now + _SECOND_NS if is_live else (now // _MINUTE_NS + 1) * _MINUTE_NS
        if len(self._rankings) >= _REMEMBERED:
            self._rankings.clear()
        self._rankings[kind] = (until, ranking)
        return ranking

    def _ranked(
        self,
        principal: Principal,
        operation: Operation,
        wishes: Wishes,
        need: Need,
        brought: Brought,
    ) -> Ranking:
        candidates = [
            one
            for one in self._choices.open(operation, brought, self._minute())
            if principal.allows(one.model)
        ]
        candidates += self._choices.standing_in(wishes.fallbacks, brought)
        weigh_cost = self._settings.enable_cost_optimization
        return rank(candidates, wishes, need, self._conditions, weigh_cost=weigh_cost)

    def _minute(self) -> int:
        return self._clock.now_ns() // _MINUTE_NS

    def _draw(self) -> float:
        return int.from_bytes(self._clock.entropy(_DRAW_BYTES), "big") / (1 << 8 * _DRAW_BYTES)


def _refusal(found: Plan) -> InvalidRequest:
    because = found.refused_because()
    if not because:
        because = "there is no model here that your key may use and that can do this"
    wishes = {one.left.wish for one in found.considered if one.left is not None}
    only = next(iter(wishes)) if len(wishes) == 1 else ""
    return InvalidRequest(
        f"No target fulfils the wishes of this call: {because}. Wish for less, or name a model.",
        code="no_eligible_model",
        param=only if only.startswith("routing.") else "routing" if wishes else "model",
    )
