"""Scores beside the returns that followed: what is known by the last session, and nothing later."""

import numpy as np
import polars as pl
import pytest

from stockpicker_dagster.research.labels import forward_returns
from stockpicker_dagster.tear_sheet.signal import signal_of
from stockpicker_dagster.tear_sheet.tables import signal_rows
from stockpicker_dagster_tests.research.price_frames import no_delistings, random_market
from stockpicker_dagster_tests.tear_sheet.invented import CALENDAR, SESSIONS

DAYS = SESSIONS[:60]
PRICES = random_market(DAYS, 12, seed=8)
SCORES = PRICES.select("symbol", "date", score=pl.Series(np.random.default_rng(1).standard_normal(PRICES.height)))


def test_a_score_that_is_the_return_itself_opens_a_fan_in_order() -> None:
    known = forward_returns(PRICES, no_delistings(), CALENDAR, 1, DAYS[-1])
    perfect = known.select("symbol", "date", score="label_return")
    signal = signal_of(perfect, PRICES, no_delistings(), CALENDAR, DAYS, 1)
    assert signal is not None
    assert (np.diff(signal.fan[-1]) > 0.0).all()
    figures = signal.study.all_stocks[signal.own]
    assert (figures.quality.horizon, figures.quality.mean_rank_ic) == (1, pytest.approx(1.0))


def test_prices_after_the_last_session_change_nothing() -> None:
    shown = DAYS[:40]
    cut = PRICES.filter(pl.col("date") <= shown[-1])
    whole = signal_of(SCORES, PRICES, no_delistings(), CALENDAR, shown, 5)
    before = signal_of(SCORES.filter(pl.col("date") <= shown[-1]), cut, no_delistings(), CALENDAR, shown, 5)
    assert whole is not None
    assert before is not None
    np.testing.assert_array_equal(whole.fan, before.fan)
    np.testing.assert_array_equal(whole.study.daily.rank_ic, before.study.daily.rank_ic)


def test_horizons_longer_than_the_span_are_left_out() -> None:
    signal = signal_of(SCORES, PRICES, no_delistings(), CALENDAR, DAYS[:15], 5)
    assert signal is not None
    assert signal.study.horizons == (1, 5, 10)


def test_each_sector_is_judged_by_its_own_stocks() -> None:
    """In one the scores are the returns, in the other they are the reverse; of a third nothing is known."""
    known = forward_returns(PRICES, no_delistings(), CALENDAR, 1, DAYS[-1])
    place = pl.col("symbol").rank("dense").cast(pl.Int64) % 3
    sector = pl.when(place == 0).then(pl.lit("right")).when(place == 1).then(pl.lit("wrong"))
    sectors = PRICES.select("symbol", "date", sector=sector)
    side = pl.when(pl.col("sector") == "wrong").then(-1.0).otherwise(1.0)
    scores = known.join(sectors, on=["symbol", "date"]).select("symbol", "date", score=pl.col("label_return") * side)
    signal = signal_of(scores, PRICES, no_delistings(), CALENDAR, DAYS, 1, sectors)
    assert signal is not None
    found = {name: figures[signal.own].quality.mean_rank_ic for name, figures in signal.study.by_sector.items()}
    assert found == {"right": pytest.approx(1.0), "wrong": pytest.approx(-1.0)}
    said = {row.name: row.shown for row in signal_rows(signal.study, signal.own)}
    assert said["Rank IC by sector"] == "right: +1.000, wrong: -1.000"
    unknown = sectors.with_columns(sector=pl.lit(None, pl.String))
    signal = signal_of(scores, PRICES, no_delistings(), CALENDAR, DAYS, 1, unknown)
    assert signal is not None
    assert not signal.study.by_sector


def test_without_a_known_return_or_a_score_there_is_no_signal() -> None:
    nothing = SCORES.clear()
    assert signal_of(nothing, PRICES, no_delistings(), CALENDAR, DAYS, 5) is None
    assert signal_of(SCORES, PRICES, no_delistings(), CALENDAR, DAYS[:6], 5) is None
