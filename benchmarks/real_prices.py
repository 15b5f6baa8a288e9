"""All algorithms on S&P 500 prices, walk-forward: what they find, what it earns, and how long it takes to learn.

Features are Alpha158 and the price-and-volume factors together, standardized over each day's members; the label is the
rank of the return from the next open to the one five sessions later. Models are retrained every year on three years,
validated on the next, and used in the one after, purged. To be affordable on two cores everything is weekly: rows are
the last session of each week, in training as in the test. The book is long 50 and short 50 names, decided weekly, at 1
bp commission, 5 bp spread and 50 bp a year of borrow fee. Training times are of the processor, on one thread. No peer
publishes this table on these prices; figures as they come.

Needs STOCKPICKER_REAL_DATA, and the extra `deep`. `.venv/bin/python benchmarks/real_prices.py --state FOLDER [--json]`
takes about an hour of one core; every year of every seed is kept in FOLDER, so that a stopped run goes on, and
`--report` prints what is there.
"""

import argparse
import json
import math
import os
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.sources.files import FilesSource
from stockpicker_dagster.market.universes import from_file
from stockpicker_dagster.research.algorithms import algorithm, known_algorithms
from stockpicker_dagster.research.backtest.engine import Rules, run
from stockpicker_dagster.research.backtest.market_data import market_data
from stockpicker_dagster.research.backtest.performance import sharpe
from stockpicker_dagster.research.backtest.signal_quality import signal_quality
from stockpicker_dagster.research.cross_section import scale
from stockpicker_dagster.research.features.computation import compute, first_needed
from stockpicker_dagster.research.features.declaration import FeatureSet, feature_set
from stockpicker_dagster.research.labels import forward_returns, transform
from stockpicker_dagster.research.rebalancing import rebalance_days
from stockpicker_dagster.research.splits import split

START, LAST = date(2004, 1, 2), date(2024, 3, 7)
FIRST_YEAR, LAST_YEAR = 2010, 2024
TRAIN_YEARS, VALIDATION_YEARS, HORIZON = 3, 1, 5
WEEKS = 1
"""How many rows of a stock a label reaches ahead: they are a week apart, and so are the ends of a label."""
RULES = Rules(50, 50, commission_bps=1.0, spread_bps=5.0, borrow_bps_per_year=50.0)
CALENDAR = trading_calendar("XNYS")
SETTINGS: dict[str, dict[str, Any]] = {
    "linear": {},
    "boosted_trees": {"trees": 300, "learning_rate": 0.03, "rows_in_leaf": 200},
    "neural_network": {"ensemble": 5},
    "deep_reinforcement_learning": {"steps": 8192},
}
"""Policies walk through the 155 weeks that a model learns from some fifty times, not 260 times as by default."""
DRAWS_NOTHING = ("linear",)
"""Algorithms of one solution: every seed gives the same, so that one is enough."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print nothing but the last line")
    parser.add_argument("--state", type=Path, required=True, help="folder of everything that was made so far")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=None, help="only these algorithms")
    parser.add_argument("--report", action="store_true", help="train nothing; say what is there")
    options = parser.parse_args()
    folder = os.environ.get("STOCKPICKER_REAL_DATA")
    if not folder:
        sys.exit("set STOCKPICKER_REAL_DATA to the folder of the real prices")
    options.state.mkdir(parents=True, exist_ok=True)
    names = [name for name in SETTINGS if name in known_algorithms() and name in (options.only or SETTINGS)]
    rows = weekly_rows(Path(folder), options.state)
    if not options.report:
        for seed in range(options.seeds):
            for name in names:
                if seed == 0 or name not in DRAWS_NOTHING:
                    walk(name, seed, rows, options.state, show=not options.json)
    results = [summary(name, Path(folder), rows, options.state, options.seeds) for name in names]
    if not options.json:
        for result in results:
            print(result)
    print(json.dumps({"benchmark": "real_prices", "results": results}))


def both_sets() -> FeatureSet:
    """Alpha158 and the factors in one set, without features of price level, which split-adjusted prices do not tell."""
    return FeatureSet.of(
        "both", [*feature_set("alpha158").features, *feature_set("factors").features]
    ).without_price_level()


def weekly_rows(folder: Path, state: Path) -> pl.DataFrame:
    """Scaled features, label and return of the members on the last session of each week; made once."""
    path = state / "weekly.parquet"
    if path.exists():
        return pl.read_parquet(path)
    features = both_sets()
    universe = from_file(folder / "universes" / "sp500_membership_1996_2024.csv")
    sessions = CALENDAR.sessions(START, LAST)
    prices, delistings = fetched(folder, sessions)
    members = universe.membership(sessions)
    returns = forward_returns(prices, delistings, CALENDAR, HORIZON)
    labels = transform(returns, members, "rank")
    weekly = rebalance_days(sessions, "weekly", CALENDAR)
    parts = []
    for year in range(FIRST_YEAR - TRAIN_YEARS - VALIDATION_YEARS, LAST_YEAR + 1):
        days = [day for day, decides in zip(sessions, weekly, strict=True) if decides and day.year == year]
        needed = first_needed(days, features.lookback, CALENDAR, START)
        rows = prices.filter(pl.col("date").is_between(needed, days[-1]))
        made = compute(features, rows, days, CALENDAR, START, needed)
        made = made.join(members, on=["symbol", "date"], how="semi")
        parts.append(scale(made, features.names))
        print(f"features of {year}: {made.height} rows", file=sys.stderr)
    table = pl.concat(parts).join(
        labels.select("symbol", "date", "label", "label_return"), on=["symbol", "date"], how="left"
    )
    table.sort("date", "symbol").write_parquet(path)
    return pl.read_parquet(path)


def fetched(folder: Path, sessions: list[date]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Prices and delistings of everyone who was ever a member."""
    source = FilesSource("sp500", folder / "prices" / "sp500_ever_2000_2024.parquet", "split_adjusted", START)
    universe = from_file(folder / "universes" / "sp500_membership_1996_2024.csv")
    result = source.fetch(universe.symbols_ever(START, LAST), sessions)
    return result.prices, result.delistings


