"""What all commands of `nexus` share: help in the order of the page, refusals in one sentence."""

import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

BAD_USAGE = 2
_FAILED = 1


class Failed(Exception):
    """Why a command cannot do what it was asked, as a sentence for a person."""


class Commands(click.Group):
    """Commands in the order of their page, with help that ends with examples.

    One that raises Failed ends with that sentence and code 1.
    """

    def __init__(self, *args: Any, examples: str, **more: Any) -> None:
        super().__init__(*args, **more)
        self._examples = examples

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Failed as error:
            from compose.show import printable

            refuse(printable(str(error)))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_paragraph()
        formatter.write(f"Examples:\n{self._examples}")


def refuse(reason: str, code: int = _FAILED) -> NoReturn:
    """End the command with a sentence on stderr; code 2 is for what was asked or configured."""
    click.echo(f"nexus: {reason}", err=True)
    sys.exit(code)
