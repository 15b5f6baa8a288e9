"""Personal API tokens: for scripts that read, or that start work. A token never decides in live mode.

A token is shown once, when it is made; what is stored is its SHA-256. It ends by itself, when it is revoked, and with
the person's access.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Engine, insert, select, update

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.storage.database import transaction
from stockpicker_dagster.trading.people import secrets
from stockpicker_dagster.trading.people.directory import Person, read_person, require
from stockpicker_dagster.trading.people.sign_in import SignInRefused
from stockpicker_dagster.trading.people.tables import api_tokens

LONGEST = timedelta(days=365)
PREFIX = "sp_"


@dataclass(frozen=True)
class Token:
    """What is known of a token; its secret is not."""

    id: str
    person: str
    label: str
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    used_at: datetime | None


def create_token(engine: Engine, person: str, label: str, lasts: timedelta, now: datetime) -> tuple[Token, str]:
    """A new token and its secret, which nobody can look up later; raises `InvalidInput` for more than a year."""
    if not timedelta() < lasts <= LONGEST:
        raise InvalidInput(f"a token lasts up to {LONGEST.days} days, not {lasts.days}")
    if not label.strip():
        raise InvalidInput("a token needs a label that says what it is for")
    secret = PREFIX + secrets.new_token()
    hashed = secrets.token_hash(secret)
    with transaction(engine) as connection:
        require(connection, person, "viewer")
        connection.execute(
            insert(api_tokens).values(
                id=hashed[:12],
                person=person,
                secret_hash=hashed,
                label=label.strip(),
                created_at=now,
                expires_at=now + lasts,
            )
        )
    return Token(hashed[:12], person, label.strip(), now, now + lasts, None, None), secret


def person_of_token(engine: Engine, secret: str, now: datetime) -> Person:
    """Whose token this is; raises `SignInRefused` for one that is unknown, revoked, over, or of a disabled person."""
    table = api_tokens
    with transaction(engine) as connection:
        found = connection.execute(
            select(table.c.id, table.c.person).where(
                table.c.secret_hash == secrets.token_hash(secret),
                table.c.revoked_at.is_(None),
                table.c.expires_at > now,
            )
        ).one_or_none()
        person = None if found is None else read_person(connection, found.person)
        if found is None or person is None or person.disabled_at is not None:
            raise SignInRefused("the token is not known, or not valid any more; make a new one")
        connection.execute(update(table).where(table.c.id == found.id).values(used_at=now))
    return person


def tokens_of(engine: Engine, person: str) -> list[Token]:
    """A person's tokens, newest first."""
    table = api_tokens
    wanted = select(
        table.c.id,
        table.c.person,
        table.c.label,
        table.c.created_at,
        table.c.expires_at,
        table.c.revoked_at,
        table.c.used_at,
    )
    with engine.connect() as connection:
        rows = connection.execute(wanted.where(table.c.person == person).order_by(table.c.created_at.desc()))
        return [Token(*row) for row in rows]


def revoke_token(engine: Engine, token: str, who: str, now: datetime) -> None:
    """Ends a token at once: one's own, or anybody's as an administrator."""
    table = api_tokens
    with transaction(engine) as connection:
        owner = connection.execute(select(table.c.person).where(table.c.id == token)).scalar_one_or_none()
        if owner is None:
            raise InvalidInput(f"there is no token {token!r}; `stockpicker user tokens` lists them")
        require(connection, who, "viewer" if owner == who else "administrator")
        connection.execute(
            update(table).where(table.c.id == token, table.c.revoked_at.is_(None)).values(revoked_at=now)
        )
