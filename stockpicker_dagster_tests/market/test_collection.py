"""Collecting: a source is asked only for what it has, and asking again keeps the stored past."""

from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from stockpicker_dagster.errors import InvalidInput
from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.collection import (
    NotYetAvailable,
    collect,
    redecided,
    restated_since,
    sampled_session,
)
from stockpicker_dagster.market.corrections import Decisions, Record
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


def file_source(path: Path, close: float = 10.0) -> FilesSource:
    """Thirty stocks that close at 10, and `close` for the last of them."""
    rows = "".join(
        f"S{number:02d},{day},{price},{price},{price},{price},100,{price}\n"
        for number in range(30)
        for day in DAYS
        for price in [close if number == 29 else 10.0]
    )
    path.write_text("symbol,date,open,high,low,close,volume,adj_close\n" + rows)
    return FilesSource("mine", path, "as_traded", START)


def test_a_sample_of_a_stored_session_is_compared_with_what_the_source_says_now(tmp_path: Path) -> None:
    stored = file_source(tmp_path / "p.csv").fetch(None, [DAYS[4]]).prices
    assert restated_since(file_source(tmp_path / "p.csv"), Decisions(), stored, DAYS[9]).is_empty()
    revised = file_source(tmp_path / "q.csv", close=11.0)
    found = {day: restated_since(revised, Decisions(), stored, day) for day in DAYS[5:]}
    # Twenty of thirty rows are compared, others every day and the same ones whenever a day is run again.
    hit = [day for day, rows in found.items() if rows.height]
    assert 0 < len(hit) < len(found)
    for day in hit:
        assert found[day].equals(restated_since(revised, Decisions(), stored, day))
        [row] = found[day].to_dicts()
        assert (row["symbol"], row["date"], row["reason"]) == ("S29", day, "restated")
        assert row["detail"].startswith(f"of {DAYS[4]}: ")
        assert "close 10.0 -> 11.0" in row["detail"]


def test_the_compared_session_lies_before_the_day_and_follows_from_it() -> None:
    assert sampled_session(DAYS, DAYS[0]) is None
    chosen = [sampled_session(DAYS, day) for day in DAYS[1:]]
    assert all(session is not None and session < day for session, day in zip(chosen, DAYS[1:], strict=True))
    assert chosen == [sampled_session(DAYS, day) for day in DAYS[1:]]
    assert len(set(chosen)) > 3


def test_an_invented_market_has_nothing_to_decide_on() -> None:
    record = Record(1, "accept", DAYS[3], "A", "why", "os:me", datetime(2024, 2, 1, tzinfo=UTC))
    with pytest.raises(InvalidInput, match="cannot be decided on"):
        collect(simulated_market("simulated", START, 12, 3), None, DAYS, NOTHING, Decisions((record,)))


def test_a_decision_may_change_its_row_and_later_rows_of_its_symbol_alone() -> None:
    record = Record(1, "correct", DAYS[3], "A", "why", "os:me", datetime(2024, 2, 1, tzinfo=UTC), after={"close": 1.0})
    rows = redecided(Decisions((record,)), DAYS[:6]).rows()
    assert rows == [("A", DAYS[3], True), ("A", DAYS[4], False), ("A", DAYS[5], False)]
