"""`stockpicker notices`: where notices go, set by an administrator, and sending what waits."""

from typing import Any

import click

from stockpicker_dagster.commands import ask_secret, os_user, plainly
from stockpicker_dagster.commands.people import AS, _deployment, sign_in


@click.group()
def notices() -> None:
    """Say where notices of proposals, decisions, executions, halts and rankings go."""


@notices.command("list")
@plainly
def list_targets() -> None:
    """List the targets; addresses are shown by their kind alone, because they are secrets."""
    from stockpicker_dagster.trading.notifications.targets import targets

    for target in targets(_deployment().database):
        kinds = "everything" if target.kinds is None else ", ".join(target.kinds)
        state = " (disabled)" if target.disabled else ""
        click.echo(f"{target.name:<20} {target.address:<24} {kinds}, by {target.created_by}{state}")


@notices.command("set")
@click.argument("name")
@click.option("--kind", "kinds", multiple=True, help="proposal, decision, execution, halt or ranking; default: all.")
@click.option("--from-environment", metavar="VARIABLE", help="Keep the address in this variable, not in the database.")
@AS
@plainly
def set_notice_target(name: str, kinds: tuple[str, ...], from_environment: str | None, login: str | None) -> None:
    """Add or replace the target NAME; its address, in apprise's notation, is asked for and not shown."""
    from stockpicker_dagster.trading.notifications.targets import set_target

    deployment = _deployment()
    who = _administrator(deployment, login)
    url = f"env:{from_environment}" if from_environment else ask_secret(f"Address of {name}")
    made = set_target(deployment.database, name, url, who, deployment.now(), kinds or None)
    click.echo(f"notices go to {made.name} ({made.address})")


@notices.command("disable")
@click.argument("name")
@AS
@plainly
def disable_notice_target(name: str, login: str | None) -> None:
    """Send nothing more to NAME."""
    from stockpicker_dagster.trading.notifications.targets import disable_target

    deployment = _deployment()
    _administrator(deployment, login)
    disable_target(deployment.database, name, deployment.now())
    click.echo(f"nothing more goes to {name}")


@notices.command("send")
@plainly
def send_notices() -> None:
    """Send what waits now; under `stockpicker up` a sensor does it every half minute."""
    from stockpicker_dagster.trading.notifications.delivery import drain

    deployment = _deployment()
    click.echo(str(drain(deployment.database, deployment.now())))


def _administrator(deployment: Any, login: str | None) -> str:
    """Who sets targets: a signed-in administrator, or the owner of the state folder while there is nobody."""
    from stockpicker_dagster.trading.people import directory

    with deployment.database.connect() as connection:
        people = directory.people_exist(connection)
    if not people:
        return os_user()
    who = sign_in(deployment, login)
    with deployment.database.connect() as connection:
        directory.require(connection, who, "administrator")
    return who
