"""The whole configuration as frozen data; `compose/settings.py` reads it from YAML and environment.

Durations are seconds, sizes bytes. Secrets are already resolved here and never printed: a Config is
not logged, `nexus check` shows secrets as `set` or `unset`.
"""

from typing import Annotated, Literal

import msgspec

from schemas.access import (
    BudgetSettings,
    BudgetTerms,
    KeySettings,
    LimitSettings,
    ModelPatterns,
    ProjectSettings,
    TeamSettings,
)

MEGABYTE = 1024 * 1024

Whole = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
Dollars = Annotated[float, msgspec.Meta(ge=0, le=1_000_000_000)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
# 0.01 USD per token is 10,000 USD per million: whoever writes more has meant another unit.
DollarsPerToken = Annotated[float, msgspec.Meta(ge=0, le=0.01)]
# Options of providers that are never shown, whichever dialect they belong to.
SECRET_OPTIONS = ("access_token", "ad_token", "client_secret", "secret_access_key", "session_token")
Strategy = Literal["auto", "cost", "speed", "quality"]
Percent = Annotated[float, msgspec.Meta(ge=0, le=100)]
LogLevel = Literal["debug", "info", "warning", "error", "critical"]


class Unusable(ValueError):
    """A setting that only its user could judge, and cannot work with; the message names it."""


class Quirks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where an OpenAI-compatible server differs from OpenAI's own.

    `renames` are parameters by their OpenAI name, with the name that the server knows; `lacks`
    those it refuses, which are refused here by name or left out by `drop_params`; `removes` those
    that are never sent, because they ask for nothing that a client would miss. Without
    `stream_usage` a stream is not asked for its usage; without `developer` that role is called
    `system`. The key goes in `key_header`, if the server does not take it as a bearer token.
    """

    renames: dict[str, str] = {}
    lacks: tuple[str, ...] = ()
    removes: tuple[str, ...] = ()
    stream_usage: bool = True
    developer: bool = True
    key_header: str = ""


class ProviderConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a provider is and how to talk to it.

    `dialect` names the adapter in `workers/providers/`; `pool` is the queue its calls wait in
    (default: the provider's own name) and `concurrency` how many of them run at once.
    `client_keys` says whether clients may bring a key of their own; `required` is a provider that
    the gateway itself has no key for. With `drop_params` a parameter that the provider has no word
    for is left out instead of being refused.
    """

    dialect: str = "openai"
    base_url: str = ""
    api_key: str = ""
    headers: dict[str, str] = {}
    region: str = ""
    pool: str = ""
    concurrency: Positive = 256
    client_keys: Literal["allowed", "required", "refused"] = "allowed"
    drop_params: bool = False
    quirks: Quirks = Quirks()
    options: dict[str, str] = {}


class TargetConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of several places a model may run at."""

    provider: str
    engine: str = ""
    weight: Whole = 1


class RouteTarget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model that a part of a route's calls goes to."""

    name: str
    weight: Whole = 1


class RoutePolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of `routes:`, as in document 004: which models stand behind a name.

    `weighted` has targets, whose weights are shares; `canary` sends `percent` of the calls to one
    model and all others to the primary one.
    """

    strategy: Literal["weighted", "canary"]
    targets: tuple[RouteTarget, ...] = ()
    primary: str = ""
    canary: str = ""
    percent: Percent | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The models behind it."""
        if self.strategy == "canary":
            return (self.primary, self.canary)
        return tuple([target.name for target in self.targets])


class ModelConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of `models:`; costs are decimal USD per token as written in YAML, each instead of
    what the price book has for its class; `limits` hold for all calls of the model together."""

    provider: str = ""
    engine: str = ""
    input_cost: DollarsPerToken | None = None
    output_cost: DollarsPerToken | None = None
    cached_input_cost: DollarsPerToken | None = None
    cache_write_cost: DollarsPerToken | None = None
    cache_write_1h_cost: DollarsPerToken | None = None
    audio_input_cost: DollarsPerToken | None = None
    image_input_cost: DollarsPerToken | None = None
    reasoning_cost: DollarsPerToken | None = None
    audio_output_cost: DollarsPerToken | None = None
    image_output_cost: DollarsPerToken | None = None
    max_tokens: Positive | None = None
    timeout: Seconds | None = None
    fallbacks: tuple[str, ...] = ()
    targets: tuple[TargetConfig, ...] = ()
    limits: LimitSettings | None = None


class QueueConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The work queue: how long a silent worker keeps a job, and how many jobs may wait per pool."""

    ack_wait: Seconds = 6.0
    in_progress_every: Seconds = 1.0
    max_deliver: Positive = 10
    max_waiting: Positive = 2000


class LimitConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds on what a client may send and how long it may take, and how often it may ask.

    The rates hold for each key that says nothing else of the same rate, `per_user` for each user;
    None is no limit, and neither is 0 per minute. `model_tokens_per_minute` is the name that
    document 002 has for tokens.
    """

    max_body_bytes: Positive = 32 * MEGABYTE
    header_timeout: Seconds = 20.0
    body_timeout: Seconds = 30.0
    write_timeout: Seconds = 60.0
    stream_buffer_bytes: Positive = MEGABYTE
    requests_per_second: Annotated[float, msgspec.Meta(gt=0)] | None = None
    burst: Positive | None = None
    requests_per_minute: Whole | None = None
    model_tokens_per_minute: Positive | None = None
    per_user: LimitSettings | None = None


class BusConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to reach NATS.

    Of `user` with `password`, `creds` (the path of a file) and `nkey_seed` one is enough. The
    `tls_...` are paths of PEM files: whom to trust, and who we are where the server asks.
    """

    url: str = "nats://127.0.0.1:4222"
    user: str = ""
    password: str = ""
    creds: str = ""
    nkey_seed: str = ""
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    replicas: Positive = 1


class BudgetConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The budget of the whole gateway in decimal USD; None is no budget."""

    daily_limit_usd: Dollars | None = None
    hard_stop: bool = True
    warning_threshold: Share = 0.8


class RouterConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a model is chosen when the client leaves the choice to the gateway; costs in USD."""

    default_strategy: Strategy = "auto"
    preferred_providers: tuple[str, ...] = ()
    blocked_providers: tuple[str, ...] = ()
    enable_fallbacks: bool = True
    max_fallback_attempts: Whole = 3
    fallback_delay_ms: Whole = 1000
    max_cost_per_request: Dollars | None = None
    cost_alert_threshold: Dollars | None = None
    enable_cost_optimization: bool = True
    cache_enabled: bool = True
    cache_ttl_seconds: Positive = 3600
    load_balancing_enabled: bool = True


class BreakerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a target is left alone: after `max_failures` calls in a row that it failed (0: never),
    for `reset_seconds` at first, twice as long each further time, up to `longest_reset_seconds`."""

    max_failures: Whole = 5
    reset_seconds: Seconds = 30.0
    longest_reset_seconds: Seconds = 300.0


class PricingConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is charged on top of the providers' own prices, and whether a model without a known
    price may be called by those who have a hard budget.

    `file` is where `nexus prices update` puts prices newer than the built-in ones (default:
    `prices.json` in the data directory).
    """

    file: str = ""
    unknown: Literal["allow", "refuse"] = "allow"
    markup_percent: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 0.0


class KeyConfig(KeySettings, frozen=True, kw_only=True):
    """One entry of `keys:`: a key whose secret the operator chose."""

    key: str
    budgets: tuple[BudgetTerms, ...] = ()


class KeyPolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What document 004 can say of a key."""

    allowed_models: ModelPatterns | None = None
    rate_limit_per_minute: Positive | None = None


class ProjectConfig(ProjectSettings, frozen=True, kw_only=True):
    """One entry of `projects:`."""

    budgets: tuple[BudgetTerms, ...] = ()


class TeamConfig(TeamSettings, frozen=True, kw_only=True):
    """One entry of `teams:`."""

    budgets: tuple[BudgetTerms, ...] = ()


class JwtConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose tokens are accepted; without a secret, public key or JWKS URL nobody's.

    `public_key` is PEM text or the path of a PEM file; `leeway` how far clocks may differ.
    """

    secret: str = ""
    public_key: str = ""
    jwks_url: str = ""
    algorithms: tuple[str, ...] = ("HS256",)
    issuer: str = ""
    audience: str = ""
    leeway: Annotated[float, msgspec.Meta(ge=0, le=600)] = 10.0

    @property
    def enabled(self) -> bool:
        return bool(self.secret or self.public_key or self.jwks_url)


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that one process of Nexus needs to know.

    `providers` holds those that can be used: a provider whose key is not set is not in it.
    `default_provider` answers names that nothing else knows; `attempt_timeout` bounds one attempt
    of every model that has no `timeout` of its own. `drain` is how long a process that was asked to
    stop lets running calls go on.

    `secret` is what virtual keys are hashed and clients' own keys are sealed with: the first one is
    used, all are understood. `key_policies` are by the id of a key in `api_keys`. With `target_url`
    there is a provider `target`, for clients that come with a key of their own. The days of budgets
    are those of `budget_zone`, a name such as `Europe/Berlin`.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 8080
    data_dir: str = ".nexus"
    log_level: LogLevel = "info"
    bus: BusConfig = BusConfig()
    clickhouse_url: str = ""
    providers: dict[str, ProviderConfig] = {}
    models: dict[str, ModelConfig] = {}
    routes: dict[str, RoutePolicy] = {}
    defaults: dict[str, str] = {}
    mock_all: bool = False
    api_keys: tuple[str, ...] = ()
    key_policies: dict[str, KeyPolicy] = {}
    admin_token: str = ""
    secret: tuple[str, ...] = ()
    jwt: JwtConfig = JwtConfig()
    keys: dict[str, KeyConfig] = {}
    projects: dict[str, ProjectConfig] = {}
    teams: dict[str, TeamConfig] = {}
    budgets: tuple[BudgetSettings, ...] = ()
    budget_zone: str = "UTC"
    tiers: dict[str, LimitSettings] = {}
    metrics_require_key: bool = False
    call_deadline: Seconds = 600.0
    drain: Seconds = 10.0
    queue: QueueConfig = QueueConfig()
    limits: LimitConfig = LimitConfig()
    default_provider: str = ""
    attempt_timeout: Seconds | None = None
    budget: BudgetConfig = BudgetConfig()
    router: RouterConfig = RouterConfig()
    breaker: BreakerConfig = BreakerConfig()
    pricing: PricingConfig = PricingConfig()
    target_url: str = ""

    @property
    def price_file(self) -> str:
        """Where prices newer than the built-in ones are looked for."""
        return self.pricing.file or f"{self.data_dir}/prices.json"

    def pools(self) -> dict[str, int]:
        """Concurrency by pool: providers that share a pool share the largest figure among them."""
        pools: dict[str, int] = {}
        for name, provider in self.providers.items():
            pool = provider.pool or name
            pools[pool] = max(pools.get(pool, 1), provider.concurrency)
        return pools
