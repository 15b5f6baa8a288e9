"""Groups of the `stockpicker` command that live in files of their own, and what all of them share."""

import getpass
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from stockpicker_dagster.errors import StockPickerError


def plainly(command: Callable[..., None]) -> Callable[..., None]:
    """Ends a command with our own message instead of a traceback."""

    @wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except StockPickerError as error:
            raise click.ClickException(str(error)) from error

    return guarded


def os_user() -> str:
    """The operating-system user, as decisions and halts record it."""
    return f"os:{getpass.getuser()}"


def ask_secret(question: str, *, twice: bool = False) -> str:
    """A secret, asked for on the terminal and not shown; there is no way to give one as an argument.

    Raises `StockPickerError` where there is no terminal, so that no secret ends up in a script or a process list.
    """
    if not is_terminal():
        raise StockPickerError(f"{question.lower()} is asked for on a terminal only, and there is none here")
    return str(click.prompt(question, hide_input=True, confirmation_prompt=twice, err=True))


def is_terminal() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin.isatty()
