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
        who = approver(deployment, login)
        found = desk.accept_books(deployment.database, account, who, reason, deployment.now())
    for entered in found.entered:
        click.echo(f"entered: {entered}")
    click.echo(f"{account}: " + ("the books agree" if found.agrees else "; ".join(found.differences)))
    if not found.agrees:
        raise SystemExit(1)


@click.command()
@click.argument("account")
@click.option(
    "--at",
    "when",
    type=click.Choice(["now", "open", "close"]),
    default="now",
    show_default=True,
    help="As soon as the market is open, or in its next opening or closing auction.",
)
@plainly
def flatten(account: str, when: Any) -> None:
    """Propose to close everything that ACCOUNT holds; it happens once a person approves it, halted or not."""
    from stockpicker_dagster.components.account_orders import flatten_account
    from stockpicker_dagster.runs import strategies
    from stockpicker_dagster.trading.proposal import load

    deployment = _deployment()
    proposal = flatten_account(deployment, account, os_user(), when, strategies)
    document = load(deployment.database, proposal).document
    for order in document.orders:
        click.echo(f"  {order.side:<6} {order.quantity:>10} {order.symbol}")
    click.echo(
        f"proposal {proposal} closes {len(document.orders)} positions of {account} on {document.trade_session}; decide "
        f"by {document.decidable_until:%Y-%m-%d %H:%M} UTC with `stockpicker approve {proposal}`"
    )


@click.command()
@click.argument("account")
@plainly
def trader(account: str) -> None:
    """Trade for ACCOUNT: execute what is approved there, and reconcile its books, until stopped."""
    import logging
    import signal
    import threading

    from stockpicker_dagster.home import prepare_home
    from stockpicker_dagster.storage.database import migrate, open_database
    from stockpicker_dagster.storage.opening import database_url
    from stockpicker_dagster.trading.brokers.connections import connect
    from stockpicker_dagster.trading.signatures import TRUSTED_KEYS, load_trusted_keys
    from stockpicker_dagster.trading.trader import Trader

    place, database = prepare_home(), open_database(database_url())
    migrate(database)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for noisy in ("httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    Trader(
        database,
        account,
        lambda engine, name, wait: connect(engine, name, wait=wait),
        load_trusted_keys(place.root / "keys" / TRUSTED_KEYS),
        stop=stop,
    ).serve()


def approver(deployment: Any, login: str | None) -> str:
    """Who vouches for books, or for going on: a signed-in approver, or the system's user while there is nobody."""
    from stockpicker_dagster.trading.people import directory

    with deployment.database.connect() as connection:
        if not directory.people_exist(connection):
            return os_user()
    who = sign_in(deployment, login)
    with deployment.database.connect() as connection:
        directory.require(connection, who, "approver")
    return who
