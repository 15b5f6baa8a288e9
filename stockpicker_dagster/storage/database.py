"""The database of the ledger: opening it, its write transactions, its migrations and its exact column types.

SQLite in WAL mode by default, PostgreSQL where a URL says so. What the tables mean is the business of the room that
owns them (`trading.ledger`); prices and features are in the lake, never here.
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Dialect, Engine, String, TypeDecorator, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import ConnectionPoolEntry

from stockpicker_dagster.errors import InvalidInput

if TYPE_CHECKING:
    from alembic.config import Config

BUSY_TIMEOUT_S = 30
"""How long a writer waits for another before SQLite answers "database is locked"."""

_WRITE = "stockpicker_write"
_MIGRATION_LOCK = 5_170_002
"""The key of PostgreSQL's advisory lock under which one caller at a time migrates."""


class ExactDecimal(TypeDecorator[Decimal]):
    """Money and share counts, stored as plain decimal text, so that what is read is what was written.

    Floats are refused: they would bring their binary rounding into the books. None is NULL.
    """

    impl = String(64)
    cache_ok = True

    def process_bind_param(self, value: Decimal | int | None, dialect: Dialect) -> str | None:
        if value is None:
            return None
        if not isinstance(value, Decimal | int) or not Decimal(value).is_finite():
            raise InvalidInput(f"the database keeps finite decimals, not {value!r}; convert it to Decimal first")
        return format(Decimal(value), "f")

    def process_result_value(self, value: str | None, dialect: Dialect) -> Decimal | None:
        return None if value is None else Decimal(value)


class UtcTime(TypeDecorator[datetime]):
    """An instant, stored as ISO text in UTC with microseconds, which sorts as text in the order of time.

    A time without a zone is refused. None is NULL.
    """

    impl = String(32)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise InvalidInput(f"the time {value} has no zone; give it one, such as datetime.now(UTC)")
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def process_result_value(self, value: str | None, dialect: Dialect) -> datetime | None:
        return None if value is None else datetime.fromisoformat(value)


def open_database(url: str) -> Engine:
    """The engine for `url`: `sqlite:///file` or `postgresql://...`; a SQLite file is created with mode 0600.

    Raises `InvalidInput` for another kind of database, for SQLite without a file (the ledger must outlive the process)
    and for a file that cannot be written.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise InvalidInput(
            f"{url!r} is not a database URL; use sqlite:///file or postgresql://user@host/name"
        ) from error
    kind = parsed.get_backend_name()
    if kind == "sqlite":
        return _open_sqlite(parsed)
    if kind in ("postgresql", "postgres"):
        return create_engine(parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True)
    raise InvalidInput(
        f"the database kind {kind!r} is not supported; use sqlite:///file or postgresql://user@host/name"
    )


def database_exists(url: str) -> bool:
    """Whether there is such a database; nothing is created."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return bool(parsed.database) and Path(str(parsed.database)).is_file()
    with _maintenance(url) as connection:
        found = connection.execute(text("SELECT 1 FROM pg_database WHERE datname = :name"), {"name": parsed.database})
        return found.first() is not None


def create_database(url: str) -> None:
    """Creates an empty database on a PostgreSQL server, or the file of SQLite."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        open_database(url).dispose()
        return
    with _maintenance(url) as connection:
        name = connection.dialect.identifier_preparer.quote(str(parsed.database))
        connection.execute(text(f"CREATE DATABASE {name}"))


@contextmanager
def _maintenance(url: str) -> Iterator[Connection]:
    """A connection to the server's own database, where databases are created outside of transactions."""
    engine = create_engine(
        make_url(url).set(drivername="postgresql+psycopg", database="postgres"), isolation_level="AUTOCOMMIT"
    )
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """One write transaction: committed at the end of the block, rolled back if it raises.

    On SQLite it takes the write lock at once (`BEGIN IMMEDIATE`), so that what it reads cannot be overtaken by another
    writer. On PostgreSQL callers lock the rows that their decision rests on.
    """
    with engine.connect().execution_options(**{_WRITE: True}) as connection, connection.begin():
        yield connection


def migrate(engine: Engine) -> None:
    """Brings the schema to the newest revision; does nothing, and locks nothing, where it is there already.

    Concurrent callers queue: the first migrates in one transaction, the others then find nothing to do.
    """
    from alembic import command

    if is_migrated(engine):
        return
    config = _alembic_config()
    with transaction(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def is_migrated(engine: Engine) -> bool:
    """Whether the schema is the newest one."""
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    newest = set(ScriptDirectory.from_config(_alembic_config()).get_heads())
    with engine.connect() as connection:
        return set(MigrationContext.configure(connection).get_current_heads()) == newest


def _alembic_config() -> "Config":
    from alembic.config import Config

    config = Config()
    # ConfigParser reads a lone % as the start of an interpolation.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    return config


def _open_sqlite(url: URL) -> Engine:
    if not url.database or url.database == ":memory:":
        raise InvalidInput("the ledger cannot live in memory, it must outlive the process; use sqlite:///file")
    path = Path(url.database)
    try:
        # Created here and not by SQLite, so that no moment exists in which others may read it; the -wal and -shm files
        # inherit this mode.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        path.chmod(0o600)
    except OSError as error:
        raise InvalidInput(f"the database file {path} cannot be written ({error.strerror})") from error
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S})
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
    # Python's own transaction control would begin late and commit before some statements; we send BEGIN ourselves.
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")
    _switch_to_wal(connection)
    connection.execute("PRAGMA synchronous = FULL")


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Turns the WAL on; while another connection is doing the same, SQLite answers "locked" without waiting."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _begin_sqlite(connection: Connection) -> None:
    immediate = connection.get_execution_options().get(_WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
