"""The tables about people: roles, secrets (never in the clear), attempts to sign in, tokens and sessions.

A password is kept as an argon2 hash, the secret of a token or a session as its SHA-256. A TOTP secret has to be
readable to be checked; whoever reads the database can make codes with it, which is why the database is private.
"""

from sqlalchemy import Boolean, CheckConstraint, Column, ForeignKey, Index, Integer, MetaData, String, Table, Text

from stockpicker_dagster.storage.database import UtcTime
from stockpicker_dagster.trading import ledger

metadata = MetaData(naming_convention=ledger.metadata.naming_convention)

people = Table(
    "people",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("password_hash", Text),
    Column("totp_secret", String(64)),
    Column("totp_last_step", Integer),
    Column("created_by", String(128), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("disabled_at", UtcTime),
    CheckConstraint("role IN ('viewer', 'researcher', 'approver', 'administrator')", name="role"),
)
"""`totp_last_step` is the newest time step whose code was accepted: a code that was used cannot be used again."""

people_changes = Table(
    "people_changes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("person", ForeignKey("people.name"), nullable=False),
    Column("who", String(128), nullable=False),
    Column("what", Text, nullable=False),
    Column("changed_at", UtcTime, nullable=False),
)

sign_in_attempts = Table(
    "sign_in_attempts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("person", String(64), nullable=False),
    Column("origin", String(64), nullable=False),
    Column("succeeded", Boolean, nullable=False),
    Column("attempted_at", UtcTime, nullable=False),
    Index(None, "person", "attempted_at"),
)
"""Every secret that was tried, whoever's name was given; counted before it is looked at."""

api_tokens = Table(
    "api_tokens",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("person", ForeignKey("people.name"), nullable=False),
    Column("secret_hash", String(64), nullable=False, unique=True),
    Column("label", String(128), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Column("revoked_at", UtcTime),
    Column("used_at", UtcTime),
)

sessions = Table(
    "sessions",
    metadata,
    Column("secret_hash", String(64), primary_key=True),
    Column("person", ForeignKey("people.name"), nullable=False, index=True),
    Column("created_at", UtcTime, nullable=False),
    Column("seen_at", UtcTime, nullable=False),
    Column("fresh_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
)
"""Signed-in browsers; `fresh_at` is when a secret was last proved in it."""

APPEND_ONLY = ("people_changes",)
"""The tables whose rows the database itself refuses to change or delete."""
