"""Which rates a call has to pass: those of its key, tier, project, team, user and model."""

from collections.abc import Iterator, Mapping
from math import ceil
from typing import Literal, NamedTuple

from msgspec import structs

from ingress.auth import Principal
from ledger.access.registry import Registry
from schemas import subjects
from schemas.access import Limits
from schemas.call import Tenant
from schemas.config import Config

What = Literal["requests", "tokens", "calls"]

# Of document 003; `tiers:` of the configuration wins.
TIERS: Mapping[str, Limits] = {
    "free": Limits(requests_per_hour=100, tokens_per_hour=50_000),
    "pro": Limits(requests_per_hour=1_000, tokens_per_hour=500_000),
    "enterprise": Limits(),
}

_NOTHING = Limits()
_KEPT = 4096


class Rule(NamedTuple):
    """One rate that a call has to pass: so many of `what` in `seconds`, with `burst` on top.

    `seconds` 0 is how many at once. `rate` is its name for the governor; `text` is for people.
    """

    rate: str
    what: What
    limit: float
    seconds: float
    burst: int
    text: str


class Applying:
    """Finds the rules of a call by a look-up, as long as nobody changes who may do what."""

    def __init__(self, config: Config, registry: Registry) -> None:
        limits = config.limits
        self._registry = registry
        self._tiers: Mapping[str, Limits] = {**TIERS, **config.tiers}
        self._default = Limits(
            requests_per_second=limits.requests_per_second,
            burst=limits.burst,
            requests_per_minute=limits.requests_per_minute or None,
            tokens_per_minute=limits.model_tokens_per_minute,
        )
        self._per_user: Limits = limits.per_user or _NOTHING
        self._models = {name: one.limits for name, one in config.models.items() if one.limits}
        self._found: dict[tuple[str, ...], tuple[Rule, ...]] = {}
        self._version = -1

    def rules(self, principal: Principal, tenant: Tenant, model: str) -> tuple[Rule, ...]:
        """All of them; none for the administrator. `tenant` is whom the call is for."""
        if principal.admin:
            return ()
        if self._version != self._registry.version or len(self._found) >= _KEPT:
            self._found.clear()
            self._version = self._registry.version
        limited = model if model in self._models else ""
        sought = (
            principal.kind,
            tenant.key_id,
            tenant.project,
            tenant.team,
            tenant.user,
            principal.tier,
            limited,
        )
        found = self._found.get(sought)
        if found is None:
            found = self._found[sought] = tuple(self._rules(principal, tenant, limited))
        return found

    def _rules(self, principal: Principal, tenant: Tenant, model: str) -> Iterator[Rule]:
        tier = self._tiers.get(principal.tier, _NOTHING)
        own = _lower(principal.limits or _NOTHING, tier)
        scope = "client" if principal.kind == "client" else "key"
        yield from _of(scope, tenant.key_id, _else(own, self._default))
        if tenant.user:
            yield from _of("user", tenant.user, self._per_user)
        if tenant.project and (project := self._registry.project(tenant.project)) is not None:
            yield from _of("project", tenant.project, project.limits or _NOTHING)
        if tenant.team and (team := self._registry.team(tenant.team)) is not None:
            yield from _of("team", tenant.team, team.limits or _NOTHING)
        if model:
            yield from _of("model", model, self._models[model])


def _of(scope: str, id: str, limits: Limits) -> Iterator[Rule]:
    """The rules in one record, under ids of bounded length."""
    name, whose = f"{scope}:{subjects.token(id)}", f"{scope} {id[:64]}"
    if limits.requests_per_second is not None:
        yield _per_second(name, whose, limits.requests_per_second, limits.burst)
    windows: tuple[tuple[What, int | None, int, str, str], ...] = (
        ("requests", limits.requests_per_minute, 60, "m", "minute"),
        ("requests", limits.requests_per_hour, 3600, "h", "hour"),
        ("tokens", limits.tokens_per_minute, 60, "m", "minute"),
        ("tokens", limits.tokens_per_hour, 3600, "h", "hour"),
    )
    for what, limit, seconds, short, unit in windows:
        if limit is not None:
            text = f"{whose}: {limit} {what} per {unit}"
            yield Rule(f"{name}:{what}/{short}", what, limit, seconds, 0, text)
    if limits.concurrent is not None:
        text = f"{whose}: {limits.concurrent} concurrent calls"
        yield Rule(f"{name}:calls", "calls", limits.concurrent, 0, 0, text)


def _per_second(name: str, whose: str, limit: float, burst: int | None) -> Rule:
    """Without a burst no second has more than the limit. A part of a request is a longer while."""
    text = f"{whose}: {limit:g} requests per second"
    if burst is not None:
        text += f", up to {burst} at once"
        return Rule(f"{name}:requests/s", "requests", limit, 1.0, burst, text)
    whole = ceil(limit)
    return Rule(f"{name}:requests/s", "requests", whole, whole / limit, 0, text)


def _lower(one: Limits, other: Limits) -> Limits:
    """Both hold: of each rate the lower limit."""
    values = {
        name: min(
            (v for v in (getattr(one, name), getattr(other, name)) if v is not None), default=None
        )
        for name in Limits.__struct_fields__
    }
    return Limits(**values)


def _else(own: Limits, default: Limits) -> Limits:
    """What is said of a rate, or what holds where nothing is said of it."""
    values = {
        name: default_value if (value := getattr(own, name)) is None else value
        for name, default_value in structs.asdict(default).items()
    }
    if own.requests_per_second is not None:
        values["burst"] = own.burst
    return Limits(**values)
