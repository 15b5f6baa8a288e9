"""`stockpicker account`: trading accounts and what is allowed in them, set by an administrator."""

from decimal import Decimal
from typing import Any

import click

from stockpicker_dagster.commands import os_user, plainly
from stockpicker_dagster.commands.people import AS, _deployment, sign_in
from stockpicker_dagster.errors import InvalidInput

_SETTINGS = (
    click.option("--broker", help="paper, alpaca, interactive_brokers or ticket."),
    click.option("--mode", help="paper or live."),
    click.option("--url", "base_url", help="Where the broker is reached, such as https://paper-api.alpaca.markets."),
    click.option("--number", "broker_account", help="The broker's own number of the account."),
    click.option("--approvals", "approvals_needed", type=int, help="How many people have to approve."),
    click.option("--four-eyes/--no-four-eyes", default=None, help="Whether the author of a strategy may not approve."),
    click.option("--limit", "limits", multiple=True, metavar="NAME=FIGURE", help="A limit, such as gross=1.5."),
    click.option("--restricted", multiple=True, metavar="SYMBOL", help="A name in which nothing may be opened."),
    click.option("--lot", "lots", multiple=True, metavar="[SYMBOL=]SHARES", help="Trade in lots of so many shares."),
    click.option("--strategy", "strategies", multiple=True, help="A strategy that may trade here; can be repeated."),
    click.option("--any-strategy", is_flag=True, help="Any strategy may trade here, one at a time."),
    AS,
)


def _settings(command: Any) -> Any:
    for option in reversed(_SETTINGS):
        command = option(command)
    return command


@click.group()
def account() -> None:
    """Set up trading accounts: broker, mode, approvals, limits, strategies."""


@account.command("add")
@click.argument("name")
@click.option("--cash", default="1000000", show_default=True, help="What a paper account starts with.")
@_settings
@plainly
def add_account(name: str, cash: str, login: str | None, **settings: Any) -> None:
    """Set up the account NAME."""
    from stockpicker_dagster.trading import account_policy

    deployment = _deployment()
    who = _administrator(deployment, login)
    opened = account_policy.open_account(
        deployment.database, name, _setup(settings), _figure("cash", cash), who, deployment.now()
    )
    _show(opened)


@account.command("set")
@click.argument("name")
@_settings
@plainly
def set_account(name: str, login: str | None, **settings: Any) -> None:
    """Change what is named of the account NAME."""
    from stockpicker_dagster.trading import account_policy

    deployment = _deployment()
    who = _administrator(deployment, login)
    _show(account_policy.change_account(deployment.database, name, _setup(settings), who, deployment.now()))


@account.command("list")
@plainly
def list_accounts() -> None:
    """List the accounts, whether they are halted, and how their traders are."""
    from sqlalchemy import select

    from stockpicker_dagster.trading import ledger
    from stockpicker_dagster.trading.accounts import halt_in_force, read_account
    from stockpicker_dagster.trading.trader_reports import trader_of

    deployment = _deployment()
    database = deployment.database
    with database.connect() as connection:
        known = connection.execute(select(ledger.accounts.c.id).order_by(ledger.accounts.c.id)).scalars().all()
        accounts = [read_account(connection, each) for each in known]
    for each in accounts:
        _show(each)
        click.echo(f"  {halt_in_force(database, each.id) or 'not halted'}")
        if (trader := trader_of(database, each.id)) is not None:
            click.echo(f"  trader: {trader.sentence(deployment.now())}")


@account.command("enable-live")
@click.argument("name")
@click.option("--url", "base_url", required=True, help="The broker's address, once more.")
@click.option("--number", "broker_account", required=True, help="The broker's number of the account, once more.")
@AS
@plainly
def enable_live(name: str, base_url: str, broker_account: str, login: str | None) -> None:
    """Switch live trading on for NAME: from now on approved orders cost money."""
    from stockpicker_dagster.trading import account_policy

    deployment = _deployment()
    who = _administrator(deployment, login)
    account_policy.enable_live(deployment.database, name, base_url, broker_account, who, deployment.now())
    click.echo(f"live trading is on for {name}")


