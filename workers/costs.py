"""What an attempt cost, as far as that can be known."""

from schemas.call import Target
from schemas.usage import Cost, Usage, cost_of


def cost_at(target: Target, usage: Usage | None) -> tuple[Cost | None, str]:
    """The cost at a target's price and the price's id; None is unknown, which is not zero."""
    price = target.price
    if price is None:
        return None, ""
    if usage is None or usage.status == "unknown":
        return None, price.id
    return cost_of(usage, price), price.served(usage.tier).id
