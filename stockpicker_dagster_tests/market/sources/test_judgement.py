"""Judging a stretch of a vendor's rows: the same verdict on a day, whatever was asked for beside it."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.prices import JUMP_MEMORY
from stockpicker_dagster.market.sources.judgement import judge, judged_from, lacking_predecessor

NYSE = trading_calendar("XNYS")
DAYS = NYSE.sessions(date(2021, 1, 4), date(2021, 12, 31))


def ugly_rows(stocks: int = 25) -> pl.DataFrame:
    """Random walks full of bad prints, halts short and long, dividends, empty sessions and weekend rows."""
    rng = np.random.default_rng(8)
    frames = []
    for number in range(stocks):
        close = 50 * np.exp(np.cumsum(0.02 * rng.standard_normal(len(DAYS))))
        wild = np.where(rng.random(len(DAYS)) < 0.01, rng.choice([150.0, 1 / 150, -1.0], len(DAYS)), 1.0)
        rows = pl.DataFrame({"symbol": f"S{number:02d}", "date": DAYS, "close": close * wild})
        rows = rows.with_columns(
            pl.Series("volume", np.where(rng.random(len(DAYS)) < 0.02, 0.0, 900.0)),
            pl.Series("dividend", np.where(rng.random(len(DAYS)) < 0.02, close * 0.01, 0.0)),
            pl.Series("split_ratio", np.where(rng.random(len(DAYS)) < 0.004, 2.0, 1.0)),
        )
        rows = rows.filter(pl.Series(rng.random(len(DAYS)) > 0.02))
        if number % 5 == 0:
            rows = rows.filter((pl.col("date") < DAYS[40]) | (pl.col("date") > DAYS[150]))
        frames.append(rows)
    rows = pl.concat(frames)
    weekend = rows.filter(pl.col("date").dt.weekday() == 5).head(30).with_columns(pl.col("date") + timedelta(days=1))
    return pl.concat([rows, weekend]).with_columns(open="close", high="close", low="close")


def what_a_run_would_have(rows: pl.DataFrame, days: list[date]) -> pl.DataFrame:
    """The rows from the start of the scan on, and before it the last sound row of each symbol and those after it."""
    anchor = judged_from(days[0], NYSE)
    earlier = rows.filter(pl.col("date") < anchor).sort("symbol", "date")
    sound = earlier.filter((pl.col("close") > 0) & (pl.col("volume") > 0)).group_by("symbol").last()
    kept = earlier.join(sound.select("symbol", last="date"), on="symbol").filter(pl.col("date") >= pl.col("last"))
    scanned = rows.filter((pl.col("date") >= anchor) & (pl.col("date") <= days[-1]))
    return pl.concat([kept.drop("last"), scanned])


@pytest.mark.parametrize("length", [1, 23])
def test_pieces_judged_alone_are_the_whole(length: int) -> None:
    rows = ugly_rows()
    prices, quarantine = judge(rows, DAYS, NYSE)
    assert quarantine["reason"].n_unique() >= 4
    starts = range(0, len(DAYS), length) if length > 1 else range(3, len(DAYS), 23)
    pieces = [DAYS[start : start + length] for start in starts]
    found = [judge(what_a_run_would_have(rows, days), days, NYSE) for days in pieces]
    asked = [day for days in pieces for day in days]
    assert_frame_equal(pl.concat([part for part, _ in found]), prices.filter(pl.col("date").is_in(asked)))
    if length > 1:
        assert_frame_equal(pl.concat([part for _, part in found]), quarantine)


def test_a_scan_starts_long_enough_before_that_a_wrong_first_row_is_forgotten() -> None:
    for day in DAYS:
        assert day - judged_from(day, NYSE) > JUMP_MEMORY
        assert NYSE.is_session(judged_from(day, NYSE))


def test_symbols_without_a_sound_row_before_are_named() -> None:
    def row(symbol: str, day: date, volume: float = 5.0) -> tuple[str, date, float, float]:
        return symbol, day, 10.0, volume

    given = [row("OLD", DAYS[3]), row("OLD", DAYS[9]), row("NEW", DAYS[9]), row("IDLE", DAYS[3], 0.0)]
    frame = pl.DataFrame(
        [*given, row("IDLE", DAYS[9]), row("GONE", DAYS[3])], schema=["symbol", "date", "close", "volume"], orient="row"
    )
    assert lacking_predecessor(frame, DAYS[5]) == ["IDLE", "NEW"]
