"""The directory of people: who there is, what each may do, and every change of it with who made it.

Roles include those before them: viewer, researcher, approver, administrator. The first person is an administrator,
added by whoever owns the state folder; from then on only administrators change people, and each changes the own
password. While the directory is empty, there are paper accounts only.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from sqlalchemy import Connection, Engine, func, insert, select, update

from stockpicker_dagster.errors import InvalidInput, StockPickerError
from stockpicker_dagster.storage.database import transaction
from stockpicker_dagster.trading import ledger
from stockpicker_dagster.trading.people import secrets
from stockpicker_dagster.trading.people.tables import api_tokens, people, people_changes, sessions

Role = Literal["viewer", "researcher", "approver", "administrator"]
ROLES: tuple[Role, ...] = get_args(Role)
"""Each may do what those before it may."""

_NAME = re.compile(r"[a-z][a-z0-9._-]{0,40}")


class UnknownPerson(InvalidInput):
    """Nobody has this name."""


class NotAllowed(StockPickerError):
    """The person's role does not allow it, or the person is disabled."""


@dataclass(frozen=True)
class Person:
    """One person; `disabled_at` is None while the person may sign in."""

    name: str
    role: Role
    has_password: bool
    has_totp: bool
    created_at: datetime
    disabled_at: datetime | None

    def may(self, role: Role) -> bool:
        """Whether the person is enabled and has `role`, or one that includes it."""
        return self.disabled_at is None and ROLES.index(self.role) >= ROLES.index(role)


def people_exist(connection: Connection) -> bool:
    """Whether anybody has been added: from then on decisions need a login."""
    return bool(connection.execute(select(func.count()).select_from(people)).scalar_one())


def read_person(connection: Connection, name: str) -> Person:
    """The person of this name; raises `UnknownPerson`."""
    row = connection.execute(select(people).where(people.c.name == name)).one_or_none()
    if row is None:
        raise UnknownPerson(f"there is nobody called {name!r}; `stockpicker user list` shows who there is")
    return person_of(row)


def everybody(engine: Engine) -> list[Person]:
    """All people, by name, disabled ones too."""
    with engine.connect() as connection:
        return [person_of(row) for row in connection.execute(select(people).order_by(people.c.name))]


def require(connection: Connection, name: str, role: Role) -> Person:
    """The person, who must have at least `role` now; raises `UnknownPerson` or `NotAllowed`."""
    person = read_person(connection, name)
    if person.disabled_at is not None:
        raise NotAllowed(f"{name} is disabled since {person.disabled_at:%Y-%m-%d}; an administrator can enable again")
    if not person.may(role):
        raise NotAllowed(f"{name} is {person.role}; this needs the role {role}, which an administrator can give")
    return person


def add_person(engine: Engine, name: str, role: Role, password: str, who: str, now: datetime) -> Person:
    """Adds somebody. The first must be an administrator; after that `who` must be one.

    Raises `InvalidInput` for a name, role or password that cannot be, `NotAllowed` otherwise.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"{name!r} is no name; allowed: a lower-case letter, then up to 40 of a-z 0-9 . _ -")
    _check_role(role)
    secrets.check_password_rules(name, password)
    hashed = secrets.hash_password(password)
    with transaction(engine) as connection:
        _lock(connection)
        if people_exist(connection):
            require(connection, who, "administrator")
        elif role != "administrator":
            raise NotAllowed(f"the first person is an administrator, not {role}; add `--role administrator` first")
        if connection.execute(select(people.c.name).where(people.c.name == name)).one_or_none():
            raise InvalidInput(f"there is somebody called {name!r} already; names are never used twice")
        connection.execute(
            insert(people).values(name=name, role=role, password_hash=hashed, created_by=who, created_at=now)
        )
        _note(connection, name, who, f"added as {role}", now)
        return read_person(connection, name)


def set_role(engine: Engine, name: str, role: Role, who: str, now: datetime) -> None:
    """Gives somebody another role; the last administrator stays one."""
    _check_role(role)
    with transaction(engine) as connection:
        _lock(connection)
        require(connection, who, "administrator")
        before = read_person(connection, name)
        if before.may("administrator") and role != "administrator":
            _refuse_last_administrator(connection, name)
        connection.execute(update(people).where(people.c.name == name).values(role=role))
        _note(connection, name, who, f"role {before.role} became {role}", now)


def set_password(engine: Engine, name: str, password: str, who: str, now: datetime) -> None:
    """Sets a password, one's own or, as an administrator, somebody's; the person's sessions and tokens end."""
    secrets.check_password_rules(name, password)
    hashed = secrets.hash_password(password)
    with transaction(engine) as connection:
        _lock(connection)
        _require_self_or_administrator(connection, name, who)
        connection.execute(update(people).where(people.c.name == name).values(password_hash=hashed))
        _end_access(connection, name, now)
        _note(connection, name, who, "password set", now)


