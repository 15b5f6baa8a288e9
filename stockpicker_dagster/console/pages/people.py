"""People and settings: who may do what, one's own password, codes and tokens."""

from datetime import timedelta
from typing import cast

from starlette.responses import Response

from stockpicker_dagster.console.web import Asked, Page, page, to
from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.trading.people import directory, secrets, tokens
from stockpicker_dagster.trading.people.directory import Role
from stockpicker_dagster.trading.people.sign_in import prove_again


def show_people(asked: Asked) -> Response:
    """Everybody, for administrators; oneself, for everybody."""
    return _people(asked)


def _people(asked: Asked, *, new_token: str = "", totp_secret: str = "") -> Response:
    engine, person = asked.desk.database, asked.who.person
    everybody = directory.everybody(engine) if person.may("administrator") else [person]
    return page(
        asked,
        "people.html",
        "People and settings",
        here="/people",
        everybody=everybody,
        roles=directory.ROLES,
        tokens=tokens.tokens_of(engine, person.name),
        new_token=new_token,
        totp_secret=totp_secret,
        totp_address=secrets.totp_address(person.name, totp_secret) if totp_secret else "",
    )


def do_add(asked: Asked) -> Response:
    """Adds somebody."""
    fields = asked.fields
    directory.add_person(
        asked.desk.database,
        fields.get("name", "").strip(),
        cast(Role, fields.get("role", "")),
        fields.get("password", ""),
        asked.who.person.name,
        asked.desk.now(),
    )
    return to("/people")


def do_role(asked: Asked) -> Response:
    """Gives somebody another role."""
    role = cast(Role, asked.fields.get("role", ""))
    directory.set_role(asked.desk.database, asked.path["name"], role, asked.who.person.name, asked.desk.now())
    return to("/people")


def do_disable(asked: Asked) -> Response:
    """Ends somebody's access at once."""
    directory.disable(asked.desk.database, asked.path["name"], asked.who.person.name, asked.desk.now())
    return to("/people")


def do_enable(asked: Asked) -> Response:
    """Lets somebody in again."""
    directory.enable(asked.desk.database, asked.path["name"], asked.who.person.name, asked.desk.now())
    return to("/people")


def do_password(asked: Asked) -> Response:
    """Sets one's own password, knowing the old one; all sessions end, this one too."""
    _prove(asked)
    if asked.fields.get("password") != asked.fields.get("again"):
        raise InvalidInput("the two passwords are not the same; nothing was changed")
    name = asked.who.person.name
    directory.set_password(asked.desk.database, name, asked.fields.get("password", ""), name, asked.desk.now())
    return to("/sign-in")


def do_totp_begin(asked: Asked) -> Response:
    """Shows a new secret for an app that makes codes; nothing is stored until a code has proved it."""
    return _people(asked, totp_secret=secrets.new_totp_secret())


def do_totp(asked: Asked) -> Response:
    """Turns codes on, once a first one fits."""
    _prove(asked)
    name = asked.who.person.name
    secret, code = asked.fields.get("totp_secret", ""), asked.fields.get("code", "")
    directory.set_totp(asked.desk.database, name, secret, code, name, asked.desk.now())
    return to("/people")


def do_token(asked: Asked) -> Response:
    """Makes a personal token and shows it this once."""
    days = asked.fields.get("days", "90")
    if not days.isdigit() or len(days) > 3:
        raise InvalidInput(f"{days[:20]!r} is no number of days; allowed: 1 to {tokens.LONGEST.days}")
    _, secret = tokens.create_token(
        asked.desk.database,
        asked.who.person.name,
        asked.fields.get("label", ""),
        timedelta(days=int(days)),
        asked.desk.now(),
    )
    return _people(asked, new_token=secret)


def do_revoke(asked: Asked) -> Response:
    """Ends a token."""
    tokens.revoke_token(asked.desk.database, asked.path["token"], asked.who.person.name, asked.desk.now())
    return to("/people")


def _prove(asked: Asked) -> None:
    """A session left open on somebody's desk must not be enough to take the account over."""
    prove_again(
        asked.desk.database, asked.who.person.name, asked.fields.get("secret", ""), asked.origin, asked.desk.now()
    )


PAGES = (
    Page("/people", show_people),
    Page("/people", do_add, role="administrator", method="POST"),
    Page("/people/{name}/role", do_role, role="administrator", method="POST"),
    Page("/people/{name}/disable", do_disable, role="administrator", method="POST"),
    Page("/people/{name}/enable", do_enable, role="administrator", method="POST"),
    Page("/settings/password", do_password, method="POST"),
    Page("/settings/codes/begin", do_totp_begin, method="POST"),
    Page("/settings/codes", do_totp, method="POST"),
    Page("/settings/tokens", do_token, method="POST"),
    Page("/settings/tokens/{token}/revoke", do_revoke, method="POST"),
)
