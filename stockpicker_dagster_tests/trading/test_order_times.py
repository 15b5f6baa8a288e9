"""Deadlines are offsets from a session's own hours, so that half-days, holidays and clock changes are right."""

from datetime import UTC, date, datetime, timedelta

import pytest

from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.trading.brokers.connections import capabilities_of
from stockpicker_dagster.trading.order_times import flatten_times, rebalance_times, sessions_to_trade

CALENDAR = trading_calendar("XNYS")
SUMMER, WINTER, HALF = date(2024, 7, 2), date(2024, 1, 3), date(2024, 7, 3)


@pytest.mark.parametrize("broker", ["alpaca", "interactive_brokers", "ticket"])
@pytest.mark.parametrize(
    ("session", "opens", "closes"),
    [(SUMMER, "13:30", "20:00"), (WINTER, "14:30", "21:00"), (HALF, "13:30", "17:00")],
)
def test_a_rebalance_is_decided_before_the_open_and_sent_before_the_close(
    broker: str, session: date, opens: str, closes: str
) -> None:
    times = rebalance_times(capabilities_of(broker), session, 20, CALENDAR)
    opened = datetime.fromisoformat(f"{session} {opens}").replace(tzinfo=UTC)
    closed = datetime.fromisoformat(f"{session} {closes}").replace(tzinfo=UTC)
    assert opened - timedelta(minutes=6) < times.decide_by < opened
    if times.reductions == "opg":
        # Alpaca and Interactive Brokers take auction orders until two minutes before the open.
        assert times.decide_by <= opened - timedelta(minutes=4)
    assert times.expires_at == closed - timedelta(minutes=15)


def test_more_orders_have_to_be_decided_earlier_where_the_broker_is_slow() -> None:
    few, many = (rebalance_times(capabilities_of("alpaca"), SUMMER, orders, CALENDAR) for orders in (2, 402))
    assert few.decide_by - many.decide_by == timedelta(minutes=4)


def test_orders_for_the_closing_auction_go_before_its_cut_off_on_half_days_too() -> None:
    able = capabilities_of("alpaca")
    for session, closes in ((SUMMER, (20, 0)), (HALF, (17, 0))):
        times = flatten_times(able, session, 2, "cls", CALENDAR)
        closed = datetime(session.year, session.month, session.day, *closes, tzinfo=UTC)
        assert closed - timedelta(minutes=12) < times.decide_by < closed - timedelta(minutes=10)
        assert times.expires_at == closed


@pytest.mark.parametrize(
    ("moment", "sessions"),
    [
        ("2024-07-03 13:00", (date(2024, 7, 3), date(2024, 7, 5))),  # Thursday is a holiday
        ("2024-07-03 17:00", (date(2024, 7, 5), date(2024, 7, 8))),  # closed early
        ("2024-07-06 12:00", (date(2024, 7, 8), date(2024, 7, 9))),  # a Saturday
        ("2024-07-08 00:30", (date(2024, 7, 8), date(2024, 7, 9))),  # Sunday evening in New York
    ],
)
def test_the_session_to_trade_in_is_the_one_under_way_or_next(moment: str, sessions: tuple[date, date]) -> None:
    assert sessions_to_trade(datetime.fromisoformat(moment).replace(tzinfo=UTC), CALENDAR) == sessions