def set_totp(engine: Engine, name: str, secret: str, code: str, who: str, now: datetime) -> None:
    """Turns codes on for a person, who shows with a first one that the app has the secret."""
    step = secrets.totp_step(secret, code, now)
    if step is None:
        raise InvalidInput("the code does not fit; check the clock of the phone and try again, nothing was changed")
    with transaction(engine) as connection:
        _lock(connection)
        _require_self_or_administrator(connection, name, who)
        connection.execute(update(people).where(people.c.name == name).values(totp_secret=secret, totp_last_step=step))
        _note(connection, name, who, "codes turned on", now)


def remove_totp(engine: Engine, name: str, who: str, now: datetime) -> None:
    """Turns codes off, for a phone that is lost; only an administrator may."""
    with transaction(engine) as connection:
        _lock(connection)
        require(connection, who, "administrator")
        read_person(connection, name)
        connection.execute(update(people).where(people.c.name == name).values(totp_secret=None, totp_last_step=None))
        _note(connection, name, who, "codes turned off", now)


def disable(engine: Engine, name: str, who: str, now: datetime) -> None:
    """Ends a person's access at once; what the person did stays recorded. The last administrator stays."""
    with transaction(engine) as connection:
        _lock(connection)
        require(connection, who, "administrator")
        if read_person(connection, name).may("administrator"):
            _refuse_last_administrator(connection, name)
        connection.execute(update(people).where(people.c.name == name).values(disabled_at=now))
        _end_access(connection, name, now)
        _note(connection, name, who, "disabled", now)


def enable(engine: Engine, name: str, who: str, now: datetime) -> None:
    """Lets a disabled person in again."""
    with transaction(engine) as connection:
        _lock(connection)
        require(connection, who, "administrator")
        read_person(connection, name)
        connection.execute(update(people).where(people.c.name == name).values(disabled_at=None))
        _note(connection, name, who, "enabled", now)


def changes(engine: Engine, name: str) -> list[tuple[datetime, str, str]]:
    """What was changed about a person: when, by whom, what; oldest first."""
    wanted = select(people_changes.c.changed_at, people_changes.c.who, people_changes.c.what)
    with engine.connect() as connection:
        rows = connection.execute(wanted.where(people_changes.c.person == name).order_by(people_changes.c.id))
        return [(row.changed_at, row.who, row.what) for row in rows]


def person_of(row: object) -> Person:
    """The person that a row of the table says."""
    return Person(
        name=row.name,  # type: ignore[attr-defined]
        role=row.role,  # type: ignore[attr-defined]
        has_password=row.password_hash is not None,  # type: ignore[attr-defined]
        has_totp=row.totp_secret is not None,  # type: ignore[attr-defined]
        created_at=row.created_at,  # type: ignore[attr-defined]
        disabled_at=row.disabled_at,  # type: ignore[attr-defined]
    )


def _check_role(role: str) -> None:
    if role not in ROLES:
        raise InvalidInput(f"{role!r} is no role; allowed: {', '.join(ROLES)}")


def _lock(connection: Connection) -> None:
    """One change of people at a time: what it rests on (who is an administrator) must not change beside it."""
    connection.execute(select(ledger.counters.c.value).where(ledger.counters.c.name == "outcomes").with_for_update())


def _require_self_or_administrator(connection: Connection, name: str, who: str) -> None:
    read_person(connection, name)
    require(connection, who, "viewer" if who == name else "administrator")


def _refuse_last_administrator(connection: Connection, name: str) -> None:
    others = connection.execute(
        select(func.count())
        .select_from(people)
        .where(people.c.role == "administrator", people.c.disabled_at.is_(None), people.c.name != name)
    ).scalar_one()
    if not others:
        raise NotAllowed(f"{name} is the only administrator left; make another one first")


def _end_access(connection: Connection, name: str, now: datetime) -> None:
    connection.execute(
        update(sessions).where(sessions.c.person == name, sessions.c.ended_at.is_(None)).values(ended_at=now)
    )
    connection.execute(
        update(api_tokens).where(api_tokens.c.person == name, api_tokens.c.revoked_at.is_(None)).values(revoked_at=now)
    )


def _note(connection: Connection, name: str, who: str, what: str, now: datetime) -> None:
    connection.execute(insert(people_changes).values(person=name, who=who, what=what, changed_at=now))
