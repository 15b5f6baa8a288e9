"""Books that differ by one share or one cent halt trading; books that agree do not."""

from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import update

from stockpicker_dagster.storage.database import transaction
from stockpicker_dagster.trading import accounts, ledger
from stockpicker_dagster.trading.reconciliation import reconcile

PRICES = {"AAA": 50.0, "BBB": 20.0}
TARGETS = {"AAA": 0.5, "BBB": -0.5}


def test_books_that_agree_halt_nothing(trading_desk: Any) -> None:
    trading_desk.rebalance(TARGETS, PRICES)
    assert reconcile(trading_desk.engine, trading_desk.broker(), trading_desk.now).agrees
    assert not accounts.is_halted(trading_desk.engine, "paper")


@pytest.mark.parametrize("book", [ledger.positions, ledger.paper_positions])
def test_one_share_of_difference_halts_and_is_named(trading_desk: Any, book: Any) -> None:
    trading_desk.rebalance(TARGETS, PRICES)
    with transaction(trading_desk.engine) as connection:
        ledger.move_positions(connection, book, "paper", [("AAA", Decimal(1))])
    found = reconcile(trading_desk.engine, trading_desk.broker(), trading_desk.now)
    assert not found.agrees
    assert all(difference.startswith("AAA is 98") for difference in found.differences)
    assert "AAA is 98" in str(accounts.halt_in_force(trading_desk.engine, "paper"))


def test_one_cent_of_difference_halts(trading_desk: Any) -> None:
    trading_desk.rebalance(TARGETS, PRICES)
    cash = trading_desk.broker().cash()
    with transaction(trading_desk.engine) as connection:
        connection.execute(update(ledger.paper_accounts).values(cash=cash + Decimal("0.01")))
    assert "cash is" in reconcile(trading_desk.engine, trading_desk.broker(), trading_desk.now).differences[0]
    assert "books differ" in trading_desk.propose({"AAA": 0.2}, PRICES).reason


def test_a_fill_that_the_ledger_missed_is_entered_and_agrees(trading_desk: Any) -> None:
    proposal = trading_desk.proposed(TARGETS, PRICES)
    trading_desk.approve(proposal)
    trading_desk.market.opened = False
    trading_desk.execute(proposal)
    opens = dict(trading_desk.market.prices)
    trading_desk.broker().fill_at_open(trading_desk.market.trade_session(trading_desk.session), opens, trading_desk.now)
    with trading_desk.engine.connect() as connection:
        assert ledger.held_quantities(connection, "paper") == {}
    assert reconcile(trading_desk.engine, trading_desk.broker(), trading_desk.now).agrees
    with trading_desk.engine.connect() as connection:
        assert ledger.held_quantities(connection, "paper") == trading_desk.broker().positions()
