"""Collecting: a source is asked only for what it has, and asking again keeps the stored past."""

from datetime import date
from pathlib import Path

import polars as pl
import pytest

from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.collection import NotYetAvailable, collect
from stockpicker_dagster.market.restatements import StoredPast
from stockpicker_dagster.market.sources.files import FilesSource
from stockpicker_dagster.market.sources.simulated import simulated_market

START = date(2024, 1, 2)
DAYS = trading_calendar("XNYS").sessions(START, date(2024, 1, 31))
NOTHING = StoredPast()


def test_days_beyond_the_source_are_refused_naming_its_end(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    rows = "".join(f"A,{day},10,10,10,10,100,10\n" for day in DAYS[:3])
    path.write_text("symbol,date,open,high,low,close,volume,adj_close\n" + rows)
    source = FilesSource("mine", path, "as_traded", START)
    assert collect(source, ["A"], DAYS[:3], NOTHING).prices.height == 3
    with pytest.raises(NotYetAvailable, match=f"'mine' ends on {DAYS[2]} and was asked for {DAYS[3]}; append"):
        collect(source, ["A"], DAYS[:4], NOTHING)


def test_a_range_and_its_days_collect_the_same_rows_and_asking_again_changes_nothing() -> None:
    source = simulated_market("simulated", START, 12, 3)
    whole = collect(source, None, DAYS, NOTHING)
    daily = pl.concat([collect(source, None, [day], NOTHING).prices for day in DAYS])
    assert whole.prices.equals(daily)
    again = collect(source, None, DAYS, StoredPast(whole.prices, whole.delistings, whole.quarantine))
    assert again.prices.equals(whole.prices)
    assert again.quarantine.equals(whole.quarantine)


def test_a_symbol_taken_out_of_use_keeps_its_stored_rows() -> None:
    source = simulated_market("simulated", START, 12, 3)
    symbols = source.fetch(None, DAYS).prices["symbol"].unique().sort().to_list()
    stored = collect(source, symbols, DAYS, NOTHING)
    again = collect(source, symbols[1:], DAYS, StoredPast(stored.prices, stored.delistings, stored.quarantine))
    assert again.prices.equals(stored.prices)
    assert again.delistings.equals(stored.delistings)
    assert again.quarantine.filter(pl.col("reason") == "restated").is_empty()
