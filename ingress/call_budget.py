"""What a client says of one call's money (the `budget` block of a request), and what follows."""

import msgspec

from schemas.access import Id, Name
from schemas.call import Target
from schemas.config import Dollars, PricingConfig, RouterConfig
from schemas.errors import InvalidRequest
from schemas.money import format_usd, nano_from_usd

_MAX_COST = "budget.max_cost"


class CallBudget(msgspec.Struct, frozen=True):
    """The `budget` block, amounts in nano-dollars; empty ids narrow nothing.

    `capped`: `max_cost_nano` is the gateway's own, which no request can raise.
    """

    max_cost_nano: int | None = None
    alert_nano: int | None = None
    tracking_id: str = ""
    user_id: str = ""
    project_id: str = ""
    capped: bool = False


class BudgetBlock(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The same as clients write it, in dollars. An unknown field is an error: a limit with a typo
    in its name would be no limit."""

    max_cost: Dollars | None = None
    cost_alert_threshold: Dollars | None = None
    tracking_id: Name | None = None
    user_id: Id | None = None
    project_id: Id | None = None

    def read(self) -> CallBudget:
        return CallBudget(
            max_cost_nano=_nano(self.max_cost),
            alert_nano=_nano(self.cost_alert_threshold),
            tracking_id=self.tracking_id or "",
            user_id=self.user_id or "",
            project_id=self.project_id or "",
        )


def gateway_budget(router: RouterConfig) -> CallBudget:
    """What the configuration says of every call that the gateway pays for."""
    return CallBudget(
        max_cost_nano=_nano(router.max_cost_per_request),
        alert_nano=_nano(router.cost_alert_threshold),
        capped=router.max_cost_per_request is not None,
    )


def within_gateway(asked: CallBudget, gateway: CallBudget) -> CallBudget:
    """What a request asks, and the gateway's word where it says nothing; it may ask for any alert,
    and for no more than the gateway's `max_cost`."""
    if gateway.alert_nano is not None and asked.alert_nano is None:
        asked = msgspec.structs.replace(asked, alert_nano=gateway.alert_nano)
    most = gateway.max_cost_nano
    if most is not None and (asked.max_cost_nano is None or asked.max_cost_nano > most):
        asked = msgspec.structs.replace(asked, max_cost_nano=most, capped=True)
    return asked


def require_within(asked: CallBudget, bound_nano: int | None) -> None:
    """Raises InvalidRequest (`max_cost_exceeded`) where a call may cost more than its client or the
    gateway wants to pay. An unknown bound passes: `priced` has said what happens then."""
    most = asked.max_cost_nano
    if most is None or bound_nano is None or bound_nano <= most:
        return
    whose = "any call may cost at this gateway," if asked.capped else f"its {_MAX_COST} of"
    advice = "Set" if asked.capped else "Raise it, set"
    raise InvalidRequest(
        f"This call may cost up to {format_usd(bound_nano)} USD, more than {whose}"
        f" {format_usd(most)} USD. {advice} a lower 'max_tokens', or send less.",
        code="max_cost_exceeded",
        param=None if asked.capped else _MAX_COST,
    )


def priced(
    plan: tuple[Target, ...], model: str, pricing: PricingConfig, strict: bool
) -> tuple[Target, ...]:
    """The targets where a call may run whose money is limited (`strict`: by a hard budget or by its
    `max_cost`): with `pricing.unknown: refuse` those of a known price.

    Raises InvalidRequest (`price_unknown`) where there is none.
    """
    if not strict or pricing.unknown == "allow" or all(one.price is not None for one in plan):
        return plan
    known = tuple(target for target in plan if target.price is not None)
    if not known:
        raise InvalidRequest(
            f"The price of the model '{model[:80]}' is not known here, so a limited budget cannot"
            " pay for it: choose a model that GET /v1/models shows with a price, or ask the"
            " operator to configure its input_cost and output_cost.",
            code="price_unknown",
            param="model",
        )
    return known


def _nano(usd: float | None) -> int | None:
    return None if usd is None else nano_from_usd(usd)
