"""How often the verdict believes pure noise, and how often it finds what is really there.

Noise: scores of four kinds (independent from day to day, autoregressive with .9 and .98, and fixed for ever) on real
prices, as a weekly long-short book of 50 and 50 before costs, each against its own permuted books. Power: the deflated
Sharpe ratio alone, for a true ratio of 1 over ten years, by simulation beside the closed form. No peer gives a verdict;
the targets are rates. Needs STOCKPICKER_REAL_DATA. Run it with `.venv/bin/python benchmarks/verdict.py [--json]`; the
whole of it takes about twenty minutes on two cores, `--strategies 100` a tenth of that.
"""

import argparse
import json
import math
import os
import sys
import time
from datetime import date
from pathlib import Path
from statistics import NormalDist

import numpy as np
from scipy.signal import lfilter
from scipy.stats import kstest

from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.sources.files import FilesSource
from stockpicker_dagster.market.universes import from_file
from stockpicker_dagster.research.backtest.engine import Rules, run
from stockpicker_dagster.research.backtest.market_data import MarketData, market_data
from stockpicker_dagster.research.backtest.performance import sharpe, sharpes
from stockpicker_dagster.research.backtest.random_books import percentile, permuted_books
from stockpicker_dagster.research.backtest.significance.deflated_sharpe import (
    SharpeSample,
    deflated_sharpe,
    expected_best_of,
)
from stockpicker_dagster.research.backtest.significance.verdict import WEAK, words_of
from stockpicker_dagster.research.rebalancing import rebalance_days

FIRST, LAST = date(2010, 1, 4), date(2019, 12, 31)
KINDS = {"independent": 0.0, "autoregressive .9": 0.9, "autoregressive .98": 0.98, "static": 1.0}
RULES = Rules(50, 50)
BOOKS = 199
MOST_BELIEVED = 0.04
LEAST_UNIFORM_P = 0.01
POWER = {1: 0.89, 10: 0.36, 100: 0.09}
SESSIONS_OF_TEN_YEARS = 2520


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print nothing but the last line")
    parser.add_argument("--strategies", type=int, default=1000, help="noise strategies of each kind")
    options = parser.parse_args()
    folder = os.environ.get("STOCKPICKER_REAL_DATA")
    if not folder:
        sys.exit("set STOCKPICKER_REAL_DATA to the folder of the real prices; the noise is tried on them")
    results = [power(trials) for trials in POWER]
    market, member = real_market(Path(folder))
    for number, (kind, persistence) in enumerate(KINDS.items()):
        results.append(pure_noise(kind, persistence, number, market, member, options.strategies, not options.json))
    if not options.json:
        for result in results:
            print(result)
    print(json.dumps({"benchmark": "verdict", "results": results}))


def real_market(folder: Path) -> tuple[MarketData, np.ndarray]:
    """S&P 500 stocks over ten years, and who was a member with a price on each day."""
    source = FilesSource("sp500", folder / "prices" / "sp500_ever_2000_2024.parquet", "split_adjusted", FIRST)
    universe = from_file(folder / "universes" / "sp500_membership_1996_2024.csv")
    sessions = trading_calendar("XNYS").sessions(FIRST, LAST)
    fetched = source.fetch(universe.symbols_ever(FIRST, LAST), sessions)
    market = market_data(fetched.prices, fetched.delistings, sessions)
    members = universe.membership(sessions).join(fetched.prices, on=["symbol", "date"])
    return market, ~np.isnan(market.panel(members, "close"))


def pure_noise(
    kind: str, persistence: float, number: int, market: MarketData, member: np.ndarray, strategies: int, show: bool
) -> dict[str, object]:
    """The verdict on many noise strategies of one kind, before costs, each the only trial."""
    deciding = rebalance_days(market.sessions, "weekly", trading_calendar("XNYS"))
    believed, p_values, began = 0, [], time.perf_counter()
    for strategy in range(strategies):
        scores = np.where(member, noise(np.random.default_rng([number, strategy]), persistence, member.shape), np.nan)
        own = run(scores, market, RULES, deciding).gross_return
        books = permuted_books(scores, market, RULES, deciding, books=BOOKS, seed=strategy).gross_return
        ratio = sharpe(own)
        standing = percentile(ratio, sharpes(books))
        sample = SharpeSample.of(own)
        believed += words_of(deflated_sharpe(sample, [sample.sharpe]), standing.p_value, ratio) != words_of(0, 1, 0)
        p_values.append(standing.p_value)
        if show and strategy % 100 == 99:
            print(f"{kind}: {strategy + 1} of {strategies}, {believed} believed, {time.perf_counter() - began:.0f} s")
    # p takes the values 1 / (books + 1) to 1: shifted by half a step it is uniform on (0, 1).
    uniform = kstest(np.array(p_values) - 0.5 / (BOOKS + 1), "uniform")
    return {
        "name": "pure_noise",
        "kind": kind,
        "strategies": strategies,
        "books_each": BOOKS,
        "false_positive_rate": believed / strategies,
        "uniformity_p": round(float(uniform.pvalue), 4),
        "ours_s": round(time.perf_counter() - began, 1),
        "peer": None,
        "peer_s": None,
        "ratio": None,
        "target": f"at most {MOST_BELIEVED} believed; p uniform (Kolmogorov-Smirnov p above {LEAST_UNIFORM_P})",
    }


def noise(rng: np.random.Generator, persistence: float, shape: tuple[int, int]) -> np.ndarray:
    """Standard normal scores, each stock's an autoregression of its own with this coefficient; 1 never changes."""
    if persistence == 1.0:
        return np.broadcast_to(rng.standard_normal(shape[1]), shape)
    shocks = rng.standard_normal(shape) * math.sqrt(1.0 - persistence**2)
    shocks[0] /= math.sqrt(1.0 - persistence**2)
    return np.asarray(lfilter([1.0], [1.0, -persistence], shocks, axis=0))


def power(trials: int) -> dict[str, object]:
    """How often a true annual ratio of 1 over ten years passes the deflated ratio's threshold, among so many trials."""
    rng, began = np.random.default_rng(trials), time.perf_counter()
    true_ratio, hurdle = 1.0 / math.sqrt(252), expected_best_of(trials, 1.0 / (SESSIONS_OF_TEN_YEARS - 1))
    normal = NormalDist()
    closed = normal.cdf((true_ratio - hurdle) * math.sqrt(SESSIONS_OF_TEN_YEARS - 1) - normal.inv_cdf(WEAK[0]))
    found = 0
    runs = 4000
    for _ in range(runs):
        returns = 0.01 * (rng.standard_normal(SESSIONS_OF_TEN_YEARS) + true_ratio)
        found += deflated_sharpe(SharpeSample.of(returns), [math.nan] * trials) >= WEAK[0]
    return {
        "name": "planted",
        "trials": trials,
        "power": round(found / runs, 3),
        "closed_form": round(closed, 3),
        "ours_s": round(time.perf_counter() - began, 1),
        "peer": None,
        "peer_s": None,
        "ratio": None,
        "target": POWER[trials],
    }


if __name__ == "__main__":
    main()
