"""The contract that a user tries on a paper account: adapters here keep it, and where it breaks, that is seen."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.trading.brokers import Absent, BrokerOrder, Rejected
from stockpicker_dagster.trading.brokers.contract import Check, look, verify
from stockpicker_dagster_tests.trading.brokers.exchange import EVENING
from stockpicker_dagster_tests.trading.brokers.venues import VENUES


def tried(venue: Any, broker: Any = None) -> dict[str, Check]:
    now = lambda: venue.exchange.now if hasattr(venue, "exchange") else EVENING  # noqa: E731
    found = verify(broker or venue.broker(), "paper", "AAA", now, wait=lambda seconds: None)
    return {check.promise: check for check in found}


@pytest.mark.parametrize("name", ["alpaca", "interactive_brokers"])
def test_adapters_keep_every_promise_and_leave_nothing_behind(name: str, new_ledger: Callable[[], Engine]) -> None:
    with VENUES[name](new_ledger) as venue:
        checks = tried(venue)
        assert [check for check in checks.values() if not check.kept] == []
        assert len(checks) == 15
        [order] = venue.exchange.orders
        assert (order.status, order.limit, order.quantity) == ("canceled", Decimal(45), 1)
        assert venue.broker().open_orders() == []


def test_by_hand_only_what_can_be_asked_is_tried(new_ledger: Callable[[], Engine]) -> None:
    with VENUES["ticket"](new_ledger) as venue:
        checks = tried(venue)
        assert all(check.kept for check in checks.values())
        assert venue.broker().open_orders() == []


def test_a_live_account_is_never_tried(new_ledger: Callable[[], Engine]) -> None:
    with VENUES["alpaca"](new_ledger) as venue:
        with pytest.raises(InvalidInput, match="on a paper account only"):
            verify(venue.broker(), "live", "AAA", lambda: EVENING)
        assert venue.server.received == []


@pytest.mark.parametrize("name", ["alpaca", "interactive_brokers"])
def test_a_look_sends_no_order(name: str, new_ledger: Callable[[], Engine]) -> None:
    with VENUES[name](new_ledger) as venue:
        checks = list(look(venue.broker(), lambda: venue.exchange.now))
        assert [check.kept for check in checks] == [True] * 3
        assert venue.exchange.orders == []


@pytest.mark.parametrize(
    ("promise", "broken"),
    [
        ("it finds the order by its client id", {"find": lambda name: Absent()}),
        (
            "an id that was never used is absent",
            {"find": lambda name: BrokerOrder(name, "1", "working", Decimal(0), "")},
        ),
        ("it takes an order", {"submit": lambda request: Rejected("no")}),
        ("nothing was bought", {"positions": iter([{}, {}, {"AAA": Decimal(1)}]).__next__}),
        ("it cancels the order, and says so when it is done", {"cancel": lambda name, reason: Absent()}),
    ],
)
def test_a_broken_promise_is_seen(promise: str, broken: dict[str, Any], new_ledger: Callable[[], Engine]) -> None:
    with VENUES["alpaca"](new_ledger) as venue:
        broker = venue.broker()
        for name, behaviour in broken.items():
            setattr(broker, name, behaviour)
        assert not tried(venue, broker)[promise].kept


@pytest.mark.parametrize("fault", ["504_after", "drop_after"])
def test_the_test_order_is_cancelled_whatever_goes_wrong(fault: str, new_ledger: Callable[[], Engine]) -> None:
    with VENUES["alpaca"](new_ledger) as venue:
        venue.server.play(fault, venue.orders_path)
        checks = tried(venue)
        assert not checks["it takes an order"].kept
        [order] = venue.exchange.orders
        assert order.status == "canceled"


def test_a_clock_that_is_off_is_said(new_ledger: Callable[[], Engine]) -> None:
    from datetime import timedelta

    with VENUES["alpaca"](new_ledger) as venue:
        late = lambda: venue.exchange.now - timedelta(seconds=5)  # noqa: E731
        first = next(verify(venue.broker(), "paper", "AAA", late))
        assert not first.kept
        assert "set this machine's clock" in first.detail
