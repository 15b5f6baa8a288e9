"""The pipeline on simulated markets whose truth is known: from prices to scores, shares of the truth and verdicts.

Features, scaling, labels, split, dataset, algorithm, book and verdict are the pipeline's own; only the storage is left
out. Used by tests and by benchmarks/learning.py; no test lives here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from io import BytesIO
from typing import Any

import numpy as np
import polars as pl

from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.sources import Fetched
from stockpicker_dagster.market.sources.simulated import PlantedAlpha, SimulatedMarket
from stockpicker_dagster.research.algorithms import Algorithm, algorithm
from stockpicker_dagster.research.algorithms.tables import Table
from stockpicker_dagster.research.backtest.engine import Rules, run
from stockpicker_dagster.research.backtest.market_data import market_data
from stockpicker_dagster.research.backtest.performance import sharpe, sharpes
from stockpicker_dagster.research.backtest.random_books import percentile, permuted_books
from stockpicker_dagster.research.backtest.significance.deflated_sharpe import SharpeSample, deflated_sharpe
from stockpicker_dagster.research.backtest.significance.verdict import Words, words_of
from stockpicker_dagster.research.cross_section import scale
from stockpicker_dagster.research.features.computation import compute, first_needed
from stockpicker_dagster.research.features.declaration import FeatureSet, feature_set
from stockpicker_dagster.research.rebalancing import rebalance_days
from stockpicker_dagster.research.splits import Range, earliest_training_day, split
from stockpicker_dagster.training.datasets import LABEL, LabelRule, build_dataset

CALENDAR = trading_calendar("XNYS")
BOOKS = 79
"""Permuted books of a verdict: .025 of 80 is a whole number, so that more would make p no more exact."""


@dataclass(frozen=True)
class Study:
    """One market and the dataset of one model on it; `truth` holds the expected returns of tested days, as `truth`."""

    train: pl.DataFrame
    validation: pl.DataFrame
    test: pl.DataFrame
    scaled: pl.DataFrame
    truth: pl.DataFrame
    fetched: Fetched
    features: tuple[str, ...]
    horizon_days: int
    tested: Sequence[date]

    @classmethod
    def of(
        cls,
        alpha: PlantedAlpha,
        seed: int,
        stocks: int,
        periods: Sequence[Range],
        horizon_days: int = 5,
        longest_lookback: int = 252,
    ) -> "Study":
        """Train, validate and test in `periods`; of the set `factors`, those that look back no longer than asked."""
        few = [each for each in feature_set("factors").features if each.lookback <= longest_lookback]
        features = FeatureSet.of("few", few)
        start = CALENDAR.offset(CALENDAR.next_session(periods[0][0]), -features.lookback - 10)
        assert earliest_training_day(start, features.lookback, CALENDAR) <= periods[0][0]
        market = SimulatedMarket("simulated", start, stocks, seed, alpha)
        fetched = market.fetch(None, CALENDAR.sessions(start, periods[2][1]))
        purged = split(periods[0], periods[1], horizon_days, CALENDAR.next_session(periods[1][1]), CALENDAR)
        tested = CALENDAR.sessions(*periods[2])
        days = [*purged.train, *purged.validation, *tested]
        loaded_from = first_needed(days, features.lookback, CALENDAR, start)
        scaled = scale(compute(features, fetched.prices, days, CALENDAR, start, loaded_from), features.names)
        rule = LabelRule(horizon_days, "rank", None)
        made = build_dataset(
            scaled, fetched.prices, fetched.delistings, purged, tested, features.names, rule, CALENDAR, "", "standard"
        )
        tables = {name: _read(made.files[f"{name}.parquet"]) for name in ("train", "validation", "test")}
        rows = [(symbol, day, value) for day in tested for symbol, value in market.expected_returns(day).items()]
        truth = pl.DataFrame(rows, {"symbol": pl.String, "date": pl.Date, "truth": pl.Float64}, orient="row")
        return cls(
            **tables,
            scaled=scaled.filter(pl.col("date").is_in(tested)),
            truth=truth,
            fetched=fetched,
            features=tuple(features.names),
            horizon_days=horizon_days,
            tested=tested,
        )

    def fit(self, name: str, hyperparameters: Mapping[str, Any], seed: int = 0) -> Algorithm:
        """The algorithm, trained."""
        return algorithm(name).fit(
            self.train,
            self.validation,
            self.features,
            LABEL,
            hyperparameters,
            seed,
            horizon_days=self.horizon_days,
        )

    def scores(self, model: Algorithm) -> pl.DataFrame:
        """`symbol`, `date`, `score` of every stock on every tested day."""
        values = self.scaled.select(self.features).to_numpy().astype(np.float32)
        return self.scaled.select("symbol", "date").with_columns(
            score=pl.Series(model.predict(values, self.features), dtype=pl.Float64)
        )

    def rank_ics(self, model: Algorithm) -> tuple[float, float]:
        """The mean rank IC on tested days: of the model's scores, and of the true expected returns."""
        rows = self.test.join(self.scores(model), on=["symbol", "date"]).join(self.truth, on=["symbol", "date"])
        rows = rows.sort("date", "symbol")
        table = Table.of(rows, self.features, LABEL, "test")
        return table.rank_ic(rows["score"].to_numpy()), table.rank_ic(rows["truth"].to_numpy())

    def words(self, model: Algorithm, names: int) -> Words:
        """The verdict on a weekly book of so many names long and short, before costs, the only trial."""
        inside = pl.col("date").is_in(self.tested)
        market = market_data(self.fetched.prices.filter(inside), self.fetched.delistings.filter(inside), self.tested)
        panel = market.panel(self.scores(model), "score")
        deciding = rebalance_days(self.tested, "weekly", CALENDAR)
        rules = Rules(names, names)
        own = run(panel, market, rules, deciding).gross_return
        if not own.any():
            return words_of(0.0, 1.0, 0.0)
        books = permuted_books(panel, market, rules, deciding, books=BOOKS, seed=1, workers=1)
        sample, ratio = SharpeSample.of(own), sharpe(own)
        p_value = percentile(ratio, sharpes(books.gross_return)).p_value
        return words_of(deflated_sharpe(sample, [sample.sharpe]), p_value, ratio)


def _read(content: object) -> pl.DataFrame:
    assert isinstance(content, bytes)
    return pl.read_parquet(BytesIO(content), hive_partitioning=False)
