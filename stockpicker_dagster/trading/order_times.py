"""Until when a proposal may be decided, and its orders sent, at a real exchange: pure, from its calendar.

Every moment is an offset from that session's own open or close, so that half-days and holidays are right by themselves.
Reductions go into the opening auction where the broker can, before its cut-off; openings follow during the session.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from stockpicker_dagster.market.calendar import TradingCalendar, trading_calendar
from stockpicker_dagster.trading.brokers.capabilities import Capabilities

EXCHANGE = "XNYS"
"""The calendar of the exchanges that the brokers here trade at."""

TIME_TO_SEND = timedelta(minutes=2)
"""What lies between the last moment to decide and the auction's cut-off, beside what the orders take to be sent."""

BEFORE_CLOSE = timedelta(minutes=15)
"""The last orders of a session are sent so long before its close, and have as long to fill."""


@dataclass(frozen=True)
class OrderTimes:
    """How a proposal's reductions are sent, until when it is decided, and when its last order goes; in UTC."""

    reductions: str
    decide_by: datetime
    expires_at: datetime


def rebalance_times(able: Capabilities, session: date, orders: int, calendar: TradingCalendar) -> OrderTimes:
    """The times of a rebalance of so many orders that trades in `session`.

    It is decided before the open at the latest, because its prices are those of the session before.
    """
    expires_at = calendar.close_at(session) - BEFORE_CLOSE
    auction = ("market", "opg") in able.orders and not able.manual
    last = able.order_window("opg" if auction else "day", calendar, session)[1]
    decide_by = min(last, calendar.open_at(session)) - TIME_TO_SEND - _sending(able, orders)
    return OrderTimes("opg" if auction else "day", decide_by, expires_at)


def flatten_times(
    able: Capabilities, session: date, orders: int, auction: str, calendar: TradingCalendar
) -> OrderTimes:
    """The times of a flattening that trades in `session`: in an `auction`, `opg` or `cls`, or once it is open (`day`).

    It can be decided until its orders have to be on their way, be that in mid-session.
    """
    last = able.order_window(auction, calendar, session)[1]
    expires_at = calendar.close_at(session) - (timedelta() if auction == "cls" else timedelta(minutes=1))
    decide_by = min(last, expires_at) - _sending(able, orders) - timedelta(minutes=1)
    return OrderTimes(auction, decide_by, expires_at)


def window_of(able: Capabilities, time_in_force: str, session: date) -> tuple[datetime, datetime]:
    """From when until when the broker takes orders of this time in force for `session`."""
    return able.order_window(time_in_force, trading_calendar(EXCHANGE), session)


def sessions_to_trade(now: datetime, calendar: TradingCalendar) -> Sequence[date]:
    """The session that is under way or opens next, and the one after it."""
    today = now.date() - timedelta(days=1)
    first = calendar.next_session(today)
    while calendar.close_at(first) <= now:
        first = calendar.next_session(first)
    return first, calendar.next_session(first)


def _sending(able: Capabilities, orders: int) -> timedelta:
    """How long so many orders take at the broker's own rate, asked for twice each."""
    if able.requests_per_minute is None:
        return timedelta()
    return timedelta(minutes=2 * orders / able.requests_per_minute)
