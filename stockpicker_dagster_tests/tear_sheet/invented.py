"""Invented back-test days and the tear sheet of them, for the tests of this room; no test lives here."""

from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import polars as pl

from stockpicker_dagster.evaluation.judgement import Judgement
from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.universes.survivorship import Survivorship, YearOfSurvivorship
from stockpicker_dagster.research.backtest.days import BACKTEST_SCHEMA, DelistingSensitivity, verdict_of
from stockpicker_dagster.research.labels import forward_returns
from stockpicker_dagster.storage.deployment import Deployment
from stockpicker_dagster.strategy_form import StrategyForm
from stockpicker_dagster.tear_sheet.sheet import TearSheet
from stockpicker_dagster.tear_sheet.signal import Signal, signal_of
from stockpicker_dagster.training.scoring import PREDICTIONS_SCHEMA
from stockpicker_dagster_tests.evaluation.stored_strategies import SERVED, book, store
from stockpicker_dagster_tests.research.price_frames import no_delistings, random_market

CALENDAR = trading_calendar("XNYS")
SESSIONS = CALENDAR.sessions(date(2021, 3, 10), date(2023, 9, 29))


def invented_days(drift: float = 0.0, sessions: list[date] = SESSIONS, books: int = 200) -> pl.DataFrame:
    """Days of a weekly book whose net return is `drift` a day on average, among random books without any."""
    rng, count = np.random.default_rng(11), len(sessions)
    gross = drift + 0.0002 + 0.006 * rng.standard_normal(count)
    turnover = np.where(np.array([day.weekday() == 0 for day in sessions]), rng.uniform(0.8, 1.4, count), 0.0)
    costs = {"commission": 1e-4 * turnover, "spread": 2.5e-4 * turnover, "impact": 0.0 * turnover}
    costs["borrow"] = np.full(count, 0.005 / 252)
    net = gross - sum(costs.values())
    net += drift - net.mean()
    offsets = net[:, None] + 0.002 * rng.standard_normal((count, 5))
    offsets[:, 4] = net
    frame = pl.DataFrame(
        {
            "date": sessions,
            "equity": 1e6 * np.cumprod(1.0 + net),
            "net_return": net,
            "gross_return": gross,
            **costs,
            "interest": np.zeros(count),
            "turnover": turnover,
            "gross_exposure": 2.0 + 0.02 * rng.standard_normal(count),
            "net_exposure": 0.01 * rng.standard_normal(count),
            "longs": np.full(count, 50),
            "shorts": np.full(count, 50),
            "positions": [[] for _ in sessions],
            "random_net_returns": -0.00005 + 0.006 * rng.standard_normal((count, books)),
            "fresh_gross_returns": 0.004 * rng.standard_normal((count, books)),
            "random_turnover": turnover * 0.98,
            "offset_net_returns": offsets,
            "offset_gross_returns": offsets + 0.0001,
            "unknown_delistings": np.zeros(count, dtype=int),
            "cautious_net_return": net,
        },
    )
    return frame.select(pl.col(name).cast(kind) for name, kind in BACKTEST_SCHEMA.items())


def invented_signal(skill: float = 0.05) -> Signal:
    """Scores of 25 stocks that know the next five sessions' returns a little."""
    sessions = SESSIONS[:220]
    prices = random_market(sessions, 25, seed=5)
    known = forward_returns(prices, no_delistings(), CALENDAR, 5, sessions[-1])
    rng = np.random.default_rng(3)
    scores = prices.select("symbol", "date").join(known, on=["symbol", "date"], how="left")
    scores = scores.with_columns(
        score=skill * pl.col("label_return").fill_null(0.0) / 0.045 + pl.Series(rng.standard_normal(scores.height))
    )
    found = signal_of(scores, prices, no_delistings(), CALENDAR, sessions, 5)
    assert found is not None
    return found


def invented_sheet(shown: pl.DataFrame | None = None, **changes: Any) -> TearSheet:
    """A tear sheet with something in every section, with `changes`."""
    shown = invented_days() if shown is None else shown
    judged = verdict_of(shown, [0.01, float(shown["net_return"].mean() / shown["net_return"].std())], 0)
    years = (YearOfSurvivorship(2021, 500, 480, 0.011), YearOfSurvivorship(2022, 505, 495, 0.009))
    sheet = TearSheet(
        strategy="momentum",
        description='Ridge regression on price-and-volume factors; 5 < 6 & "quoted".',
        days=shown,
        judgement=Judgement(judged, ""),
        trials_where="simulated on simulated",
        rebalance="weekly",
        own_offset=4,
        signal=None,
        universe="sp500: members as of each day",
        caveats=("prices are simulated: nothing here says anything about real stocks",),
        survivorship=Survivorship(years, 0.01, "members against all stocks with prices"),
        delistings=DelistingSensitivity(3, 0.41, 0.22),
        settings=(("name", "momentum"), ("universe", "{name: sp500}"), ("strategy's digest", "0123456789abcdef")),
    )
    return replace(sheet, **changes)


def store_strategy(deployment: Deployment, name: str, form: StrategyForm) -> None:
    """The days, prices and random scores of a strategy that serves `SERVED`, as the assets store them."""
    prices = random_market(SERVED, 12, seed=4)
    scored = prices.select("symbol", "date").with_columns(
        score=pl.Series(np.random.default_rng(2).standard_normal(prices.height)),
        rank=pl.lit(1),
        model_id=pl.lit("m1"),
        contributions=pl.lit([], dtype=PREDICTIONS_SCHEMA["contributions"]),
    )
    tables = {
        "simulated/prices": prices,
        "simulated/delistings": no_delistings(),
        f"{name}/predictions": scored.select(pl.col(each).cast(kind) for each, kind in PREDICTIONS_SCHEMA.items()),
    }
    year = CALENDAR.sessions(date(2022, 1, 1), date(2022, 12, 31))
    for table, frame in tables.items():
        deployment.lake.write_days(table, frame, SERVED, lambda _: year)
    store(deployment, name, form, book(SERVED, 0.0005, 3))
