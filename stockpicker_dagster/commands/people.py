"""`stockpicker user`: people, their roles, passwords, codes and tokens.

The first person is an administrator, added by whoever owns the state folder. From then on every change needs an
administrator's login, or one's own for one's own password, codes and tokens.
"""

from datetime import timedelta
from typing import Any

import click

from stockpicker_dagster.commands import ask_secret, os_user, plainly
from stockpicker_dagster.home import prepare_home
from stockpicker_dagster.trading.people.directory import ROLES

AS = click.option("--as", "login", metavar="NAME", help="Who you are; your password is asked for.")


@click.group()
def user() -> None:
    """Add people, give them roles, and set how they sign in."""


@user.command("add")
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), required=True, help="What the person may do.")
@AS
@plainly
def add_user(name: str, role: Any, login: str | None) -> None:
    """Add NAME; the first person has to be an administrator."""
    from stockpicker_dagster.trading.people import directory

    deployment = _deployment()
    with deployment.database.connect() as connection:
        first = not directory.people_exist(connection)
    who = os_user() if first else sign_in(deployment, login)
    directory.add_person(
        deployment.database, name, role, ask_secret(f"New password of {name}", twice=True), who, deployment.now()
    )
    click.echo(f"added {name} as {role}")


@user.command("list")
@plainly
def list_users() -> None:
    """List everybody: name, role, whether codes are turned on, since when."""
    from stockpicker_dagster.trading.people import directory

    for person in directory.everybody(_deployment().database):
        codes = "codes on" if person.has_totp else "codes off"
        state = f"disabled since {person.disabled_at:%Y-%m-%d}" if person.disabled_at else codes
        click.echo(f"{person.name:<20} {person.role:<14} {state}, added {person.created_at:%Y-%m-%d}")


@user.command("role")
@click.argument("name")
@click.argument("role", type=click.Choice(ROLES))
@AS
@plainly
def change_role(name: str, role: Any, login: str | None) -> None:
    """Give NAME another ROLE."""
    from stockpicker_dagster.trading.people import directory

    deployment = _deployment()
    directory.set_role(deployment.database, name, role, sign_in(deployment, login), deployment.now())
    click.echo(f"{name} is {role}")


@user.command("password")
@click.argument("name")
@AS
@plainly
def change_password(name: str, login: str | None) -> None:
    """Set a new password of NAME: your own, or somebody's as an administrator."""
    from stockpicker_dagster.trading.people import directory

    deployment = _deployment()
    who = sign_in(deployment, login or name)
    secret = ask_secret(f"New password of {name}", twice=True)
    directory.set_password(deployment.database, name, secret, who, deployment.now())
    click.echo(f"the password of {name} is set; sessions and tokens of before have ended")


@user.command("totp")
@click.argument("name")
@click.option("--off", is_flag=True, help="Turn codes off, for a lost phone; needs an administrator.")
@AS
@plainly
def change_totp(name: str, off: bool, login: str | None) -> None:
    """Turn codes of an authenticator app on for NAME."""
    from stockpicker_dagster.trading.people import directory, secrets

    deployment = _deployment()
    who = sign_in(deployment, login or name)
    if off:
        directory.remove_totp(deployment.database, name, who, deployment.now())
        click.echo(f"codes of {name} are turned off")
        return
    secret = secrets.new_totp_secret()
    click.echo(f"put this into the app, it is not shown again:\n  {secrets.totp_address(name, secret)}", err=True)
    code = ask_secret("Code that the app shows")
    directory.set_totp(deployment.database, name, secret, code, who, deployment.now())
    click.echo(f"codes of {name} are turned on")


@user.command("disable")
@click.argument("name")
@AS
@plainly
def disable_user(name: str, login: str | None) -> None:
    """End the access of NAME at once; what was done stays recorded."""
    from stockpicker_dagster.trading.people import directory

    deployment = _deployment()
    directory.disable(deployment.database, name, sign_in(deployment, login), deployment.now())
    click.echo(f"{name} is disabled")


@user.command("enable")
@click.argument("name")
@AS
@plainly
def enable_user(name: str, login: str | None) -> None:
    """Let NAME in again."""
    from stockpicker_dagster.trading.people import directory

    deployment = _deployment()
    directory.enable(deployment.database, name, sign_in(deployment, login), deployment.now())
    click.echo(f"{name} is enabled")


@user.command("token")
@click.argument("label")
@click.option("--days", type=click.IntRange(1, 365), default=90, show_default=True, help="How long it lasts.")
@AS
@plainly
def make_token(label: str, days: int, login: str | None) -> None:
    """Make a token for scripts; it is shown once. A token never decides in live mode."""
    from stockpicker_dagster.trading.people import tokens

    deployment = _deployment()
    who = sign_in(deployment, login)
    token, secret = tokens.create_token(deployment.database, who, label, timedelta(days=days), deployment.now())
    click.echo(f"token {token.id} until {token.expires_at:%Y-%m-%d}, not shown again:", err=True)
    click.echo(secret)


@user.command("tokens")
@click.argument("name")
@plainly
def list_tokens(name: str) -> None:
    """List the tokens of NAME, without their secrets."""
    from stockpicker_dagster.trading.people import tokens

    for token in tokens.tokens_of(_deployment().database, name):
        state = f"revoked {token.revoked_at:%Y-%m-%d}" if token.revoked_at else f"until {token.expires_at:%Y-%m-%d}"
        click.echo(f"{token.id} {state} {token.label}")


@user.command("revoke")
@click.argument("token")
@AS
@plainly
def revoke(token: str, login: str | None) -> None:
    """End TOKEN at once."""
    from stockpicker_dagster.trading.people import tokens

    deployment = _deployment()
    tokens.revoke_token(deployment.database, token, sign_in(deployment, login), deployment.now())
    click.echo(f"token {token} is revoked")


def sign_in(deployment: Any, name: str | None) -> str:
    """The name of somebody who proved to be it on the terminal; see `prove`."""
    return str(prove(deployment, name).person)


def decider(deployment: Any, login: str | None, live: bool) -> dict[str, Any]:
    """Who decides, as `decide` takes it: a person whose secret was just asked for, or the system's user.

    While nobody has been added it is the system's user. A live decision is signed with this machine's key.
    """
    from stockpicker_dagster.home import home
    from stockpicker_dagster.trading.people import directory
    from stockpicker_dagster.trading.signatures import load_signing_key

    with deployment.database.connect() as connection:
        people = directory.people_exist(connection)
    if not people:
        return {"person": os_user(), "os_user": os_user()}
    signer = load_signing_key(home().root / "keys") if live else None
    proof = prove(deployment, login)
    return {"person": proof.person, "proof": proof, "signer": signer, "os_user": os_user()}


def prove(deployment: Any, name: str | None) -> Any:
    """Asks for a password, and a code where they are turned on; the proof that came of it."""
    from stockpicker_dagster.errors import StockPickerError
    from stockpicker_dagster.trading.people import sign_in as signing

    if name is None:
        raise StockPickerError("say who you are with `--as NAME`; the password is then asked for")
    password = ask_secret(f"Password of {name}")
    code = ask_secret("Code") if signing.needs_code(deployment.database, name) else None
    return signing.sign_in(deployment.database, name, password, code, f"cli:{os_user()}", deployment.now())


def _deployment() -> Any:
    from stockpicker_dagster.storage.deployment import Deployment

    prepare_home()
    return Deployment()
