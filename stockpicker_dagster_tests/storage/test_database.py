"""The database keeps what was written, exactly, once migrated, and lets one writer at a time decide."""

import stat
import threading
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.dialects import sqlite

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.storage.database import ExactDecimal, UtcTime, migrate, open_database, transaction

DIALECT = sqlite.dialect()


@given(st.decimals(allow_nan=False, allow_infinity=False, places=9, min_value=-(10**20), max_value=10**20))
@settings(max_examples=50, deadline=None)
def test_decimals_come_back_as_they_were_written(value: Decimal) -> None:
    column = ExactDecimal()
    stored = column.process_bind_param(value, DIALECT)
    assert stored is not None
    assert column.process_result_value(stored, DIALECT) == value
    assert "E" not in stored


@pytest.mark.parametrize("value", [0.1, float("nan"), Decimal("NaN"), Decimal("Infinity"), "1"])
def test_what_is_no_finite_decimal_is_refused(value: object) -> None:
    with pytest.raises(InvalidInput, match="finite decimals"):
        ExactDecimal().process_bind_param(value, DIALECT)  # type: ignore[arg-type]


def test_instants_are_stored_in_utc_and_sort_as_text() -> None:
    column = UtcTime()
    new_york = timezone(timedelta(hours=-5))
    moments = [
        datetime(2024, 3, 4, 20, 15, tzinfo=new_york),
        datetime(2024, 3, 5, 1, 15, 0, 1, tzinfo=UTC),
        datetime(2024, 3, 5, 2, tzinfo=UTC),
    ]
    stored = [column.process_bind_param(moment, DIALECT) for moment in moments]
    assert stored == sorted(str(value) for value in stored)
    assert [column.process_result_value(value, DIALECT) for value in stored] == moments
    with pytest.raises(InvalidInput, match="no zone"):
        column.process_bind_param(datetime(2024, 3, 4), DIALECT)


def test_a_sqlite_ledger_is_private_and_durable(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    migrate(engine)
    for file in tmp_path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name
    with engine.connect() as connection:
        settings_ = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "foreign_keys", "synchronous", "busy_timeout")
        }
    assert settings_ == {"journal_mode": "wal", "foreign_keys": 1, "synchronous": 2, "busy_timeout": 30_000}
    engine.dispose()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://localhost/x", "no url"])
def test_what_cannot_hold_a_ledger_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="use sqlite:///file"):
        open_database(url)


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"missing/ledger\.sqlite cannot be written"):
        open_database(f"sqlite:///{tmp_path / 'missing' / 'ledger.sqlite'}")


def test_migrating_twice_changes_nothing(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    migrate(engine)
    before = (tmp_path / "ledger.sqlite").read_bytes()
    migrate(engine)
    assert (tmp_path / "ledger.sqlite").read_bytes() == before
    engine.dispose()


def migrate_at_once(url: str, callers: int) -> list[BaseException]:
    failures: list[BaseException] = []
    barrier = threading.Barrier(callers)

    def call() -> None:
        try:
            engine = open_database(url)
            barrier.wait()
            migrate(engine)
            engine.dispose()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


def test_two_callers_may_migrate_at_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    assert migrate_at_once(url, 2) == []
    engine = open_database(url)
    assert "proposals" in inspect(engine).get_table_names()
    engine.dispose()


def test_two_callers_may_migrate_postgresql_at_once(postgres_url: str) -> None:
    engine = create_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    assert migrate_at_once(postgres_url, 2) == []
    assert "proposals" in inspect(engine).get_table_names()
    engine.dispose()


def test_a_failed_transaction_leaves_nothing(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    with transaction(engine) as connection:
        connection.execute(text("CREATE TABLE kept (x INTEGER)"))

    def fail_half_way() -> None:
        with transaction(engine) as connection:
            connection.execute(text("INSERT INTO kept VALUES (1)"))
            connection.execute(text("CREATE TABLE dropped (x INTEGER)"))
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        fail_half_way()
    assert inspect(engine).get_table_names() == ["kept"]
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM kept")).scalar_one() == 0
    engine.dispose()


def test_writers_that_read_first_do_not_lose_each_other_s_work(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    with transaction(engine) as connection:
        connection.execute(text("CREATE TABLE counter (x INTEGER)"))
        connection.execute(text("INSERT INTO counter VALUES (0)"))

    def add() -> None:
        for _ in range(10):
            with transaction(engine) as connection:
                seen = connection.execute(text("SELECT x FROM counter")).scalar_one()
                connection.execute(text("UPDATE counter SET x = :x"), {"x": seen + 1})

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with engine.connect() as connection:
        assert connection.execute(text("SELECT x FROM counter")).scalar_one() == 40
    engine.dispose()
