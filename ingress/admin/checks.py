"""What may be said of keys, projects and teams beyond the types of their fields.

Each check raises InvalidRequest, naming the field.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from ingress.admin.bodies import invalid
from ingress.admin.desk import unhurried
from ingress.admin.views import status_of
from ingress.routing import shown
from ledger.access.registry import Registry
from schemas.access import BUILT_IN_TIERS, BudgetTerms, Key
from schemas.config import Config
from schemas.errors import InvalidRequest


def known_tier(tier: str, config: Config) -> None:
    """A tier is built in or configured; none is no tier."""
    tiers = tuple(dict.fromkeys((*BUILT_IN_TIERS, *config.tiers)))
    if tier and tier not in tiers:
        raise invalid("tier", f"expected one of {', '.join(tiers)}")


def future(when: datetime, now: datetime) -> datetime:
    """The moment in UTC, if it is still to come."""
    try:
        moment = when.astimezone(UTC)
    except OverflowError as error:
        raise invalid("expires_at", "expected a time before the year 9999") from error
    if moment <= now:
        raise invalid("expires_at", f"expected a time to come, it is {now:%Y-%m-%dT%H:%M:%SZ} now")
    return moment


def one_per_period(budgets: Iterable[BudgetTerms]) -> None:
    """Several budgets of one record differ in their period."""
    seen: set[str] = set()
    for number, terms in enumerate(budgets):
        if terms.period in seen:
            raise invalid(
                f"budgets.{number}.period", f"there is a budget per {terms.period} before"
            )
        seen.add(terms.period)


async def unused(
    registry: Registry, kind: str, id: str, now: datetime, bound: Callable[[Key], bool]
) -> None:
    """No active key is bound to it; that needs a look at all keys."""
    async for key in unhurried(registry.keys()):
        if bound(key) and status_of(key, now) == "active":
            raise InvalidRequest(
                f"The {kind} '{shown(id)}' has active keys, such as {shown(key.id)}: revoke them"
                " or bind them to another first.",
                code="in_use",
            )


def settings(fields: dict[str, Any], config: Config, now: datetime) -> dict[str, Any]:
    """The fields that were given for a key, a project or a team, as they are recorded."""
    known_tier(fields.get("tier", ""), config)
    expires_at = fields.get("expires_at")
    return fields if expires_at is None else {**fields, "expires_at": future(expires_at, now)}
