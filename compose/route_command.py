"""`nexus route`: where a call would run, and why."""

import sys
from typing import IO

import click

from compose.commands import Failed


@click.command()
@click.option("--explain", "body", type=click.File("rb"), required=True, metavar="BODY.json",
              help="A chat call as a client would send it; - reads it from the input.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def route(body: IO[bytes], as_json: bool) -> None:
    """Explain where a call would run.

    Prints the plan that the gateway at NEXUS_URL would make for this call now, and every target
    that it considers: its price, how it fares, and why it is taken or left. Nothing is called.
    Ends with exit code 1 when nothing fulfils the wishes of the call.
    """
    import msgspec

    from compose import admin, route_views
    from ingress.route_pages import RouteExplained

    try:
        asked = msgspec.json.decode(body.read())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Failed(f"{body.name} is not JSON: {error}") from error
    if not isinstance(asked, dict):
        raise Failed(f"{body.name} is not a JSON object: give the body of a chat call")
    reply = admin.ask("POST", "route", body=asked)
    found = reply.read(RouteExplained)
    click.echo(reply.body if as_json else route_views.explained(found, admin.room()), nl=as_json)
    if not found.targets:
        sys.exit(1)
