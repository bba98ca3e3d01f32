"""The analytics role: it owns the database, follows the ledger and answers questions."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import msgspec
from faststream import FastStream
from faststream.nats import NatsBroker
from nats.aio.client import Client
from nats.errors import ConnectionClosedError, ConnectionReconnectingError

from analytics import migrate
from analytics.accounts import ExplainParams, TotalsParams
from analytics.asks import Answer, Ask, SqlParams
from analytics.explanation import explain
from analytics.opening import opening
from analytics.projection import Projection
from analytics.projector import Projector
from analytics.questions import QUESTIONS, answer
from analytics.sql_run import USER_SQL, UserSql
from analytics.store import READING, WRITING, Database, Store, StoreFailed
from analytics.target_news import TargetNews
from analytics.totals import totals
from ledger.access.configured import configured
from ledger.broker import broker
from ledger.budgets.opening import OpeningParams
from ledger.connection import BusRefused, Connection
from schemas import subjects
from schemas.config import BusConfig, Config
from schemas.errors import Forbidden, Internal, InvalidRequest, NexusError, Unavailable
from schemas.ids import Clock

log = logging.getLogger("nexus.analytics")
# FastStream speaks of its own tasks at the level of information.

_NAME = "analytics"
_OPEN_AGAIN = 5.0
_LONG = 10.0
_RETRY_AFTER = 2.0
_AT_ONCE = 16

_encode = msgspec.json.Encoder(decimal_format="number", enc_hook=str).encode
_decode_ask = msgspec.json.Decoder(Ask).decode

Reply = Callable[[Ask], Awaitable[msgspec.Struct]]


async def run_analytics(
    config: Config,
    clock: Clock | None = None,
    *,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Run the role until SIGTERM or SIGINT; the batch in hand is finished and acknowledged.

    `on_ready` is called when the database is open and the ledger is being followed. A bus that is
    not there is waited for; raises BusRefused when it will not have us.
    """
    troubles: list[str] = []

    def fatal(reason: str) -> None:
        troubles.append(reason)
        app.exit()

    clock = clock or Clock()
    role = Role(config, clock, on_ready)
    broker = _broker(config.bus, role, fatal)

    # It looks before the broker's client goes: that one takes a server without TLS for one with.
    connection = Connection.begin(config.bus, name=_NAME, clock=clock, on_fatal=fatal)

    async def reach() -> None:
        while not await connection.reached(_LONG):
            log.warning("waiting for the bus")

    async def follow() -> None:
        role.follow(broker.connection, app.exit)

    app = FastStream(
        broker,
        logger=None,
        lifespan=role.lifespan,
        on_startup=[reach],
        after_startup=[follow],
        on_shutdown=[role.stop],
    )
    try:
        await app.run()
    except (ConnectionReconnectingError, ConnectionClosedError):
        # What was acknowledged stays so; the rest is delivered again.
        log.warning("ended while the bus was away")
    finally:
        await connection.close()
    if troubles:
        raise BusRefused(troubles[0])