@account.command("disable-live")
@click.argument("name")
@AS
@plainly
def disable_live(name: str, login: str | None) -> None:
    """Switch live trading off for NAME; nothing more is sent."""
    from stockpicker_dagster.trading import account_policy

    deployment = _deployment()
    who = _administrator(deployment, login)
    account_policy.disable_live(deployment.database, name, who, deployment.now())
    click.echo(f"live trading is off for {name}")


@account.command("changes")
@click.argument("name")
@plainly
def show_changes(name: str) -> None:
    """List every change of the account NAME: when, by whom, and what it was after it."""
    from stockpicker_dagster.trading.account_policy import account_changes

    for changed_at, who, settings in account_changes(_deployment().database, name):
        click.echo(f"{changed_at:%Y-%m-%d %H:%M:%S} {who}: {settings}")


@account.command("signing-key")
@plainly
def make_key() -> None:
    """Make the key that signs live decisions on this machine, and print the line for the trader's trusted keys."""
    from stockpicker_dagster.home import home
    from stockpicker_dagster.trading.signatures import TRUSTED_KEYS, make_signing_key

    _deployment()
    signer = make_signing_key(home().root / "keys")
    click.echo(f"key {signer.key}; put this line into keys/{TRUSTED_KEYS} in the state folder of the trader:", err=True)
    click.echo(f"{signer.public_text} # {signer.key}")


@account.command("grants")
@click.option("--dagster", "dagster_role", required=True, help="PostgreSQL role of Dagster's processes.")
@click.option("--trader", "trader_role", required=True, help="PostgreSQL role of the trader processes.")
@click.option("--desk", "desk_role", required=True, help="PostgreSQL role of the console and of this command.")
@plainly
def print_grants(dagster_role: str, trader_role: str, desk_role: str) -> None:
    """Print the SQL that gives each process of a deployment on PostgreSQL no more than it needs."""
    from stockpicker_dagster.trading.grants import grant_script

    click.echo(grant_script(dagster_role, trader_role, desk_role))


def _administrator(deployment: Any, login: str | None) -> str:
    """Who changes accounts: a signed-in person, or the owner of the state folder while there is nobody."""
    from stockpicker_dagster.trading.people import directory

    with deployment.database.connect() as connection:
        people = directory.people_exist(connection)
    return sign_in(deployment, login) if people else os_user()


def _setup(settings: dict[str, Any]) -> Any:
    from stockpicker_dagster.trading.account_policy import Setup

    limits: dict[str, Any] = {}
    for pair in settings.pop("limits"):
        name, equals, figure = pair.partition("=")
        if not equals:
            raise InvalidInput(f"--limit {pair} has no figure; write it as gross=1.5")
        limits[name] = _figure(name, figure)
    if restricted := settings.pop("restricted"):
        limits["restricted"] = list(restricted)
    strategies = settings.pop("strategies")
    settings["limits"], settings["allowed_strategies"] = limits or None, tuple(strategies) or None
    for symbol, _, shares in (lot.rpartition("=") for lot in settings.pop("lots")):
        if symbol:
            settings["lots"] = {**settings.get("lots", {}), symbol: _figure(f"the lot of {symbol}", shares)}
        else:
            settings["lot"] = _figure("the lot", shares)
    return Setup(**settings)


def _figure(name: str, text: str) -> Decimal:
    try:
        return Decimal(text)
    except ArithmeticError as error:
        raise InvalidInput(f"{name} is {text!r}; it has to be a number") from error


def _show(each: Any) -> None:
    live = f", live {'on' if each.live_enabled else 'off'}" if each.mode == "live" else ""
    number = f" number {each.broker_account}" if each.broker_account else ""
    strategies = "any strategy" if each.allowed_strategies is None else ", ".join(each.allowed_strategies) or "nothing"
    eyes = ", four eyes" if each.four_eyes else ""
    click.echo(
        f"{each.id}: {each.mode} at {each.broker}{number} ({each.base_url}){live}; {each.approvals_needed} "
        f"approvals{eyes}; for {strategies}"
    )
