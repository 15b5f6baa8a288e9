"""The ledger's schema is what its revisions make of it, and its history cannot be changed."""

from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Date, Engine, Integer, Table, text
from sqlalchemy.exc import DatabaseError, IntegrityError

from stockpicker_dagster.evaluation import trials
from stockpicker_dagster.storage.database import ExactDecimal, UtcTime, transaction
from stockpicker_dagster.trading import ledger
from stockpicker_dagster.trading.accounts import ensure_paper_account
from stockpicker_dagster.trading.ledger import Fill, UnknownAccount
from stockpicker_dagster.trading.people import tables as people
from stockpicker_dagster_tests.trading.conftest import TradingDesk

PRICES = {"AAA": 50.0, "BBB": 20.0}


def test_the_revisions_make_the_tables_that_the_code_declares(any_engine: Engine) -> None:
    with any_engine.connect() as connection:
        declared: Any = [ledger.metadata, trials.metadata, people.metadata]
        assert compare_metadata(MigrationContext.configure(connection), declared) == []


@pytest.mark.parametrize("table", ledger.APPEND_ONLY)
@pytest.mark.parametrize("statement", ["UPDATE {} SET account = account", "DELETE FROM {}"])
def test_history_cannot_be_changed(trading_desk: Any, table: str, statement: str) -> None:
    trading_desk.rebalance({"AAA": 0.5, "BBB": -0.5}, PRICES)
    if "account" not in ledger.metadata.tables[table].c:
        statement = statement.replace("account", "proposal")
    with trading_desk.engine.connect() as connection:
        count = connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()
    if count == 0:
        _insert_row(trading_desk, ledger.metadata.tables[table])
        count = 1
    assert count > 0
    with pytest.raises(DatabaseError, match="append-only"), transaction(trading_desk.engine) as connection:
        connection.execute(text(statement.format(table)))


def test_history_cannot_be_changed_on_postgresql(any_engine: Engine, trading_desk: Any) -> None:
    ensure_paper_account(any_engine, "paper", trading_desk.now)
    for statement in ("UPDATE cash_movements SET amount = '0'", "DELETE FROM cash_movements"):
        with pytest.raises(DatabaseError, match="append-only"), transaction(any_engine) as connection:
            connection.execute(text(statement))


def _insert_row(trading_desk: Any, table: Table) -> None:
    """Any row at all, so that there is one to protect."""
    needed = [ledger.ticket_orders, table] if table is ledger.ticket_fills else [table]
    with transaction(trading_desk.engine) as connection:
        for each in needed:
            connection.execute(each.insert().values(_invented(each, trading_desk.now)))


def _invented(table: Table, now: datetime) -> dict[str, object]:
    by_type = {Date: date(2024, 3, 4), Integer: 1, ExactDecimal: Decimal(0), UtcTime: now}
    return {
        column.name: "paper" if column.name == "account" else by_type.get(type(column.type), "x")
        for column in table.columns
    }


def test_one_account_holds_one_open_proposal(trading_desk: Any) -> None:
    proposal = trading_desk.proposed({"AAA": 0.5, "BBB": -0.5}, PRICES)
    second = ledger.open_proposals.insert().values(account="paper", proposal=proposal)
    with pytest.raises(IntegrityError), transaction(trading_desk.engine) as connection:
        connection.execute(second)


def test_the_database_itself_takes_nothing_twice(any_engine: Engine) -> None:
    """Whatever a process believes: one decision a person, one outcome, one claim, one intent an attempt, one fill."""
    TradingDesk(any_engine).rebalance({"AAA": 0.5, "BBB": -0.5}, PRICES)
    again: list[tuple[Table, dict[str, object]]] = [
        (ledger.decisions, {"decision": "deny"}),
        (ledger.outcomes, {"sequence": 99, "outcome": "denied"}),
        (ledger.executions, {"status": "claimed"}),
        (ledger.order_intents, {"id": "another"}),
        (ledger.fills, {"sequence": 99}),
        (ledger.cash_movements, {}),
    ]
    for table, other in again:
        with any_engine.connect() as connection:
            row = dict(connection.execute(table.select().limit(1)).one()._mapping)
        with pytest.raises(IntegrityError), transaction(any_engine) as connection:
            connection.execute(table.insert().values({**row, **other}))


def test_a_fill_that_is_delivered_twice_is_entered_once(trading_desk: Any) -> None:
    report = trading_desk.rebalance({"AAA": 0.5, "BBB": -0.5}, PRICES)
    delivered = trading_desk.broker().fills_since(None)
    assert len(delivered) == len(report.orders) == 2
    with transaction(trading_desk.engine) as connection:
        before = ledger.held_quantities(connection, "paper")
        assert ledger.record_fills(connection, "paper", delivered, trading_desk.now) == 0
        assert ledger.held_quantities(connection, "paper") == before


def test_the_cash_of_a_fill_is_what_was_paid_less_commission(trading_desk: Any) -> None:
    fill = Fill("1", "x", "AAA", Decimal(-10), Decimal("2.5"), Decimal("0.1"), date(2024, 3, 4), trading_desk.now)
    assert fill.cash == Decimal("24.9")


def test_an_unknown_account_is_answered_with_the_known_ones(trading_desk: Any) -> None:
    with (
        transaction(trading_desk.engine) as connection,
        pytest.raises(UnknownAccount, match="'margin'; known accounts: paper"),
    ):
        ledger.lock_account(connection, "margin")
