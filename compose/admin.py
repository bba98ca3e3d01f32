"""Asks the admin API of the gateway at NEXUS_URL, and prints what it answers.

Every `show_...` prints either the JSON as it came or what a person reads.
"""

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from compose.commands import Failed

if TYPE_CHECKING:
    from compose.admin_views import Page
    from compose.client import Reply

T = TypeVar("T")


def ask(
    method: str,
    *steps: str,
    body: Mapping[str, Any] | None = None,
    query: Mapping[str, str | int] | None = None,
) -> "Reply":
    """One question to `/admin/<steps>`. Raises Failed."""
    return ask_gateway(method, "admin", *steps, body=body, query=query)


def ask_gateway(
    method: str,
    *steps: str,
    body: Mapping[str, Any] | None = None,
    query: Mapping[str, str | int] | None = None,
) -> "Reply":
    """One question to any of its paths. Raises Failed."""
    from compose import client

    return client.request(client.address(os.environ), method, *steps, body=body, query=query)


def show_record(reply: "Reply", as_json: bool) -> None:
    """A key, project or team."""
    from compose import admin_views as views

    click.echo(reply.body if as_json else views.record(reply.read(views.Record)), nl=as_json)


def show_budget(reply: "Reply", as_json: bool) -> None:
    """A budget."""
    from compose import budget_views as views

    click.echo(reply.body if as_json else views.budget(reply.read(views.Budget)), nl=as_json)


def show_done(reply: "Reply", what: str, as_json: bool) -> None:
    """What was done, as a sentence."""
    from compose.show import printable

    click.echo(reply.body if as_json else printable(what))


def show_secret(reply: "Reply", quiet: bool, as_json: bool, done: str) -> None:
    """The secret of a key, this one time; `done` says what has happened to the key."""
    from compose import admin_views as views

    key = None if as_json else reply.read(views.Opened)
    if key is None:
        click.echo(reply.body)
    elif quiet:
        click.echo(key.key)
    else:
        click.echo(
            f"Key {views.title(key)} {done}:\n\n  {key.key}\n\n"
            f"{views.grace(key)}It is shown only now: keep it in a safe place.\n\n"
            f"Try it:\n\n{_to_paste(key.key)}"
        )


def show_list(
    what: str,
    kind: "type[Page[T]]",
    table: "Callable[[Sequence[T], int | None], str]",
    query: Mapping[str, str | int],
    *,
    empty: str,
    as_json: bool,
    everything: bool = True,
) -> None:
    """The list at `/admin/<what>`, a page or `everything`; `empty` is said when there is nothing.

    As JSON each page is a document of its own.
    """
    found: list[T] = []
    while True:
        reply = ask("GET", what, query=query)
        page = reply.read(kind)
        found += page.data
        if as_json:
            click.echo(reply.body)
        if not everything or not page.has_more or page.next is None:
            break
        query = {**query, "after": page.next}
    if as_json:
        return
    if not found:
        click.echo(empty)
        return
    count = f"{len(found)} {what if len(found) != 1 else what.removesuffix('s')}"
    more = ", and there are more: --all shows them" if page.has_more else ""
    click.echo(table(found, room()) + f"({count}{more}; ledger sequence {page.as_of_seq})")


def room() -> int | None:
    """The width of the terminal; whatever is no terminal has any."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _to_paste(key: str) -> str:
    """A line that works as it is: a first call, of a model that the key may use."""
    from compose import client, show
    from compose.admin_views import Page, Record

    gateway = client.address(os.environ)._replace(token=key)
    try:
        models = client.request(gateway, "GET", "v1", "models", query={"available": "true"})
        names = [model.id for model in models.read(Page[Record]).data]
    except Failed:
        names = []
    model = "mock" if "mock" in names else next(iter(names), None)
    return show.curl(gateway.url, shlex.quote(f"Authorization: Bearer {key}"), model)
