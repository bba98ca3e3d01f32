"""`/admin/keys`: virtual keys from their making to their end."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, NamedTuple

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response

from ingress.admin import bodies, checks
from ingress.admin.budget_events import Budgets, begin_budgets
from ingress.admin.desk import Author, Desk, Page, unhurried
from ingress.admin.key_events import (
    found,
    key_created,
    key_revoked,
    key_rotated,
    key_updated,
    living,
)
from ingress.admin.views import KeyView, OpenedKeyView, Status, key_view, opened, status_of
from ingress.openapi import described
from ledger.access.key_text import hint, new_key
from schemas.access import Key, KeySettings, Secret
from schemas.errors import Unavailable

_LONGEST_GRACE = 30 * 86_400
_LONGEST_PAGE = 1000


class NewKey(KeySettings, frozen=True, kw_only=True):
    """A virtual key to be made, with budgets of its own."""

    budgets: Budgets = ()


class Rotation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For how many seconds the older secrets of the key stay good; 0: not at all."""

    grace_seconds: Annotated[int, msgspec.Meta(ge=0, le=_LONGEST_GRACE)] = 86_400


def routes(desk: Desk) -> APIRouter:
    """`/admin/keys`."""
    api = APIRouter(prefix="/keys")
    admin = Depends(desk.admit)

    @api.post("", **described("create_key", OpenedKeyView, status=201, body=NewKey))
    async def create(request: Request, author: Author = admin) -> Response:
        """Make a key. Its text is in this answer and nowhere else, ever."""
        new = bodies.decode(await desk.body(request), NewKey)
        checks.one_per_period(new.budgets)
        chosen = checks.settings(bodies.fields_of(new, KeySettings), desk.config, author.now())
        fresh = _fresh_secret(desk)
        id = f"key_{desk.clock.entropy(8).hex()}"
        await begin_budgets(desk, "key", id, new.budgets, author)
        key = partial(key_created, id=id, secret=fresh.secret, pepper=fresh.pepper)
        event = await desk.change(id, partial(key, settings=chosen, author=author))
        return desk.answer(opened(await _view(desk, event.record), fresh.text), status=201)

    @api.get("", **described("list_keys", Page[KeyView]))
    async def show_all(
        author: Author = admin,
        project: str = "",
        team: str = "",
        user: str = "",
        status: Status | None = None,
        limit: Annotated[int, Query(ge=1, le=_LONGEST_PAGE)] = 100,
        after: str = "",
    ) -> Response:
        """The configured keys, then the others in the order of their making; `after` is the id
        of the last one of the page before."""
        now = author.now()

        def wanted(key: Key) -> bool:
            return (
                (not project or key.project == project)
                and (not team or key.team == team)
                and (not user or key.user == user)
                and (status is None or status_of(key, now) == status)
            )

        seq = desk.registry.seq
        keys = await _some(desk, wanted, after, limit + 1)
        shown = keys[:limit]
        budgets = await desk.budgets_of("key", *(key.id for key in shown))
        views = [key_view(key, budgets[key.id], desk.registry.configured, now) for key in shown]
        return desk.answer_list(views, seq, shown[-1].id if len(keys) > limit else None)

    @api.get("/{id}", **described("get_key", KeyView, errors=(404,)))
    async def show(id: str) -> Response:
        """One key."""
        return desk.answer(await _view(desk, found(desk.registry, id)))

    @api.patch("/{id}", **described("update_key", KeyView, body=KeySettings, errors=(404,)))
    async def update(id: str, request: Request, author: Author = admin) -> Response:
        """Change what is given and leave the rest; null goes back to the default."""
        given = bodies.given(await desk.body(request), KeySettings)
        key = living(desk.registry, id)
        fields = checks.settings(given, desk.config, author.now())
        if fields:
            decide = partial(key_updated, id=id, fields=fields, author=author)
            key = (await desk.change(id, decide)).record
        return desk.answer(await _view(desk, key))

    @api.post(
        "/{id}/rotate", **described("rotate_key", OpenedKeyView, body=Rotation, errors=(404,))
    )
    async def rotate(id: str, request: Request, author: Author = admin) -> Response:
        """Give the key a new text. The old one stays good for `grace_seconds`, a day by default."""
        grace = bodies.decode(await desk.body(request), Rotation).grace_seconds
        living(desk.registry, id)
        fresh = _fresh_secret(desk)
        key = partial(key_rotated, id=id, secret=fresh.secret, pepper=fresh.pepper)
        event = await desk.change(id, partial(key, grace=grace, author=author))
        return desk.answer(opened(await _view(desk, event.record), fresh.text))

    @api.post("/{id}/revoke", **described("revoke_key", KeyView, errors=(404,)))
    async def revoke(id: str, author: Author = admin) -> Response:
        """End the key, everywhere within a second and for ever."""
        key = found(desk.registry, id)
        if key.revoked_at is None:
            key = (await desk.change(id, partial(key_revoked, id=id, author=author))).record
        return desk.answer(await _view(desk, key))

    return api


class _Fresh(NamedTuple):
    """A key's new text, what is kept of it, and the name of the pepper that was used."""

    text: str
    secret: Secret
    pepper: str


def _fresh_secret(desk: Desk) -> _Fresh:
    """Raises Unavailable where the operator has set no server secret."""
    if not desk.secret.available:
        raise Unavailable(
            "Keys cannot be made here: the operator must set NEXUS_SECRET, a text of at least 16"
            " characters that is the same for all processes.",
            code="no_secret",
        )
    text = new_key(desk.clock.entropy)
    secret = Secret(desk.secret.digest(text.encode()), hint=hint(text))
    return _Fresh(text, secret, desk.secret.pepper_id)


async def _view(desk: Desk, key: Key) -> KeyView:
    budgets = await desk.budgets_of("key", key.id)
    return key_view(key, budgets[key.id], desk.registry.configured, desk.now())


async def _some(desk: Desk, wanted: Callable[[Key], bool], after: str, limit: int) -> list[Key]:
    """The first so many of the wanted keys behind the one named `after`."""
    if after and desk.registry.key(after) is None:
        raise bodies.invalid("after", "expected the id of a key, as `next` of the page before")
    keys: list[Key] = []
    async for key in unhurried(desk.registry.keys(after)):
        if wanted(key):
            keys.append(key)
            if len(keys) == limit:
                break
    return keys