class Role:
    """The stores, the projector and what they know; opened in the background."""

    def __init__(self, config: Config, clock: Clock, on_ready: Callable[[], None]) -> None:
        self._clock = clock
        self._on_ready = on_ready
        self._database = Database.of(config)
        self._writing = Store(self._database, WRITING)
        self._reading = Store(self._database, READING)
        self._user_store = Store(self._database, USER_SQL)
        self._user_sql = UserSql(self._user_store)
        self._projection = Projection(self._writing)
        self._budgets = configured(config).budgets
        self._opening: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        self._projector: Projector | None = None
        self._connection: Client | None = None
        self._trouble = "the analytics database is still opening"

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        self._opening = asyncio.create_task(self._open())
        try:
            yield
        finally:
            self._opening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._opening
            for store in (self._writing, self._reading, self._user_store):
                await store.close()
            await asyncio.to_thread(self._database.close)

    def follow(self, connection: Client, on_end: Callable[[], None]) -> None:
        """Follow the ledger once the database is open; `on_end` when that ends by itself."""
        self._connection = connection
        self._following = asyncio.create_task(self._follow(connection))
        self._following.add_done_callback(lambda _: on_end())

    async def stop(self) -> None:
        """Finish the batch in hand while the bus is still there."""
        if self._opening is not None:
            self._opening.cancel()
        if self._projector is not None:
            self._projector.stop()
        if self._following is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._following

    async def look_again(self) -> None:
        """The bus was away."""
        if self._projector is not None:
            self._projector.look_again()

    async def ask(self, name: str, ask: Ask) -> msgspec.Struct:
        """Answer a named question. Raises NexusError and StoreFailed."""
        return await answer(
            name,
            bytes(ask.params),
            ask.scope,
            store=self._reading,
            now_ns=self._clock.now_ns(),
            as_of_seq=self._as_of(),
        )

    async def sql(self, ask: Ask) -> msgspec.Struct:
        """Run a user's statement. Raises NexusError and StoreFailed."""
        params = msgspec.json.decode(ask.params, type=SqlParams)
        return await self._user_sql.run(params.sql, ask.scope, self._as_of())

    async def totals(self, ask: Ask) -> msgspec.Struct:
        """What is stored up to a sequence. Raises Forbidden and StoreFailed."""
        _require_admin(ask)
        params = msgspec.json.decode(ask.params, type=TotalsParams)
        return await totals(params, self._projection, self._reading, self._as_of())

    async def explain(self, ask: Ask) -> msgspec.Struct:
        """What the admission of a call was decided on. Raises NexusError and StoreFailed."""
        _require_admin(ask)
        params = msgspec.json.decode(ask.params, type=ExplainParams)
        return await explain(params, self._budgets, self._reading, self._as_of())

    async def opening(self, ask: Ask) -> msgspec.Struct:
        """What a governor begins with. Raises Forbidden and StoreFailed."""
        _require_admin(ask)
        params = msgspec.json.decode(ask.params, type=OpeningParams)
        return await opening(params, self._projection, self._reading, self._as_of())

    async def reply(self, how: Reply, body: bytes) -> bytes:
        """The answer to one request, whatever happens."""
        try:
            result = _encode(Answer(ok=msgspec.Raw(_encode(await how(_decode_ask(body))))))
            most = self._connection.max_payload if self._connection else 0
            if len(result) > most:
                raise InvalidRequest(
                    f"the result has {len(result)} bytes, more than the bus carries ({most}): "
                    "select fewer columns or rows"
                )
            return result
        except NexusError as error:
            return _encode(Answer(error=error.info))
        except msgspec.DecodeError as error:
            return _encode(Answer(error=InvalidRequest(f"not a valid question: {error}").info))
        except StoreFailed as error:
            log.error("the database failed", extra={"error": str(error)})
            return _encode(Answer(error=_unavailable("the analytics database is away").info))
        except Exception:
            log.exception("a question failed")
            return _encode(Answer(error=Internal("analytics failed: see its log").info))

    def _as_of(self) -> int:
        if self._projector is None:
            raise _unavailable(self._trouble)
        return self._projector.applied_seq

    async def _open(self) -> None:
        """Open the database, however long that takes."""
        while True:
            try:
                await asyncio.to_thread(self._database.open)
                applied = await migrate.apply(self._writing)
                log.info("database is open", extra={"migrations": [one.name for one in applied]})
                return
            except (StoreFailed, migrate.SchemaMismatch) as error:
                self._trouble = "the analytics database does not open: its log says why"
                log.error("database does not open", extra={"error": str(error)})
            await asyncio.sleep(_OPEN_AGAIN)

    async def _follow(self, connection: Client) -> None:
        assert self._opening is not None
        await self._opening
        self._projector = Projector(self._projection, connection, subjects.inbox(_NAME))
        self._on_ready()
        news = asyncio.create_task(TargetNews(connection, self._targets, self._as_of).run())
        try:
            await self._projector.run()
        finally:
            news.cancel()

    async def _targets(self) -> msgspec.Struct:
        """How targets fare, exactly as of the sequence that it says. Raises StoreFailed."""
        async with self._projection.at_rest:
            return await self.ask("targets", Ask(msgspec.Raw(b"{}")))


def _broker(bus: BusConfig, role: Role, on_fatal: Callable[[str], None]) -> NatsBroker:
    made = broker(bus, role=_NAME, on_fatal=on_fatal, on_reconnect=role.look_again)
    answers: dict[str, Reply] = {name: partial(role.ask, name) for name in QUESTIONS}
    others = {
        "sql": role.sql,
        "totals": role.totals,
        "explain": role.explain,
        "opening": role.opening,
    }
    for question, how in {**answers, **others}.items():
        subscriber = made.subscriber(
            subjects.ask(question), queue=_NAME, max_workers=_AT_ONCE, title=question
        )
        subscriber(partial(role.reply, how))
    return made


def _require_admin(ask: Ask) -> None:
    """These questions cannot be narrowed to a tenant."""
    if ask.scope is not None:
        raise Forbidden("Only an administrator may ask this.")


def _unavailable(message: str) -> Unavailable:
    return Unavailable(f"{message}; try again shortly", retry_after=_RETRY_AFTER)
