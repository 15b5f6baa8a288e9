"""What was committed to is found again by its number, whatever the clocks said."""

from datetime import timedelta
from typing import Any

from sqlalchemy import select

from stockpicker_dagster.trading import accounts, intents, ledger

PRICES = {"AAA": 50.0}


def test_the_newest_attempt_is_the_one_with_the_highest_number_even_after_a_clock_was_set_back(
    trading_desk: Any,
) -> None:
    trading_desk.market.opened = False
    proposal = trading_desk.proposed({"AAA": 0.5}, PRICES)
    trading_desk.approve(proposal)
    assert trading_desk.execute(proposal).status == "working"
    accounts.halt(trading_desk.engine, "paper", "os:risk", "a look", trading_desk.now)
    assert trading_desk.execute(proposal).status == "halted"
    accounts.resume(trading_desk.engine, "paper", "os:risk", trading_desk.now)
    trading_desk.now -= timedelta(minutes=10)
    report = trading_desk.execute(proposal)
    assert [order.status for order in report.orders] == ["working"]
    with trading_desk.engine.connect() as connection:
        assert [attempt.attempt for attempt in intents.attempts(connection, proposal)] == [1, 2]
        first, second = connection.execute(
            select(ledger.order_intents.c.created_at).order_by(ledger.order_intents.c.attempt)
        ).scalars()
    assert second < first
    trading_desk.market.opened = True
    report = trading_desk.execute(proposal)
    assert (report.status, report.orders[0].filled) == ("finished", report.orders[0].quantity)
    assert trading_desk.broker().positions() == {"AAA": report.orders[0].quantity}
