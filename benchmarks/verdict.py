"""How often the verdict believes pure noise, and how often it finds what is really there.

Noise: scores of four kinds (independent from day to day, autoregressive with .9 and .98, and fixed for ever) on real
prices, as a weekly long-short book of 50 and 50 before costs, each against its own 79 permuted books, of which .025 is
a whole number, so that more of them would make p no more exact. Power: the deflated Sharpe ratio alone, for a true
ratio of 1 over ten years, by simulation beside the closed form. No peer gives a verdict; the targets are rates. Needs
STOCKPICKER_REAL_DATA. Run it with `.venv/bin/python benchmarks/verdict.py [--json]`; the whole of it takes about
fifteen minutes of one core, `--strategies 100` a tenth of that. With `--progress FILE` it can be stopped, and goes on
from there.
"""

import argparse
import json
import math
import os
import sys
import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from statistics import NormalDist

import numpy as np
from scipy.signal import lfilter
from scipy.stats import kstest

from stockpicker_dagster.market.calendar import trading_calendar
from stockpicker_dagster.market.sources.files import FilesSource
from stockpicker_dagster.market.universes import from_file
from stockpicker_dagster.research.backtest import kernels
from stockpicker_dagster.research.backtest.engine import (
    Inputs,
    Rules,
    make_books,
    make_inputs,
    make_ledger,
    make_records,
)
from stockpicker_dagster.research.backtest.market_data import MarketData, market_data
from stockpicker_dagster.research.backtest.performance import sharpe, sharpes
from stockpicker_dagster.research.backtest.random_books import percentile, run_blocks
from stockpicker_dagster.research.backtest.significance.deflated_sharpe import (
    SharpeSample,
    deflated_sharpe,
    expected_best_of,
)
from stockpicker_dagster.research.backtest.significance.verdict import WEAK, words_of
from stockpicker_dagster.research.portfolio import rank
from stockpicker_dagster.research.rebalancing import rebalance_days

FIRST, LAST = date(2010, 1, 4), date(2019, 12, 31)
KINDS = {"independent": 0.0, "autoregressive .9": 0.9, "autoregressive .98": 0.98, "static": 1.0}
RULES = Rules(50, 50)
BOOKS = 79
MOST_BELIEVED = 0.04
LEAST_UNIFORM_P = 0.01
POWER = {1: 0.89, 10: 0.36, 100: 0.09}
SESSIONS_OF_TEN_YEARS = 2520


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print nothing but the last line")
    parser.add_argument("--strategies", type=int, default=1000, help="noise strategies of each kind")
    parser.add_argument("--progress", type=Path, help="a file of what is done so far, gone on from if it exists")
    options = parser.parse_args()
    folder = os.environ.get("STOCKPICKER_REAL_DATA")
    if not folder:
        sys.exit("set STOCKPICKER_REAL_DATA to the folder of the real prices; the noise is tried on them")
    results = [power(trials) for trials in POWER]
    trial = NoiseTrial(*real_market(Path(folder)))
    for kind in KINDS:
        results.append(pure_noise(kind, trial, options.strategies, options.progress, not options.json))
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


class NoiseTrial:
    """The verdict on noise, before costs, each strategy the only trial."""

    def __init__(self, market: MarketData, member: np.ndarray) -> None:
        self.market, self.member = market, member
        self.deciding = rebalance_days(market.sessions, "weekly", trading_calendar("XNYS"))
        # Whatever the scores, the market is read once.
        self.inputs = make_inputs(np.where(member, 0.0, np.nan), market, RULES, self.deciding, None)

    def judge(self, kind: str, strategy: int) -> tuple[bool, float]:
        """Whether the verdict believes this strategy, and its permutation p."""
        rng = np.random.default_rng([list(KINDS).index(kind), strategy])
        scores = np.where(self.member, noise(rng, KINDS[kind], self.member.shape), np.nan)
        ranking = rank(scores, self.market.by_name, self.deciding, day_number=self.market.day_number)
        inputs = replace(self.inputs, ranking=ranking)
        own, books = self.gross(inputs, 1, None)[:, 0], self.gross(inputs, BOOKS, strategy)
        ratio, sample = sharpe(own), SharpeSample.of(own)
        p_value = percentile(ratio, sharpes(books)).p_value
        words = words_of(deflated_sharpe(sample, [sample.sharpe]), p_value, ratio)
        return words != words_of(0, 1, 0), p_value

    def gross(self, inputs: Inputs, count: int, seed: int | None) -> np.ndarray:
        """Daily gross returns, (sessions, books): of the strategy itself without a seed, else of permuted books."""
        sessions, names = self.member.shape
        books, records = make_books(RULES, names, count, None), make_records(sessions, count)
        if seed is None:
            ledger = make_ledger(sessions, names)
            kernels.simulate(kernels.OWN, 0, 0, 0, 0, *inputs.for_kernels, books, records, ledger)
        else:
            run_blocks(kernels.PERMUTED, seed, 0, inputs, books, records, 1)
        return records.gross_return


def pure_noise(kind: str, trial: NoiseTrial, strategies: int, progress: Path | None, show: bool) -> dict[str, object]:
    """What the verdict says to many noise strategies of one kind; those that `progress` has are not tried again."""
    lines = progress.read_text().splitlines() if progress and progress.exists() else []
    done = {row["strategy"]: row for row in map(json.loads, lines) if row["kind"] == kind and row["books"] == BOOKS}
    spent = 0.0
    for strategy in range(strategies):
        if strategy not in done:
            began = time.process_time()
            believed, p_value = trial.judge(kind, strategy)
            row = {"kind": kind, "strategy": strategy, "books": BOOKS, "believed": believed, "p": p_value}
            spent += time.process_time() - began
            done[strategy] = row
            if progress:
                with progress.open("a") as file:
                    file.write(json.dumps(row) + "\n")
        if show and strategy % 100 == 99:
            believed_so_far = sum(done[number]["believed"] for number in range(strategy + 1))
            print(f"{kind}: {strategy + 1} of {strategies}, {believed_so_far} believed, {spent:.0f} s", flush=True)
    rows = [done[strategy] for strategy in range(strategies)]
    # p takes the values 1 / (books + 1) to 1: spread evenly over its step it is uniform on (0, 1).
    within = np.random.default_rng(1).random(strategies)
    uniform = kstest(np.array([row["p"] for row in rows]) - within / (BOOKS + 1), "uniform")
    return {
        "name": "pure_noise",
        "kind": kind,
        "strategies": strategies,
        "books_each": BOOKS,
        "false_positive_rate": sum(row["believed"] for row in rows) / strategies,
        "uniformity_p": round(float(uniform.pvalue), 4),
        "ours_s": round(spent, 1),
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
