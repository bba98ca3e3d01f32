"""How the gateway fares: `/health` for load balancers and clients, `/metrics` for Prometheus.

Both are asked of the governor, which folds the whole ledger: every ingress shows the same numbers.
"""

import asyncio
import zlib
from typing import Literal

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from ingress.auth import Authenticator
from ingress.openapi import VERSION
from ingress.pools import Pools
from ingress.target_states import HeardStates
from ledger.connection import Connection, Disconnected, NoResponders, RequestTimeout
from ledger.health import ProviderState, State
from schemas import subjects
from schemas.config import Config
from schemas.errors import Unavailable
from schemas.ids import Clock
from schemas.target_events import Circuit, TargetState

_ASK_WITHIN = 0.5
_ASK_AGAIN = 0.1
_FIRST_ANSWER_WITHIN = 5.0
_METRICS_KEPT = 15.0
_HEALTH_KEPT = 0.5
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Status = Literal["healthy", "degraded", "unhealthy"]
Part = Literal["ok", "away", "unknown"]


class ProviderHealth(ProviderState, frozen=True):
    """A provider as `/health` shows it; `reason` says why where the attempts alone do not.

    `circuits` has the targets that are left alone (`open`) or probed (`half_open`), by engine; `*`
    is the whole provider.
    """

    reason: str | None = None
    circuits: dict[str, Circuit] | msgspec.UnsetType = msgspec.UNSET


class Health(msgspec.Struct, frozen=True):
    """The answer of `/health`.

    status: degraded while a part of the gateway is away or a provider is unhealthy, unhealthy when
    all providers are. A provider that was not asked lately is healthy with `latency_ms` null and
    no `recent_attempts`: clients of this shape know three words, and nothing speaks against it.
    """

    status: Status
    version: str
    uptime_ms: int
    providers: dict[str, ProviderHealth]
    components: dict[str, Part]


def router(
    connection: Connection, keys: Authenticator, heard: HeardStates, config: Config, clock: Clock
) -> APIRouter:
    """`GET /health`, `GET /api/v1/health` and `GET /metrics`."""
    status = StatusPages(connection, keys, heard, config, clock)
    api = APIRouter(tags=["status"])
    for path in ("/health", "/api/v1/health"):
        api.add_api_route(
            path,
            status.health,
            methods=["GET"],
            response_model=None,
            summary="State of the gateway and of its providers",
            description="200 as long as this process serves; `status` and `components` say what"
            " is away.",
        )
        api.add_api_route(
            path, status.health, methods=["HEAD"], response_model=None, include_in_schema=False
        )
    api.add_api_route(
        "/metrics",
        status.metrics,
        methods=["GET"],
        response_model=None,
        summary="Metrics of the whole gateway in the Prometheus text format",
        responses={200: {"content": {"text/plain": {}}}},
    )
    return api


