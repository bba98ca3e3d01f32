"""Who may call: virtual keys, the projects and teams they belong to, and the budgets over them.

The ledger's `access.*` events carry these records whole: the newest event of a record is the
record. `...Settings` is what people choose, in a request or in the configuration, where an unknown
field is a typo; in a record it comes from a newer version, and is passed over.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec

from schemas.money import nano_from_usd

Payloads = Literal["none", "redacted", "full"]
OnDisconnect = Literal["cancel", "drain", "detach"]
BudgetScope = Literal["global", "team", "project", "user", "key"]
Period = Literal["day", "week", "month", "total"]

# Ids are free text within these bounds: a user may be `auth0|17` or an e-mail address.
Id = Annotated[
    str,
    msgspec.Meta(
        max_length=128,
        pattern=r"^[^\x00-\x20\x7f]([^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?\Z|^\Z",
    ),
]
Name = Annotated[str, msgspec.Meta(max_length=128, pattern=r"^[^\x00-\x1f\x7f]*\Z")]
ModelPattern = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
ModelPatterns = Annotated[tuple[ModelPattern, ...], msgspec.Meta(min_length=1, max_length=200)]
Metadata = Annotated[
    dict[
        Annotated[str, msgspec.Meta(min_length=1, max_length=64)],
        Annotated[str, msgspec.Meta(max_length=512)],
    ],
    msgspec.Meta(max_length=32),
]
Moment = Annotated[datetime, msgspec.Meta(tz=True)]
_Rate = Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000_000)]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

BUILT_IN_TIERS = ("free", "pro", "enterprise")


class _Chosen(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """What comes from people: an unknown field is an error, not a typo that nobody notices."""


class Limits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How often and how much at once; None is no limit."""

    requests_per_second: Annotated[float, msgspec.Meta(gt=0, le=1_000_000)] | None = None
    burst: _Rate | None = None
    requests_per_minute: _Rate | None = None
    requests_per_hour: _Rate | None = None
    tokens_per_minute: _Rate | None = None
    tokens_per_hour: _Rate | None = None
    concurrent: _Rate | None = None


class LimitSettings(Limits, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The same as people write it."""


class BudgetTerms(_Chosen, frozen=True, kw_only=True):
    """A budget as people write it, for the record it stands in; dollars are decimal."""

    period: Period
    limit_usd: Annotated[float, msgspec.Meta(ge=0, le=1_000_000_000)]
    hard_stop: bool = True
    warning_threshold: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.8


class BudgetSettings(BudgetTerms, frozen=True, kw_only=True):
    """A budget with whom it is for; `id` is empty for the scope `global`, and only there."""

    scope: BudgetScope
    id: Id = ""


class _KeyFields(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: Name = ""
    project: Id = ""
    team: Id = ""
    user: Id = ""
    allowed_models: ModelPatterns | None = None
    tier: Name = ""
    limits: Limits | None = None
    metadata: Metadata = {}
    on_disconnect: OnDisconnect = "cancel"
    payloads: Payloads | None = None
    expires_at: Moment | None = None
    queue: bool = False


class KeySettings(_KeyFields, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a virtual key may be told. None as `allowed_models` allows every model, None as
    `payloads` leaves it to the project. With `queue` a call waits for its turn, up to its deadline,
    where a limit would refuse it."""

    limits: LimitSettings | None = None


class _ProjectFields(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: Name = ""
    team: Id = ""
    allowed_models: ModelPatterns | None = None
    tier: Name = ""
    limits: Limits | None = None
    metadata: Metadata = {}
    payloads: Payloads | None = None


class ProjectSettings(_ProjectFields, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What holds for all keys of a project, beside their own settings."""

    limits: LimitSettings | None = None


class _TeamFields(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: Name = ""
    allowed_models: ModelPatterns | None = None
    tier: Name = ""
    limits: Limits | None = None
    metadata: Metadata = {}


class TeamSettings(_TeamFields, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What holds for all projects and keys of a team."""

    limits: LimitSettings | None = None


class Secret(msgspec.Struct, frozen=True, omit_defaults=True):
    """One text that opens a key: its keyed digest, and what may be shown of it.

    `until` ends the grace of a secret that was replaced; None: as long as the key.
    """

    digest: bytes
    hint: str = ""
    until: datetime | None = None


class Key(_KeyFields, frozen=True, kw_only=True):
    """A virtual key. `pepper` names the server secret its digests were made with."""

    id: str
    secrets: tuple[Secret, ...] = ()
    pepper: str = ""
    created_at: datetime | None = None
    updated_at: datetime | None = None
    revoked_at: datetime | None = None


class Project(_ProjectFields, frozen=True, kw_only=True):
    """A project; one that nobody has set up exists as soon as somebody names it."""

    id: str
    created_at: datetime | None = None
    updated_at: datetime | None = None


class Team(_TeamFields, frozen=True, kw_only=True):
    """A team."""

    id: str
    created_at: datetime | None = None
    updated_at: datetime | None = None


class Budget(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A budget; there is one per scope, id and period."""

    scope: BudgetScope
    id: str = ""
    period: Period
    limit_nano: int
    hard_stop: bool = True
    warning_threshold: float = 0.8
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def name(self) -> str:
        """`project:shop:month`, `global:day`: what tells it from all others."""
        return budget_name(self.scope, self.id, self.period)


def recorded(settings: msgspec.Struct, fields: Iterable[str]) -> dict[str, Any]:
    """Some fields of what people have written, as a record holds them."""
    values = {name: getattr(settings, name) for name in fields}
    if values.get("limits") is not None:
        values["limits"] = Limits(**msgspec.structs.asdict(values["limits"]))
    return values


def budget_name(scope: str, id: str, period: str) -> str:
    """The name of a budget, by which registry and API know it."""
    return f"{scope}:{id}:{period}" if id else f"{scope}:{period}"


def budget_of(scope: BudgetScope, id: str, terms: BudgetTerms, now_ns: int) -> Budget:
    """The record of a budget that begins now."""
    now = moment(now_ns)
    return Budget(
        scope=scope,
        id=id,
        period=terms.period,
        limit_nano=nano_from_usd(terms.limit_usd),
        hard_stop=terms.hard_stop,
        warning_threshold=terms.warning_threshold,
        created_at=now,
        updated_at=now,
    )


def moment(now_ns: int) -> datetime:
    """Nanoseconds since 1970 as UTC, to the microsecond."""
    return datetime.fromtimestamp(now_ns // 1_000_000_000, UTC).replace(
        microsecond=now_ns // 1000 % 1_000_000
    )


def nanoseconds(when: datetime) -> int:
    """The other way."""
    since = when - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000
