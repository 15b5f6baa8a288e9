"""The venue of real prices: when a proposal may be decided, and the opening prices that fill it."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.sources import Venue
from stockpicker_dagster.market.sources.exchange import AUCTION_CUT_OFF, ExchangeVenue
from stockpicker_dagster.market.sources.files import FilesSource
from stockpicker_dagster_tests.market.sources.test_chained import rows

NYSE = trading_calendar("XNYS")
FRIDAY, MONDAY = date(2023, 3, 10), date(2023, 3, 13)
SATURDAY_NOON = datetime(2023, 3, 11, 12, tzinfo=UTC)


@pytest.fixture
def venue(tmp_path: Path) -> ExchangeVenue:
    days = NYSE.sessions(date(2023, 3, 1), FRIDAY)
    pl.concat([rows("AAA", days, 50.123456), rows("BBB", days[:-1])]).write_parquet(tmp_path / "prices.parquet")
    return ExchangeVenue(NYSE, FilesSource("mine", tmp_path / "prices.parquet", "as_traded", days[0]))


def test_a_plan_may_be_decided_from_the_close_to_shortly_before_the_next_open(venue: ExchangeVenue) -> None:
    typed: Venue = venue
    window = typed.window(FRIDAY, FRIDAY, SATURDAY_NOON)
    assert window is not None
    assert window.opens == NYSE.close_at(FRIDAY)
    assert window.closes == NYSE.open_at(MONDAY) - AUCTION_CUT_OFF
    assert venue.window(FRIDAY, FRIDAY, window.closes - timedelta(seconds=1)) == window
    assert venue.window(FRIDAY, FRIDAY, window.closes) is None
    assert venue.trade_session(FRIDAY) == MONDAY


def test_history_has_no_window(venue: ExchangeVenue) -> None:
    assert venue.window(date(2023, 3, 9), date(2023, 3, 9), SATURDAY_NOON) is None
    assert venue.window(FRIDAY, MONDAY, SATURDAY_NOON) is None


def test_opens_are_those_of_the_source_once_it_has_the_session(venue: ExchangeVenue) -> None:
    assert venue.opens(FRIDAY, ["AAA", "BBB"]) == {"AAA": Decimal("50.1235")}
    assert venue.opens(MONDAY, ["AAA"]) is None