class StatusPages:
    """The endpoints; a flood of requests asks the bus twice a second at most."""

    def __init__(
        self,
        connection: Connection,
        keys: Authenticator,
        heard: HeardStates,
        config: Config,
        clock: Clock,
    ) -> None:
        self._connection = connection
        self._keys = keys
        self._heard = heard
        self._config = config
        self._clock = clock
        self._pools = Pools(connection, clock)
        self._started = clock.monotonic()
        self._looking = asyncio.Lock()
        self._looked: tuple[float, bytes, dict[str, str]] | None = None
        self._metrics: tuple[float, bytes] | None = None

    async def metrics(self, request: Request) -> Response:
        """The governor's numbers; while it is away the last ones, for up to 15 s.

        Raises Unauthenticated where the configuration asks for a key, Unavailable.
        """
        if self._config.metrics_require_key:
            await self._keys.authenticate(request.scope["headers"])
        now = self._clock.monotonic()
        try:
            text = await self._ask_for_metrics()
            self._metrics = now, text
        except (NoResponders, RequestTimeout, Disconnected, TimeoutError) as error:
            if self._metrics is None or now - self._metrics[0] > _METRICS_KEPT:
                raise Unavailable(
                    "The governor, which counts for all processes, does not answer.",
                    code="governor_away",
                    retry_after=5.0,
                ) from error
            text = self._metrics[1]
        return Response(text, headers={"content-type": _METRICS_TYPE})

    async def _ask_for_metrics(self) -> bytes:
        """Before the first answer ever there may be a governor that is still starting: ask on."""
        async with asyncio.timeout(_FIRST_ANSWER_WITHIN):
            while True:
                try:
                    answer = await self._connection.request(
                        subjects.GOVERNOR_METRICS, timeout=_ASK_WITHIN
                    )
                    break
                except (NoResponders, RequestTimeout):
                    if self._metrics is not None:
                        raise
                    await asyncio.sleep(_ASK_AGAIN)
        compressed = answer.header("Content-Encoding") == "deflate"
        return zlib.decompress(answer.data) if compressed else answer.data

    async def health(self) -> Response:
        """A Health as JSON, at most half a second old; never an error."""
        async with self._looking:
            now = self._clock.monotonic()
            if self._looked is None or now - self._looked[0] > _HEALTH_KEPT:
                self._looked = now, *await self._look()
            _, body, headers = self._looked
        return Response(body, headers=headers)

    async def _look(self) -> tuple[bytes, dict[str, str]]:
        state, deserted = await asyncio.gather(self._ask_governor(), self._deserted_pools())
        known = state.providers if state else {}
        providers = {
            name: _provider(
                known.get(name, ProviderState()),
                (config.pool or name) in deserted,
                self._heard.whole(name),
                self._heard.of_provider(name),
            )
            for name, config in self._config.providers.items()
        }
        components = self._components(state, deserted)
        report = Health(
            status=_overall(providers, components),
            version=VERSION,
            uptime_ms=round((self._clock.monotonic() - self._started) * 1000),
            providers=providers,
            components=components,
        )
        headers = {"content-type": "application/json", "cache-control": "no-store"}
        if state:
            headers["x-nexus-ledger-seq"] = str(state.seq)
        return msgspec.json.encode(report), headers

    async def _ask_governor(self) -> State | None:
        try:
            answer = await self._connection.request(subjects.GOVERNOR_STATE, timeout=_ASK_WITHIN)
        except (NoResponders, RequestTimeout, Disconnected):
            return None
        return msgspec.json.decode(answer.data, type=State)

    async def _deserted_pools(self) -> set[str]:
        """The pools without any worker; none while the bus is away, as nobody can tell."""
        pools = list(self._config.pools())
        answers = await asyncio.gather(*map(self._is_deserted, pools))
        return {pool for pool, deserted in zip(pools, answers, strict=True) if deserted}

    async def _is_deserted(self, pool: str) -> bool:
        try:
            await self._pools.require(pool, pool)
        except Unavailable:
            return True
        return False

    def _components(self, state: State | None, deserted: set[str]) -> dict[str, Part]:
        if not self._connection.connected:
            return {"bus": "away", "governor": "unknown", "workers": "unknown"}
        no_worker = bool(deserted) and len(deserted) == len(self._config.pools())
        return {
            "bus": "ok",
            "governor": "ok" if state else "away",
            "workers": "away" if no_worker else "ok",
        }


def _provider(
    state: ProviderState, deserted: bool, whole: TargetState | None, circuits: dict[str, Circuit]
) -> ProviderHealth:
    status, reason = state.status, None
    if deserted:
        status, reason = "unhealthy", "no worker serves its queue"
    elif whole is not None:
        status, reason = "unhealthy", f"left alone until {whole.until}: {whole.reason}"
    elif circuits and status == "healthy":
        status = "degraded"
    return ProviderHealth(
        status=status,
        latency_ms=state.latency_ms,
        error_rate=state.error_rate,
        recent_attempts=state.recent_attempts,
        reason=reason,
        circuits=circuits or msgspec.UNSET,
    )


def _overall(providers: dict[str, ProviderHealth], components: dict[str, Part]) -> Status:
    unhealthy = sum(provider.status == "unhealthy" for provider in providers.values())
    if any(part != "ok" for part in components.values()):
        return "degraded"
    if unhealthy:
        return "unhealthy" if unhealthy == len(providers) else "degraded"
    return "healthy"
