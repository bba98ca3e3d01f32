"""`nexus prices`: what models cost here, what another book would change, and taking it over."""

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from compose.commands import BAD_USAGE, Command, Commands, Failed, refuse

if TYPE_CHECKING:
    from pathlib import Path

    from compose.price_views import Shown
    from compose.settings import Loaded
    from schemas.catalog import Catalog

_EXAMPLES = """\
  nexus prices show                             whose prices are known, and of which edition
  nexus prices show gpt-4o                      at every provider that lists it
  nexus prices show anthropic/claude-opus-5 --json
  nexus prices diff                             with the installed genai-prices package
  nexus prices diff --from https://raw.githubusercontent.com/pydantic/genai-prices/refs/heads/main/prices/new_data/v2/data.json
  nexus prices update --from prices.json
"""


def _place(command: Command) -> Command:
    command = click.option("--config", metavar="FILE", help="YAML file, as for `nexus up`.")(
        command
    )
    return click.option("--data-dir", metavar="DIR", help="Where all data lives [.nexus].")(command)


_source = click.option(
    "--from",
    "source",
    metavar="FILE|URL",
    help="A price file, or an https address of one [the installed genai-prices package].",
)


@click.group(cls=Commands, examples=_EXAMPLES)
def prices() -> None:
    """Look up and renew what models cost."""


@prices.command("show")
@click.argument("model", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_place
def show(model: str | None, as_json: bool, data_dir: str | None, config: str | None) -> None:
    """Show what a model costs: US dollars per million tokens.

    MODEL is a name, or PROVIDER/NAME; a model of the configuration is shown as it is charged here.
    Without MODEL: whose prices are known.
    """
    import msgspec

    from compose import price_views as views

    loaded = _load(config, data_dir)
    catalog = catalog_of(loaded)
    if model is None:
        counts = {name: len(catalog.book.models(name)) for name in catalog.book.providers}
        if as_json:
            page: dict[str, Any] = {"edition": catalog.book.edition, "made": catalog.book.made}
            click.echo(msgspec.json.encode({**page, "models_by_provider": counts}))
            return
        click.echo(f"{catalog.edition}\n")
        for name, count in counts.items():
            click.echo(f"{name:<28}{count:>5} models")
        return
    found = _found(loaded, catalog, model)
    if not found:
        raise Failed(f"no price of {model!r} is known; `nexus prices show` tells whose prices are")
    if as_json:
        click.echo(msgspec.json.encode([views.as_data(one) for one in found]))
        return
    click.echo(f"{catalog.edition}; USD per million tokens\n")
    click.echo("\n".join(views.shown(one) for one in found), nl=False)


@prices.command("diff")
@_source
@click.option("--all", "every", is_flag=True, help="Print long lists whole.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@_place
def diff(
    source: str | None, every: bool, as_json: bool, data_dir: str | None, config: str | None
) -> None:
    """Show what an update would change.

    As of now: models that come (+) and go (-), and rates that change (old -> new). Like diff(1), it
    ends with code 0 where nothing differs, 1 where something does, 2 where it cannot tell.
    """
    import msgspec

    from compose import price_views as views
    from compose.price_changes import compare
    from compose.price_source import book_of, price_text

    now = _now()
    old = catalog_of(_load(config, data_dir)).book
    try:
        new = book_of(price_text(source, _moment(now)), source or "genai-prices")
    except Failed as error:
        refuse(str(error), BAD_USAGE)
    told = compare(old, new, now)
    if as_json:
        heads = {"from": old.edition, "to": new.edition}
        click.echo(msgspec.json.encode({**heads, **views.changes_as_data(told)}))
    else:
        click.echo(f"{old.edition} -> {new.edition}: {views.summary(told)}")
        click.echo(views.changes(told, every), nl=False)
    sys.exit(1 if told else 0)


@prices.command("update")
@_source
@click.option("--force", is_flag=True, help="Also take prices that look wrong.")
@_place
def update(source: str | None, force: bool, data_dir: str | None, config: str | None) -> None:
    """Take over newer prices.

    They are written to prices.json in the data directory, or to pricing.file; a running gateway on
    this machine uses them within a minute, for new calls. What is no price file is refused, and
    without --force also one in which a price jumps a hundredfold or most models are missing.
    """
    from pathlib import Path

    from compose import price_views as views
    from compose.price_changes import compare, doubts
    from compose.price_source import book_of, price_text

    now = _now()
    loaded = _load(config, data_dir)
    old = catalog_of(loaded).book
    text = price_text(source, _moment(now))
    new = book_of(text, source or "genai-prices")
    told = compare(old, new, now)
    if not told and new.edition == old.edition:
        click.echo(f"{old.edition} is in use already: nothing to do")
        return
    if not force and (wrong := list(doubts(old, new, now))):
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise Failed(f"this looks wrong: {wrong[0]}{more}; nothing was changed, --force takes it")
    path = Path(loaded.config.price_file)
    _put(path, text)
    click.echo(f"{old.edition} -> {new.edition}: {views.summary(told)}")
    click.echo(f"Written to {path}; running gateways use it within a minute.")


def _put(path: "Path", text: bytes) -> None:
    """Replaces the file at once, so that nobody reads half of it."""
    import tempfile

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)
            os.replace(name, path)
        except OSError:
            os.unlink(name)
            raise
    except OSError as error:
        raise Failed(f"{path}: cannot be written: {error.strerror or error}") from error


def _found(loaded: "Loaded", catalog: "Catalog", model: str) -> "list[Shown]":
    """A configured model at its places; else a name at its provider, or at all that list it."""
    from compose.price_views import Shown
    from ingress.routing import Router

    if model in loaded.config.models:
        routes = Router(loaded.config, catalog)
        prices = {place: routes.price(model, *place) for place in routes.places(model)}
        return [Shown(*place, price) for place, price in prices.items() if price is not None]
    provider, slash, engine = model.partition("/")
    if slash and (provider in catalog.vendors or provider in catalog.book):
        return [one for one in [_listed(catalog, provider, engine)] if one is not None]
    sellers = dict.fromkeys((*catalog.vendors, *catalog.book.providers))
    listing = [name for name in sellers if catalog.listed(name, model) is not None]
    return [one for name in listing if (one := _listed(catalog, name, model)) is not None]


def _listed(catalog: "Catalog", provider: str, engine: str) -> "Shown | None":
    from compose.price_views import Shown

    price = catalog.price(provider, engine)
    if price is None:
        return None
    listed = catalog.listed(provider, engine)
    version = listed.price_at(_now()) if listed is not None else None
    if version is None:
        return Shown(provider, engine, price)
    return Shown(provider, engine, price, version.since, version.minutes)


def catalog_of(loaded: "Loaded") -> "Catalog":
    """The catalog with the prices that are in use."""
    from schemas.catalog import Catalog

    catalog = Catalog.load()
    catalog.follow(loaded.config.price_file)
    return catalog


def _load(config: str | None, data_dir: str | None) -> "Loaded":
    from compose.settings import ConfigError, load

    try:
        return load(config, os.environ, {"data_dir": data_dir})
    except ConfigError as error:
        refuse(str(error), BAD_USAGE)


def _now() -> int:
    from schemas.ids import Clock

    return Clock().now_ns() // 1_000_000_000


def _moment(seconds: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
