"""What a call passes before the ledger hears of it: what it may ask, how often, and for how much.

    whose? → model allowed? → plan → worth → rates → budgets

Each question refuses with its own error; nothing is kept of a call that is refused.
"""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from ingress.auth import Authenticator, Headers, Principal
from ingress.budgeting import Budgeting
from ingress.calibration import Ratios
from ingress.call_budget import (
    CallBudget,
    gateway_budget,
    priced,
    require_within,
    within_gateway,
)
from ingress.capacities import Capacities
from ingress.client_keys import brought
from ingress.conditions import Conditions, NoConditions
from ingress.dialects import openai
from ingress.estimates import bound_of_plan, estimate, output_limit
from ingress.forwarding import forwarded
from ingress.limits import Applying
from ingress.measure import MEASURES
from ingress.planner import Choice, Planner
from ingress.purse import Taken
from ingress.rating import Passed, Rating
from ingress.request import ModelRequest
from ingress.routing import Router
from ingress.tenancy import narrowed
from ledger.access.registry import Registry
from ledger.secret import ServerSecret, credential_purpose
from schemas.access import Budget
from schemas.call import Call, Target
from schemas.config import Config
from schemas.errors import ErrorInfo, NexusError, Unavailable
from schemas.ids import Clock

# Rates of tokens are settled at the end of a call: until then the usual counts, not the most.
_USUAL_OUTPUT = 512
_NOTHING_ASKED = CallBudget()
_NOTHING_TAKEN = Taken((), "", 0)


class Entered(NamedTuple):
    """A call as it is to be admitted, what the dialect needs for its answer, whose it is, and what
    it has taken: a place in its rates, to be released at its end, and money."""

    call: Call
    request: ModelRequest
    choice: Choice
    principal: Principal
    rated: Passed
    taken: Taken


class Worth(NamedTuple):
    """What a call may cost: `bound_nano` at most, `estimate_nano` probably, and about how many
    tokens; 0 where nobody asks."""

    request: ModelRequest
    plan: tuple[Target, ...]
    tokens: int = 0
    prompt_estimate: int = 0
    bound_nano: int = 0
    estimate_nano: int = 0


class Gate:
    """One per ingress; every dialect goes through it."""

    def __init__(
        self,
        config: Config,
        keys: Authenticator,
        registry: Registry,
        secret: ServerSecret,
        router: Router,
        applying: Applying,
        rating: Rating,
        budgeting: Budgeting,
        ratios: Ratios,
        ingress: str,
        clock: Clock,
        conditions: Conditions = NoConditions(),  # noqa: B008 - it has no state
    ) -> None:
        self._config = config
        self._keys = keys
        self._registry = registry
        self._secret = secret
        self.planner = Planner(router, conditions, clock)
        self._applying = applying
        self._rating = rating
        self._budgeting = budgeting
        self._ratios = ratios
        self._capacities = Capacities(router)
        self._of_all = gateway_budget(config.router)
        self._ingress = ingress
        self._clock = clock

    async def enter(
        self,
        principal: Principal,
        request: ModelRequest,
        headers: Headers,
        call_id: str,
        received_ns: int,
    ) -> Entered:
        """The call, if it may be made. Raises NexusError."""
        if request.budget is not None or request.end_user:
            principal = narrowed(principal, request.budget, request.end_user, self._registry)
        own_keys = brought(headers, principal, self._config)
        choice = self.planner.decide(principal, request, frozenset(own_keys))
        plan = choice.targets
        if choice.model != request.model:
            request = msgspec.structs.replace(request, model=choice.model)
        ours = tuple(target for target in plan if target.provider not in own_keys)
        budgets = self._registry.budgets_for(principal.tenant) if ours else ()
        rules = self._applying.rules(principal, principal.tenant, request.model)
        counts_tokens = any(rule.what == "tokens" for rule in rules)
        asked = request.budget or _NOTHING_ASKED
        if ours:
            asked = within_gateway(asked, self._of_all)
        worth = self._worth(request, asked, plan, ours, budgets, counts_tokens)
        credentials = self._sealed(own_keys, worth.plan, call_id) if own_keys else {}
        deadline_ns = received_ns + int(self._config.call_deadline * 1e9)
        rated = await self._rating.admit(
            principal, principal.tenant, request.model, worth.tokens, deadline_ns
        )
        taken = _NOTHING_TAKEN
        if budgets:
            try:
                taken = await self._budgeting.admit(
                    budgets, worth.bound_nano, worth.estimate_nano, call_id=call_id
                )
            except BaseException as refused:
                rated.release(0)
                if isinstance(refused, NexusError):
                    refused.info = _with_headers(refused.info, rated.headers)
                raise
        call = Call(
            id=call_id,
            model=request.model,
            plan=worth.plan,
            tenant=principal.tenant,
            ingress=self._ingress,
            received_ns=received_ns,
            deadline_ns=deadline_ns,
            stream=request.stream,
            operation=request.operation,
            body=worth.request.body,
            headers=forwarded(headers, self._keys),
            credentials=credentials,
            accounts=taken.accounts,
            holder=taken.holder,
            hold_nano=taken.hold_nano,
            prompt_estimate=worth.prompt_estimate,
            alert_nano=asked.alert_nano,
            tracking_id=asked.tracking_id,
        )
        return Entered(call, worth.request, choice, principal, rated, taken)

    def _worth(
        self,
        request: ModelRequest,
        asked: CallBudget,
        plan: tuple[Target, ...],
        ours: tuple[Target, ...],
        budgets: tuple[Budget, ...],
        counts_tokens: bool,
    ) -> Worth:
        """Measured only where somebody limits what the call may cost; then its answer gets a limit
        too, because an answer without one has no bound."""
        max_cost = asked.max_cost_nano
        if not budgets and max_cost is None and not counts_tokens:
            return Worth(request, plan)
        is_strict = max_cost is not None or any(budget.hard_stop for budget in budgets)
        plan = priced(plan, request.model, self._config.pricing, is_strict)
        size = MEASURES[request.operation](request.body)
        output = output_limit(size, request.model, plan, self._capacities, max_cost)
        if is_strict and size.max_tokens is None:
            request = openai.limited(request, output, plan[0].engine)
        bound = bound_of_plan(size, ours or plan, output, self._capacities)
        require_within(asked, bound)
        probable = estimate(size, (ours or plan)[0], output, self._ratios)
        return Worth(
            request,
            plan,
            tokens=probable.prompt_tokens + size.choices * min(output, _USUAL_OUTPUT),
            prompt_estimate=size.prompt_estimate,
            bound_nano=bound or 0,
            estimate_nano=min(probable.cost_nano or 0, bound or 0),
        )

    def _sealed(
        self, own_keys: Mapping[str, bytes], plan: tuple[Target, ...], call_id: str
    ) -> dict[str, bytes]:
        """The client's own keys for the providers of the plan, readable by a worker only."""
        if not self._secret.available:
            raise Unavailable(
                "This gateway cannot take a key of yours: its operator must set NEXUS_SECRET.",
                code="no_secret",
            )
        providers = {target.provider for target in plan} & own_keys.keys()
        return {
            provider: self._secret.seal(
                own_keys[provider],
                credential_purpose(call_id, provider),
                self._clock.entropy(12),
            )
            for provider in providers
        }


def _with_headers(info: ErrorInfo, headers: Headers) -> ErrorInfo:
    """A refusal that also tells how much is left of the rates that the call has passed."""
    shown = {name.decode(): value.decode() for name, value in headers}
    return msgspec.structs.replace(info, extra_headers={**info.extra_headers, **shown})
