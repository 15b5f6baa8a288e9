"""Commands about the books and the orders of trading accounts, which work while no strategy's definition loads."""

from typing import Any

import click

from stockpicker_dagster.commands import os_user, plainly
from stockpicker_dagster.commands.people import AS, _deployment, sign_in


@click.command()
@click.argument("account", default="paper")
@click.option(
    "--accept", "reason", metavar="REASON", help="Take the broker's books for the truth; why, in a few words."
)
@AS
@plainly
def reconcile(account: str, reason: str | None, login: str | None) -> None:
    """Compare the books of ACCOUNT with its broker's; a difference halts it."""
    from stockpicker_dagster.trading import desk

    deployment = _deployment()
    if reason is None:
        found = desk.reconcile_account(deployment.database, account, deployment.now())
    else:
        who = _approver(deployment, login)
        found = desk.accept_books(deployment.database, account, who, reason, deployment.now())
    for entered in found.entered:
        click.echo(f"entered: {entered}")
    click.echo(f"{account}: " + ("the books agree" if found.agrees else "; ".join(found.differences)))
    if not found.agrees:
        raise SystemExit(1)


def _approver(deployment: Any, login: str | None) -> str:
    """Who vouches for books: a signed-in approver, or the owner of the state folder while there is nobody."""
    from stockpicker_dagster.trading.people import directory

    with deployment.database.connect() as connection:
        if not directory.people_exist(connection):
            return os_user()
    who = sign_in(deployment, login)
    with deployment.database.connect() as connection:
        directory.require(connection, who, "approver")
    return who
