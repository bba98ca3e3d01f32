"""The admin API: keys, projects, teams and budgets, shown from the registry, changed by events.

A resource is one module in `resources/`, with `routes(desk)`; adding one is adding that file.
"""

import pkgutil
from importlib import import_module

from fastapi import APIRouter, Depends

from ingress.admin import resources
from ingress.admin.desk import Desk
from ingress.auth import Authenticator
from ingress.governor_client import GovernorClient
from ledger.access.changes import Changes
from ledger.access.feed import Feed
from ledger.access.registry import Registry
from ledger.secret import ServerSecret
from schemas.config import Config
from schemas.ids import Clock


def router(
    keys: Authenticator,
    changes: Changes,
    registry: Registry,
    feed: Feed,
    secret: ServerSecret,
    config: Config,
    clock: Clock,
    governor: GovernorClient,
) -> APIRouter:
    """Everything under `/admin`, for who has the admin token."""
    desk = Desk(keys, changes, registry, feed, secret, config, clock, governor)
    # Here as well as in the endpoints: who may not ask hears that before what is wrong with it.
    api = APIRouter(prefix="/admin", tags=["admin"], dependencies=[Depends(desk.admit)])
    for module in pkgutil.iter_modules(resources.__path__):
        api.include_router(import_module(f"{resources.__name__}.{module.name}").routes(desk))
    return api
