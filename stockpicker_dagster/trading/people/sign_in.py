"""Proving who one is: a password, a code, and the limit on guessing that command and console share.

A try is counted before its secret is looked at, in a transaction of its own, so that many at once gain nothing and a
crash forgets nothing. A code that was accepted is never accepted again.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Engine, Row, delete, func, insert, or_, select, update

from stockpicker_dagster.errors import StockPickerError
from stockpicker_dagster.storage.database import transaction
from stockpicker_dagster.trading.people import secrets
from stockpicker_dagster.trading.people.directory import Person, read_person
from stockpicker_dagster.trading.people.tables import people, sign_in_attempts

Method = Literal["os", "password", "totp", "password+totp"]

WINDOW = timedelta(minutes=15)
FAILURES_OF_ONE = 5
"""Failed tries for one name from one origin within the window, after which it has to wait."""
FAILURES_FOR_A_NAME = 25
"""The same for one name from everywhere: above the first, so that nobody is locked out by one stranger."""
FAILURES_OF_AN_ORIGIN = 50
_KEPT = timedelta(days=30)


class SignInRefused(StockPickerError):
    """The name, password or code does not fit, or there were too many tries. It does not say which one it was."""


@dataclass(frozen=True)
class Proof:
    """Who proved to be whom, when, and by what; `decide` and the administrator's commands ask for one."""

    person: str
    method: Method
    proved_at: datetime


def sign_in(engine: Engine, name: str, password: str, code: str | None, origin: str, now: datetime) -> Proof:
    """The proof of a password and, where the person has codes turned on, of a code as well; else `SignInRefused`.

    `origin` is where the try comes from, such as `cli:os-user` or `web:address`, for the limit on tries.
    """
    attempt = _count_try(engine, name, origin, now)
    row = _row(engine, name)
    fits = secrets.password_fits(None if row is None else row.password_hash, password)
    if not fits or row is None or row.disabled_at is not None:
        raise SignInRefused("name, password or code do not fit")
    if row.totp_secret is None:
        return _accept(engine, attempt, name, "password", now)
    if not code or not _spend_code(engine, name, row.totp_secret, code, now):
        raise SignInRefused("name, password or code do not fit")
    return _accept(engine, attempt, name, "password+totp", now)


def prove_again(engine: Engine, name: str, secret: str, origin: str, now: datetime) -> Proof:
    """A fresh proof from somebody who is signed in: the password, or a code where codes are turned on."""
    attempt = _count_try(engine, name, origin, now)
    row = _row(engine, name)
    if row is None or row.disabled_at is not None:
        raise SignInRefused("the password or code does not fit")
    looks_like_a_code = len(secret.strip().replace(" ", "")) == 6 and secret.strip().replace(" ", "").isdigit()
    if row.totp_secret is not None and looks_like_a_code:
        if _spend_code(engine, name, row.totp_secret, secret, now):
            return _accept(engine, attempt, name, "totp", now)
    elif secrets.password_fits(row.password_hash, secret):
        return _accept(engine, attempt, name, "password", now)
    raise SignInRefused("the password or code does not fit")


def needs_code(engine: Engine, name: str) -> bool:
    """Whether to ask for a code. For unknown names it says no, as for those without codes."""
    row = _row(engine, name)
    return row is not None and row.totp_secret is not None


def signed_in_person(engine: Engine, proof: Proof) -> Person:
    """The person behind a proof, as the directory has it now."""
    with engine.connect() as connection:
        return read_person(connection, proof.person)


def _row(engine: Engine, name: str) -> Row[Any] | None:
    with engine.connect() as connection:
        return connection.execute(select(people).where(people.c.name == name)).one_or_none()


def _count_try(engine: Engine, name: str, origin: str, now: datetime) -> int:
    """Enters the try as a failure for now; raises `SignInRefused` where there were too many. Returns its number."""
    name, origin = name[:64], origin[:64]
    table = sign_in_attempts
    with transaction(engine) as connection:
        # On PostgreSQL two tries for one person wait for each other here.
        connection.execute(select(people.c.name).where(people.c.name == name).with_for_update())
        connection.execute(delete(table).where(table.c.attempted_at < now - _KEPT))
        recent = (table.c.succeeded.is_(False)) & (table.c.attempted_at > now - WINDOW)
        by_name, by_origin = table.c.person == name, table.c.origin == origin
        for conditions, most in (
            ((by_name, by_origin), FAILURES_OF_ONE),
            ((by_name,), FAILURES_FOR_A_NAME),
            ((by_origin,), FAILURES_OF_AN_ORIGIN),
        ):
            failed, oldest = _failures(connection, recent, *conditions)
            if failed >= most and oldest is not None:
                raise SignInRefused(f"too many tries that failed; the next one is at {oldest + WINDOW:%H:%M:%S} UTC")
        added = connection.execute(
            insert(table).values(person=name, origin=origin, succeeded=False, attempted_at=now)
        ).inserted_primary_key
        return int(added[0])  # type: ignore[index]


def _failures(connection: Connection, *conditions: ColumnElement[bool]) -> tuple[int, datetime | None]:
    table = sign_in_attempts
    found = connection.execute(select(func.count(), func.min(table.c.attempted_at)).where(*conditions)).one()
    return found[0], found[1]


def _spend_code(engine: Engine, name: str, secret: str, code: str, now: datetime) -> bool:
    """Whether the code fits and was not used before; it is used up by this."""
    step = secrets.totp_step(secret, code, now)
    if step is None:
        return False
    newer = or_(people.c.totp_last_step.is_(None), people.c.totp_last_step < step)
    with transaction(engine) as connection:
        spent = connection.execute(
            update(people).where(people.c.name == name, newer).values(totp_last_step=step)
        ).rowcount
    return spent == 1


def _accept(engine: Engine, attempt: int, name: str, method: Method, now: datetime) -> Proof:
    table = sign_in_attempts
    with transaction(engine) as connection:
        connection.execute(update(table).where(table.c.id == attempt).values(succeeded=True))
    return Proof(name, method, now)
