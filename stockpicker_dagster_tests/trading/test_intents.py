"""What was committed to is found again by its number, whatever the clocks said."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from stockpicker_dagster.trading import accounts, intents, ledger

PRICES = {"AAA": 50.0}


def test_an_order_that_is_sent_again_has_its_time_from_then(trading_desk: Any) -> None:
    """Whatever the broker says of it later: patience with a limit order begins when it is really handed over."""
    proposal = trading_desk.proposed({"AAA": 0.5}, PRICES)
    trading_desk.approve(proposal)
    with pytest.raises(RuntimeError):
        trading_desk.execute(proposal, checkpoint=dies_at("after_intent"))

    def sent_at() -> datetime:
        with trading_desk.engine.connect() as connection:
            [attempt] = intents.attempts(connection, proposal)
        return attempt.sent_at

    assert sent_at() == trading_desk.now
    later, trading_desk.market.opened = trading_desk.now + timedelta(hours=3), False
    assert trading_desk.execute(proposal, now=later).orders[0].status == "working"
    assert sent_at() == later
    trading_desk.market.opened = True
    assert trading_desk.execute(proposal, now=later + timedelta(hours=1)).orders[0].status == "filled"
    assert sent_at() == later


def dies_at(step: str) -> Callable[[str], None]:
    def die(reached: str) -> None:
        if reached == step:
            raise RuntimeError(step)

    return die


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
