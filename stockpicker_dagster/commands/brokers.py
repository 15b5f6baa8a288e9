"""`stockpicker broker`: what can be traded where, whether an adapter keeps its promises, and orders placed by hand."""

from datetime import timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import click

from stockpicker_dagster.commands import os_user, plainly
from stockpicker_dagster.commands.people import _deployment
from stockpicker_dagster.errors import InvalidInput, StockPickerError


@click.group()
def broker() -> None:
    """See what brokers can do, verify one on a paper account, and exchange orders with a person."""


@broker.command("list")
@plainly
def list_brokers() -> None:
    """List every kind of broker: what can be traded there, and how its adapter was verified."""
    from stockpicker_dagster.trading.brokers.connections import adapters

    for adapter in adapters():
        able = adapter.capabilities
        orders = ", ".join(sorted(f"{kind} {tif}" for kind, tif in able.orders))
        fractions = ", ".join(sorted(f"{kind} {tif}" for kind, tif in able.fractional_orders)) or "no"
        window = "for ever" if able.client_id_window is None else _hours(able.client_id_window)
        cut_offs = ", ".join(
            f"{tif} {_hours(cut_off.before)} before the {cut_off.anchor}"
            for tif, cut_off in sorted(able.cut_offs.items())
        )
        limit = f"{able.requests_per_minute} requests a minute" if able.requests_per_minute else "no request limit"
        click.echo(f"{adapter.name}: {adapter.title}")
        click.echo(f"  orders: {orders}")
        click.echo(f"  cut-offs: {cut_offs or 'none'}")
        click.echo(f"  shorts: {'whole shares' if able.shorts else 'no'}; fractions of longs: {fractions}")
        click.echo(f"  client ids: up to {able.client_id_length} characters, unique {window}; {limit}")
        click.echo(f"  verified: {able.verified}")


@broker.command("verify")
@click.argument("account")
@click.option("--symbol", default="SPY", show_default=True, help="What the test order, one share, is for.")
@plainly
def verify_broker(account: str, symbol: str) -> None:
    """Try the broker of ACCOUNT, a paper account, against everything its adapter promises.

    Its one order is for a single share, a tenth below the market, and is cancelled.
    """
    from stockpicker_dagster.trading.accounts import read_account
    from stockpicker_dagster.trading.brokers.connections import connect
    from stockpicker_dagster.trading.brokers.contract import verify

    deployment = _deployment()
    with deployment.database.connect() as connection:
        mode = read_account(connection, account).mode
    broken = 0
    for check in verify(connect(deployment.database, account), mode, symbol, deployment.now):
        click.echo(f"{'kept  ' if check.kept else 'BROKEN'} {check.promise}: {check.detail}")
        broken += not check.kept
    if broken:
        raise StockPickerError(f"{broken} promises were not kept; do not trade there before they are")


@broker.command("export")
@click.argument("account")
@click.option("--folder", type=click.Path(path_type=Path), default=Path(), help="Where the two files go.")
@plainly
def export_orders(account: str, folder: Path) -> None:
    """Write the orders of ACCOUNT that a person is to place: orders.csv, and checklist.html to print."""
    from stockpicker_dagster.trading.brokers.ticket.export import as_checklist, as_csv, hand_out

    deployment = _deployment()
    _by_hand(deployment, account)
    now = deployment.now()
    tickets = hand_out(deployment.database, account, now)
    files = {"orders.csv": as_csv(tickets), "checklist.html": as_checklist(tickets, account, now)}
    for name, text in files.items():
        path = folder / f"{account}-{name}"
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise InvalidInput(f"{path} cannot be written ({error.strerror}); name another folder") from error
        click.echo(str(path))
    click.echo(
        f"{len(tickets)} orders are handed out; report with `stockpicker broker report {account} FILE`", err=True
    )


@broker.command("report")
@click.argument("account")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@plainly
def report_fills(account: str, file: Path) -> None:
    """Take what became of orders placed by hand from FILE, a CSV: order, quantity, price, fees, time, status."""
    from stockpicker_dagster.trading.brokers.ticket.reports import take_fills

    deployment = _deployment()
    _by_hand(deployment, account)
    taken = take_fills(deployment.database, account, _text(file), os_user(), deployment.now())
    click.echo(f"{taken.fills} fills taken, {taken.known} known already, {taken.ended} orders ended")


@broker.command("state")
@click.argument("account")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--cash", required=True, help="The account's cash, as the broker shows it now.")
@plainly
def state_account(account: str, file: Path, cash: str) -> None:
    """Take what ACCOUNT holds, read off the broker's pages just now, from FILE, a CSV: symbol, quantity."""
    from stockpicker_dagster.trading.brokers.ticket.reports import state_holdings

    try:
        amount = Decimal(cash)
    except InvalidOperation as error:
        raise InvalidInput(f"{cash!r} is no amount; write a number such as 1234.56") from error
    deployment = _deployment()
    _by_hand(deployment, account)
    names = state_holdings(deployment.database, account, _text(file), amount, os_user(), deployment.now())
    click.echo(f"account {account} holds {names} names and {amount} of cash")


def _by_hand(deployment: Any, account: str) -> None:
    from stockpicker_dagster.trading.accounts import read_account

    with deployment.database.connect() as connection:
        kind = read_account(connection, account).broker
    if kind != "ticket":
        raise InvalidInput(f"account {account!r} is at {kind}; only orders of `ticket` accounts are placed by hand")


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{file} cannot be read as UTF-8 text; save it as CSV in UTF-8") from error


def _hours(span: timedelta) -> str:
    minutes = int(span / timedelta(minutes=1))
    return f"{minutes} minutes" if minutes < 120 else f"{minutes // 60} hours"
