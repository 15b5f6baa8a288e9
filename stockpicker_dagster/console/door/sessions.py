"""Signed-in browsers: a session is a secret in a cookie, of which the database keeps the SHA-256.

A session ends twelve hours after it began, after two hours without a request, when the person signs out, and with the
person's access. Every sign-in makes a new one, so that nobody can be given a session that somebody else knows.
"""

import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, bindparam, insert, select, update

from stockpicker_dagster.storage.database import transaction
from stockpicker_dagster.trading.people import secrets
from stockpicker_dagster.trading.people.directory import Person, person_of
from stockpicker_dagster.trading.people.sign_in import Proof
from stockpicker_dagster.trading.people.tables import people, sessions

LONGEST = timedelta(hours=12)
LONGEST_IDLE = timedelta(hours=2)
NEVER = datetime(1970, 1, 1, tzinfo=UTC)
# Writing at every request would make readers wait for one another on SQLite.
_SEEN_EVERY = timedelta(minutes=5)
# Put together once, because every request asks it, and before anything else is done.
_FIND = (
    select(people, sessions.c.seen_at, sessions.c.fresh_at)
    .join(sessions, sessions.c.person == people.c.name)
    .where(
        sessions.c.secret_hash == bindparam("hashed"),
        sessions.c.ended_at.is_(None),
        sessions.c.expires_at > bindparam("now"),
    )
)


@dataclass(frozen=True)
class Session:
    """Who is signed in, and since when a secret was last proved; `secret` is what the cookie holds."""

    person: Person
    secret: str
    fresh_at: datetime


def begin(engine: Engine, proof: Proof, now: datetime) -> str:
    """A new session of the person who gave `proof`; returns its secret, which is in the cookie only."""
    return _store(engine, proof.person, proof.proved_at, now)


def begin_vouched(engine: Engine, person: str, now: datetime) -> str:
    """A new session of somebody whom a provider vouches for; no secret was proved here."""
    return _store(engine, person, NEVER, now)


def _store(engine: Engine, person: str, proved_at: datetime, now: datetime) -> str:
    secret = secrets.new_token()
    with transaction(engine) as connection:
        connection.execute(
            insert(sessions).values(
                secret_hash=secrets.token_hash(secret),
                person=person,
                created_at=now,
                seen_at=now,
                fresh_at=proved_at,
                expires_at=now + LONGEST,
            )
        )
    return secret


def find(engine: Engine, secret: str, now: datetime) -> Session | None:
    """The session of this secret; None if it is unknown, over, idle for too long, or of a disabled person."""
    table, hashed = sessions, secrets.token_hash(secret)
    with engine.connect() as connection:
        row = connection.execute(_FIND, {"hashed": hashed, "now": now}).one_or_none()
    if row is None or now - row.seen_at > LONGEST_IDLE:
        return None
    person = person_of(row)
    if person.disabled_at is not None:
        return None
    if now - row.seen_at > _SEEN_EVERY:
        with transaction(engine) as connection:
            connection.execute(update(table).where(table.c.secret_hash == hashed).values(seen_at=now))
    return Session(person, secret, row.fresh_at)


def end(engine: Engine, secret: str, now: datetime) -> None:
    """Signs out: whoever has a copy of the cookie is signed out too."""
    table = sessions
    with transaction(engine) as connection:
        connection.execute(
            update(table)
            .where(table.c.secret_hash == secrets.token_hash(secret), table.c.ended_at.is_(None))
            .values(ended_at=now)
        )


def csrf_token(secret: str) -> str:
    """What every form of a session carries: another site cannot know it, and it tells nothing about the secret."""
    return hmac.new(secret.encode(), b"stockpicker form", hashlib.sha256).hexdigest()
