"""The whole configuration as frozen data; `compose/settings.py` reads it from YAML and environment.

Durations are seconds, sizes bytes. Secrets are already resolved here and never printed: a Config is
not logged, `nexus check` shows secrets as `set` or `unset`.
"""

import msgspec

MEGABYTE = 1024 * 1024


class ProviderConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a provider is and how to talk to it.

    `dialect` names the adapter in `workers/providers/`; `pool` is the queue its calls wait in
    (default: the provider's own name) and `concurrency` how many of them run at once.
    """

    dialect: str = "openai"
    base_url: str = ""
    api_key: str = ""
    headers: dict[str, str] = {}
    region: str = ""
    pool: str = ""
    concurrency: int = 256
    options: dict[str, str] = {}


class TargetConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One of several places a model may run at."""

    provider: str
    engine: str = ""
    weight: int = 1


class ModelConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of `models:`; costs are decimal USD per token as written in YAML."""

    provider: str = ""
    engine: str = ""
    input_cost: float | None = None
    output_cost: float | None = None
    max_tokens: int | None = None
    timeout: float | None = None
    fallbacks: tuple[str, ...] = ()
    targets: tuple[TargetConfig, ...] = ()


class QueueConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The work queue: how long a silent worker keeps a job, and how many jobs may wait per pool."""

    ack_wait: float = 6.0
    in_progress_every: float = 2.0
    max_deliver: int = 10
    max_waiting: int = 2000


class LimitConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bounds on what a client may send and how long it may take."""

    max_body_bytes: int = 32 * MEGABYTE
    header_timeout: float = 20.0
    body_timeout: float = 30.0
    stream_buffer_bytes: int = MEGABYTE


class BusConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to reach NATS; `creds`, `nkey_seed` and `tls_ca` are for external servers."""

    url: str = "nats://127.0.0.1:4222"
    user: str = ""
    password: str = ""
    creds: str = ""
    nkey_seed: str = ""
    tls_ca: str = ""
    replicas: int = 1


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that one process of Nexus needs to know."""

    host: str = "127.0.0.1"
    port: int = 8080
    data_dir: str = ".nexus"
    log_level: str = "info"
    bus: BusConfig = BusConfig()
    clickhouse_url: str = ""
    providers: dict[str, ProviderConfig] = {}
    models: dict[str, ModelConfig] = {}
    defaults: dict[str, str] = {}
    mock_all: bool = False
    api_keys: tuple[str, ...] = ()
    admin_token: str = ""
    metrics_require_key: bool = False
    call_deadline: float = 600.0
    queue: QueueConfig = QueueConfig()
    limits: LimitConfig = LimitConfig()

    def pools(self) -> dict[str, int]:
        """Concurrency by pool: providers that share a pool share the largest figure among them."""
        pools: dict[str, int] = {}
        for name, provider in self.providers.items():
            pool = provider.pool or name
            pools[pool] = max(pools.get(pool, 1), provider.concurrency)
        return pools
