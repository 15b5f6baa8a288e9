"""Scores beside the returns that followed: what is known by the last session, and nothing later."""

import numpy as np
import polars as pl
import pytest

from stockpicker_dagster.research.labels import forward_returns
from stockpicker_dagster.tear_sheet.signal import signal_of
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


def test_without_a_known_return_or_a_score_there_is_no_signal() -> None:
    nothing = SCORES.clear()
    assert signal_of(nothing, PRICES, no_delistings(), CALENDAR, DAYS, 5) is None
    assert signal_of(SCORES, PRICES, no_delistings(), CALENDAR, DAYS[:6], 5) is None