def walk(name: str, seed: int, rows: pl.DataFrame, state: Path, show: bool) -> None:
    """Train the model of every year, and keep its scores of that year."""
    features = both_sets().names
    for year in range(FIRST_YEAR, LAST_YEAR + 1):
        kept = state / f"{name}-{seed}-{year}.parquet"
        if kept.exists():
            continue
        first = date(year, 1, 1)
        train = (date(year - TRAIN_YEARS - VALIDATION_YEARS, 1, 1), date(year - VALIDATION_YEARS - 1, 12, 31))
        validation = (date(year - VALIDATION_YEARS, 1, 1), date(year - 1, 12, 31))
        days = split(train, validation, HORIZON, CALENDAR.next_session(date(year - 1, 12, 31)), CALENDAR)
        known = rows.filter(pl.col("date").is_in(list(days.train)))
        held_out = rows.filter(pl.col("date").is_in(list(days.validation)))
        began = time.process_time()
        model = algorithm(name).fit(known, held_out, features, "label", SETTINGS[name], seed, horizon_days=WEEKS)
        took = time.process_time() - began
        tested = rows.filter(pl.col("date").is_between(first, date(year, 12, 31)))
        scores = model.predict(tested.select(features).to_numpy().astype(np.float32), features)
        scored = tested.select("symbol", "date").with_columns(score=pl.Series(scores), seconds=pl.lit(took))
        unfinished = kept.with_suffix(".part")
        scored.write_parquet(unfinished)
        unfinished.rename(kept)
        if show:
            print(f"{name}, seed {seed}, {year}: {took:.0f} s, {model.metrics}", file=sys.stderr, flush=True)


def summary(name: str, folder: Path, rows: pl.DataFrame, state: Path, seeds: int) -> dict[str, Any]:
    """The figures of an algorithm over the seeds whose every year is there: mean and standard deviation."""
    figures: list[dict[str, float]] = []
    for seed in range(seeds):
        parts = [state / f"{name}-{seed}-{year}.parquet" for year in range(FIRST_YEAR, LAST_YEAR + 1)]
        if all(part.exists() for part in parts):
            figures.append(judged(pl.concat([pl.read_parquet(part) for part in parts]), folder, rows))
    told: dict[str, Any] = {"name": name, "seeds": len(figures), "settings": SETTINGS[name]}
    for key in figures[0] if figures else ():
        values = np.array([each[key] for each in figures])
        told[key] = round(float(values.mean()), 5)
        told[f"{key}_deviation"] = round(float(values.std(ddof=1)), 5) if len(values) > 1 else None
    return told | {
        "ours_s": told.get("train_s_a_year"),
        "peer": None,
        "peer_s": None,
        "ratio": None,
        "target": "figures as they come",
    }


def judged(scored: pl.DataFrame, folder: Path, rows: pl.DataFrame) -> dict[str, float]:
    """Information coefficients against the label's return, and the book before and after costs."""
    sessions = CALENDAR.sessions(date(FIRST_YEAR, 1, 1), LAST)
    prices, delistings = fetched(folder, sessions)
    market = market_data(prices, delistings, sessions)
    table = scored.join(rows.select("symbol", "date", "label_return"), on=["symbol", "date"])
    scores, returns = market.panel(table, "score"), market.panel(table, "label_return")
    quality = signal_quality(scores, returns, HORIZON)
    book = run(scores, market, RULES, rebalance_days(sessions, "weekly", CALENDAR))
    years = scored.group_by(pl.col("date").dt.year()).agg(pl.col("seconds").first())["seconds"]
    return {
        "ic": quality.mean_ic,
        "rank_ic": quality.mean_rank_ic,
        "gross_sharpe": sharpe(book.gross_return),
        "net_sharpe": sharpe(book.net_return),
        "turnover_a_year": 252.0 * float(book.turnover.mean()),
        "train_s_a_year": math.fsum(years) / len(years),
    }


if __name__ == "__main__":
    main()
