"""Delistings by silence: ten sessions without a row, known on the tenth, from rows up to it alone."""

from datetime import date

import polars as pl
import pytest

from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.prices import DELISTINGS_SCHEMA, PRICES_SCHEMA, QUARANTINE_SCHEMA, REASONS
from stockpicker_dagster.market.sources.silence import DELISTED_AFTER, delistings_by_silence, quoted

DAYS = trading_calendar("XNYS").sessions(date(2023, 1, 3), date(2023, 6, 30))


def listed(absent: range, through: int = 60) -> list[tuple[str, date, date]]:
    """Symbol, day known and last session of what is listed about a stock absent on some days up to a session."""
    days = pl.Series("date", DAYS[: through + 1])
    rows = pl.DataFrame({"symbol": "AAA", "date": [day for place, day in enumerate(days) if place not in absent]})
    found = delistings_by_silence(rows, days)
    assert dict(found.schema) == DELISTINGS_SCHEMA
    assert (found["known_at"] == found["date"]).all()
    assert found["return"].null_count() == found.height
    return found.select("symbol", "date", "last_session").rows()


def test_nine_missed_sessions_are_a_halt_and_ten_an_end() -> None:
    assert listed(range(20, 20 + DELISTED_AFTER - 1)) == []
    assert listed(range(20, 20 + DELISTED_AFTER)) == [("AAA", DAYS[29], DAYS[19])]


@pytest.mark.parametrize("through", [28, 29, 30, 60])
def test_it_is_known_on_the_tenth_session_and_never_changes(through: int) -> None:
    assert listed(range(20, 200), through) == ([("AAA", DAYS[29], DAYS[19])] if through >= 29 else [])


def test_a_stock_that_comes_back_may_leave_again() -> None:
    days = [day for place, day in enumerate(DAYS[:60]) if not (20 <= place < 31 or place >= 40)]
    found = delistings_by_silence(pl.DataFrame({"symbol": "AAA", "date": days}), pl.Series(DAYS[:60]))
    assert found["last_session"].to_list() == [DAYS[19], DAYS[39]]


def test_a_rejected_row_shows_that_the_stock_is_there_unless_it_shows_the_contrary() -> None:
    prices = pl.DataFrame([{"symbol": "AAA", "date": DAYS[0]}], schema=PRICES_SCHEMA)
    rejected = [{"symbol": reason, "date": DAYS[1], "reason": reason} for reason in REASONS]
    again = [{"symbol": "AAA", "date": DAYS[0], "reason": "duplicate_row"}]
    there = quoted(prices, pl.DataFrame([*rejected, *again], schema=QUARANTINE_SCHEMA))
    assert there.is_unique().all()
    assert set(there["symbol"]) - {"AAA"} == {
        "duplicate_row",
        "high_below_low",
        "open_or_close_outside_range",
        "bad_split_ratio",
        "negative_dividend",
        "stale_close",
        "dividend_not_below_previous_close",
        "moved_without_volume",
        "hundredfold_jump",
    }
